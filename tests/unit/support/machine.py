# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole small hypervisor for the tests of binding: network cards, disks, a slot of four functions, an IOMMU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from .initramfs import InitramfsToolsStandIn
from .kernel import FakeKernel
from .sysfs import SysfsTree

PF = "0000:01:00.0"
VF0, VF1 = "0000:01:10.0", "0000:01:10.2"
SLOT = [f"0000:02:00.{function}" for function in range(4)]
NVME = "0000:03:00.0"
MANAGEMENT = "0000:04:00.0"
TWINS = ["0000:05:00.0", "0000:06:00.0"]

KERNELS = ("6.1.0-18-amd64", "6.1.0-20-amd64")

DRIVERS = {
    "pcieport": [],
    "igb": ["8086:10c9"],
    "igbvf": ["8086:10ca"],
    "tg3": ["14e4:1657"],
    "nvme": ["1b36:0010"],
    "virtio-pci": ["1af4:1041"],
    "e1000e": ["8086:10d3"],
    "vfio-pci": [],
}


Kernel = TypeVar("Kernel", bound=FakeKernel)


def hypervisor(root: Path, **options: Any) -> FakeKernel:
    """The machine, booted, with nothing given away; ``options`` go to :class:`FakeKernel`."""
    return hypervisor_with(FakeKernel, root, **options)


def hypervisor_with(kind: type[Kernel], root: Path, **options: Any) -> Kernel:
    """The same with a kernel that knows more."""
    tree = SysfsTree(root)
    tree.add_device("0000:00:00.0", ids="8086:29c0", pci_class=0x060000, group=0)
    tree.add_device("0000:00:01.0", ids="8086:3420", driver="pcieport", bridge=True, group=1)
    tree.add_device(
        PF,
        ids="8086:10c9",
        pci_class=0x020000,
        driver="igb",
        group=14,
        parent="0000:00:01.0",
        totalvfs=7,
        interfaces={"enp1s0": "52:54:00:00:01:00"},
    )
    tree.add_vfs(PF, 2, driver="igbvf", first_group=15)
    for number, (address, driver) in enumerate(zip(SLOT, ("tg3", "tg3", None, None))):
        interfaces = {f"enp2s0f{number}": f"52:54:00:00:02:0{number}"} if driver else None
        ids = "14e4:1657" if driver else "1234:11e8"
        tree.add_device(address, ids=ids, pci_class=0x020000, driver=driver, group=20, interfaces=interfaces)
    tree.add_device(NVME, ids="1b36:0010", pci_class=0x010802, driver="nvme", group=21, nvme="nvme0")
    tree.add_device(
        MANAGEMENT,
        ids="1af4:1041",
        pci_class=0x020000,
        driver="virtio-pci",
        group=22,
        virtio=0,
        interfaces={"ens4": "52:54:00:00:04:00"},
    )
    for number, address in enumerate(TWINS):
        interfaces = {f"enp{5 + number}s0": f"52:54:00:00:0{5 + number}:00"}
        tree.add_device(
            address, ids="8086:10d3", pci_class=0x020000, driver="e1000e", group=23 + number, interfaces=interfaces
        )
    tree.write("/proc/self/mountinfo", "25 1 259:0 / / rw shared:1 - ext4 /dev/nvme0n1 rw\n")
    tree.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    tree.path("/proc/1/fd").mkdir(parents=True)
    tree.path("/proc/1/fd/0").symlink_to("/dev/null")
    options.setdefault(
        "addresses", [{"ifname": "ens4", "addr_info": [{"family": "inet", "local": "192.0.2.10", "scope": "global"}]}]
    )
    options.setdefault("default_routes", [{"dst": "default", "gateway": "192.0.2.1", "dev": "ens4"}])
    kernel = kind(tree, DRIVERS, **options)
    kernel.install(InitramfsToolsStandIn, *KERNELS)
    return kernel
