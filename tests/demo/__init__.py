# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The demonstration: from an IOMMU that is off to a guest that sees its devices, on an emulated machine."""
