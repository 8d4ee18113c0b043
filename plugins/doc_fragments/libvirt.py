# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The option of modules that ask the host's libvirt."""

    DOCUMENTATION = r"""
options:
  uri:
    description:
      - How to reach libvirt's QEMU driver on this host. Other hosts cannot be named; their devices are not seen here.
    type: str
    default: qemu:///system
"""
