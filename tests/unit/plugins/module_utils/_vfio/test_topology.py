# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus, PciDevice
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.topology import Topology
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

PORT, NIC, NVME, GPU = "00:1c.0", "01:00.0", "00:07.0", "00:02.0"


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path)
    tree.add_device(PORT, bridge=True)
    tree.add_device(NIC, parent=PORT, virtio=0, interfaces={"ens3": "52:54:00:00:00:01"})
    tree.add_device(NVME, nvme="nvme0")
    return tree.add_device(GPU, pci_class=0x030000)


def device(tree: SysfsTree, address: str) -> PciDevice:
    return Bus(tree.host()).device(PciAddress.parse(address))


def test_interfaces_belong_to_every_function_before_them_and_are_the_nearests_own(tree: SysfsTree) -> None:
    topology = Topology(tree.host())
    assert topology.interfaces(device(tree, NIC)) == topology.own_interfaces(device(tree, NIC)) == ["ens3"]
    assert topology.interfaces(device(tree, PORT)) == ["ens3"]
    assert topology.own_interfaces(device(tree, PORT)) == []
    assert topology.interfaces(device(tree, NVME)) == []


def test_disks(tree: SysfsTree) -> None:
    tree.add_block_device("sda", f"{tree.device_path(NIC)}/ata1/host0", number="8:0", in_block=True)
    topology = Topology(tree.host())
    assert topology.block_devices(device(tree, PORT)) == ["sda"]
    assert topology.own_block_devices(device(tree, PORT)) == []
    assert topology.own_block_devices(device(tree, NIC)) == ["sda"]
    assert topology.own_block_devices(device(tree, NVME)) == ["nvme0n1"]


def test_a_disk_over_several_controllers_belongs_to_all_of_them(tree: SysfsTree) -> None:
    tree.add_device("00:08.0", nvme="nvme1")
    head = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    tree.add_block_device("nvme9n1", head, number="259:9")
    tree.link("/sys/class/nvme-subsystem/nvme-subsys0", head)
    for address, controller in ((NVME, "nvme0"), ("00:08.0", "nvme1")):
        tree.link(f"{head}/{controller}", f"{tree.device_path(address)}/nvme/{controller}")
    topology = Topology(tree.host())
    for address, name in ((NVME, "nvme0n1"), ("00:08.0", "nvme1n1")):
        assert topology.block_devices(device(tree, address)) == [name, "nvme9n1"]
        assert topology.own_block_devices(device(tree, address)) == [name, "nvme9n1"]
    assert topology.block_devices(device(tree, NIC)) == []


def test_display_nodes_without_connectors(tree: SysfsTree) -> None:
    base = f"{tree.device_path(GPU)}/drm"
    for name in ("card0", "card0/card0-HDMI-A-1", "renderD128"):
        tree.path(f"{base}/{name}").mkdir(parents=True)
        tree.link(f"/sys/class/drm/{name.rpartition('/')[2]}", f"{base}/{name}")
    tree.write("/sys/class/drm/version", "drm 1.1.0\n")
    topology = Topology(tree.host())
    assert topology.drm_nodes(device(tree, GPU)) == ["card0", "renderD128"]
    assert topology.drm_nodes(device(tree, NIC)) == []
