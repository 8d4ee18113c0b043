# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenarios of ``extensions/molecule``, run from a checkout: image, collections and podman are seen to first."""
