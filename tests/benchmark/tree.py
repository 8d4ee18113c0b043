# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PCI functions of a big hypervisor as a directory tree: what lspci and the collection read of sysfs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.names import PCI_IDS_FILES
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree, config_space

FUNCTIONS_PER_CARD = 64  # its root port, its two PFs and their VFs

# Thirteen lines (a kernel that knows SR-IOV has as many), as of a device with two memory BARs: start, end, flags.
_RESOURCE = (
    "0x00000000f7000000 0x00000000f70fffff 0x0000000000040200\n"
    "0x00000000f7100000 0x00000000f7103fff 0x0000000000040200\n"
    + "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
    * 11
)


@dataclass(frozen=True)
class Card:
    """A kind of network card: ids and driver of its PFs and VFs, subsystem, revision."""

    pf: str
    vf: str
    subsystem: str
    pf_driver: str
    vf_driver: str
    revision: int


CARDS = (
    Card("8086:10c9", "8086:10ca", "8086:a02c", "igb", "igbvf", 0x01),
    Card("15b3:101d", "15b3:101e", "15b3:0016", "mlx5_core", "mlx5_core", 0x00),
    Card("8086:1583", "8086:154c", "8086:0002", "i40e", "iavf", 0x02),
    Card("14e4:16d7", "14e4:16dc", "14e4:2142", "bnxt_en", "bnxt_en", 0x01),
)


def build(root: Path, functions: int) -> SysfsTree:
    """Make a tree of so many functions, a multiple of :data:`FUNCTIONS_PER_CARD`: root ports, each with a card whose
    first PF has most of the VFs, every function in an IOMMU group of its own, the VFs half bound to vfio-pci."""
    tree = SysfsTree(root)
    pci_ids = next(path for path in PCI_IDS_FILES if Path(path).exists())
    shutil.copyfile(pci_ids, tree.write(PCI_IDS_FILES[0], "").path(PCI_IDS_FILES[0]))
    tree.add_vtd().set_cpu()
    tree.write("/proc/mounts", "/dev/vda1 / ext4 rw 0 0\n").write("/proc/swaps", "Filename\n")
    groups = iter(range(functions))
    for number in range(functions // FUNCTIONS_PER_CARD):
        _add_card(tree, number, CARDS[number % len(CARDS)], groups)
    return tree


def _add_card(tree: SysfsTree, number: int, card: Card, groups: Iterator[int]) -> None:
    # 16 root ports for each host bridge, and each host bridge in a domain and on a NUMA node of its own.
    domain, port = divmod(number, 16)
    bus = port + 1
    above = f"{domain:04x}:00:{port + 1:02x}.0"
    node = domain % 2
    tree.add_device(
        above,
        ids="8086:3420",
        subsystem="0000:0000",
        bridge=True,
        driver="pcieport",
        group=next(groups),
        numa_node=node,
        reset_methods="pm",
        attributes=_attributes("8086:3420", "0000:0000", 0x060400, 0x04),
    )
    for function in range(2):
        tree.add_device(
            f"{domain:04x}:{bus:02x}:00.{function}",
            ids=card.pf,
            subsystem=card.subsystem,
            pci_class=0x020000,
            driver=card.pf_driver,
            group=next(groups),
            parent=above,
            numa_node=node,
            reset_methods="flr bus",
            totalvfs=64,
            interfaces={f"eth{number}p{function}": f"02:00:{number:02x}:00:00:{function:02x}"},
            attributes=_attributes(
                card.pf, card.subsystem, 0x020000, card.revision, f"{number + 1:014x}{function:02x}"
            ),
        )
        count = (54, 7)[function]
        for address in tree.add_vfs(
            f"{domain:04x}:{bus:02x}:00.{function}",
            count,
            ids=card.vf,
            subsystem=card.subsystem,
            first_group=None,
            offset=(8, 64)[function],
            stride=1,
            numa_node=node,
            reset_methods="flr",
            attributes=_attributes(card.vf, card.subsystem, 0x020000, card.revision),
        ):
            tree.join_group(address, next(groups))
            tree.bind(address, "vfio-pci" if address.function % 2 else card.vf_driver)
    tree.add_slot(f"{number + 1}", f"{domain:04x}:{bus:02x}:00")


def _attributes(
    ids: str, subsystem: str, pci_class: int, revision: int, serial: str | None = None
) -> dict[str, str | bytes]:
    return {
        "revision": f"0x{revision:02x}",
        "irq": "16",
        "resource": _RESOURCE,
        "config": config_space(
            ids=ids, subsystem=subsystem, pci_class=pci_class, revision=revision, serial=serial, size=512
        ),
        "current_link_speed": "8.0 GT/s PCIe",
        "current_link_width": "8",
        "max_link_speed": "16.0 GT/s PCIe",
        "max_link_width": "16",
    }
