# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a PCI function is on IBM Z (arch/s390/pci/pci_sysfs.c, Documentation/arch/s390/pci.rst)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Zpci:
    """The identity of a function on IBM Z. None stands for what the kernel does not tell.

    ``fid`` (32 bits) names the function in the machine, ``uid`` (16 bits, 0 when the machine's definition gives none)
    is its PCI domain, and says so for good when ``uid_is_unique`` (attribute since Linux 5.13). ``pchid`` (16 bits) is
    the adapter's place, ``vfn`` the number of a virtual function from 1 on, 0 for a physical one.
    """

    uid: int | None
    fid: int
    pchid: int | None
    vfn: int | None
    uid_is_unique: bool | None
