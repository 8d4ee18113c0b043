# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PCI devices of the host that the container stands for: hardware.py FOLDER.

A network card with two virtual functions, which vfio-pci has already: the files are plain ones, and no driver can be
bound by writing to them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

tree = SysfsTree(Path(sys.argv[1]))
tree.add_vtd()
tree.add_device("0000:00:00.0", ids="8086:29c0", pci_class=0x060000, group=0)
tree.add_device("0000:00:1c.0", ids="8086:3420", driver="pcieport", bridge=True, group=1)
tree.add_device(
    "0000:01:00.0", ids="8086:10c9", pci_class=0x020000, driver="igb", group=14, parent="0000:00:1c.0", totalvfs=7
)
tree.add_vfs("0000:01:00.0", 2, ids="8086:10ca", driver="vfio-pci", first_group=15)
# Interrupts are in /proc, which cannot be replaced: whether the machine remaps them must not matter.
tree.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n")
