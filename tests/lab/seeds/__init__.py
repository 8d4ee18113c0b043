# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What documents of 2010 to 2024 do by hand, done with this collection on the hardware they speak of.

Each module names its document. What is different today is in docs/older_howtos.md.
"""
