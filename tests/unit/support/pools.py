# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with VFs to give away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.tests.unit.support.domains import show_schemas
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

PF = "0000:0a:00.0"
VFS = ["0000:0a:10.0", "0000:0a:10.2"]
EMPTY_PF = "0000:0b:00.0"
"""A PF without VFs."""
PLAIN = "0000:0c:00.0"
"""A network card that can have none."""


def machine_with_vfs(root: Path) -> SysfsTree:
    """Two network cards with SR-IOV, one of them with two VFs, and a card without."""
    tree = SysfsTree(root)
    for folder in ("/run", "/var/lib"):  # as on every host: a run that fails leaves what it found
        tree.path(folder).mkdir(parents=True)
    tree.path("/sys/kernel/iommu_groups").mkdir(parents=True)
    card: dict[str, Any] = {"ids": "8086:10c9", "pci_class": 0x020000, "driver": "igb"}
    tree.add_device(PF, **card, group=10, totalvfs=7, interfaces={"enp10s0": "52:54:00:00:00:0a"})
    assert [str(vf) for vf in tree.add_vfs(PF, 2, driver="igbvf", first_group=20)] == VFS
    tree.add_device(EMPTY_PF, **card, group=11, totalvfs=7, interfaces={"enp11s0": "52:54:00:00:00:0b"})
    tree.set_attribute(EMPTY_PF, "sriov_numvfs", "0")
    tree.add_device(PLAIN, **card, group=12, interfaces={"enp12s0": "52:54:00:00:00:0c"})
    show_schemas(root)
    return tree
