# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fleet on one machine: hosts that are directory trees, reached by Ansible like any others."""
