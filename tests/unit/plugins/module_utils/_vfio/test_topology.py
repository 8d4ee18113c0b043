# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.topology import CLASS_NET, Topology
from ansible_collections.kvm.passthrough.tests.unit.support.counting import CountingHost
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    """A port with a network card of two functions and an NVMe disk behind it, and a virtio device beside it."""
    tree = SysfsTree(tmp_path)
    tree.add_device("00:1c.0", bridge=True)
    tree.add_device("01:00.0", parent="00:1c.0", interfaces={"eth0": "02:00:00:00:00:00"})
    tree.add_device("01:00.1", parent="00:1c.0", interfaces={"eth1": "02:00:00:00:00:01", "eth10": "02:00:00:00:00:10"})
    tree.add_device("01:00.2", parent="00:1c.0", nvme="nvme0")
    tree.add_device("00:03.0", virtio=0, interfaces={"ens3": "02:00:00:00:00:03"})
    tree.path(f"{CLASS_NET}/lo").mkdir()
    tree.write(f"{CLASS_NET}/bonding_masters", "\n")
    return tree


def found(tree: SysfsTree, address: str) -> tuple[list[str], list[str]]:
    topology = Topology(tree.host())
    device = Bus(tree.host()).device(PciAddress.parse(address))
    return topology.interfaces(device), topology.block_devices(device)


def test_what_hangs_below_a_function(tree: SysfsTree) -> None:
    assert found(tree, "01:00.0") == (["eth0"], [])
    assert found(tree, "01:00.1") == (["eth1", "eth10"], [])
    assert found(tree, "01:00.2") == ([], ["nvme0n1"])
    assert found(tree, "00:03.0") == (["ens3"], [])


def test_a_bridge_has_what_is_behind_it(tree: SysfsTree) -> None:
    assert found(tree, "00:1c.0") == (["eth0", "eth1", "eth10"], ["nvme0n1"])


def test_what_no_other_function_stands_before_is_a_functions_own(tree: SysfsTree) -> None:
    tree.add_block_device("sda", f"{tree.device_path('01:00.0')}/ata1/host0", number="8:0", in_block=True)
    topology = Topology(tree.host())
    bridge, card, disk = (Bus(tree.host()).device(PciAddress.parse(text)) for text in ("00:1c.0", "01:00.0", "01:00.2"))
    assert topology.own_interfaces(bridge) == topology.own_block_devices(bridge) == []
    assert (topology.own_interfaces(card), topology.own_block_devices(card)) == (["eth0"], ["sda"])
    assert (topology.own_interfaces(disk), topology.own_block_devices(disk)) == ([], ["nvme0n1"])


def test_display_nodes_without_connectors(tree: SysfsTree) -> None:
    base = f"{tree.device_path('00:03.0')}/drm"
    for name in ("card0", "card0/card0-HDMI-A-1", "renderD128"):
        tree.path(f"{base}/{name}").mkdir(parents=True)
        tree.link(f"/sys/class/drm/{name.rpartition('/')[2]}", f"{base}/{name}")
    tree.write("/sys/class/drm/version", "drm 1.1.0\n")
    topology = Topology(tree.host())
    display, bridge = (Bus(tree.host()).device(PciAddress.parse(text)) for text in ("00:03.0", "00:1c.0"))
    assert topology.drm_nodes(display) == ["card0", "renderD128"]
    assert topology.drm_nodes(bridge) == []


def test_a_disk_over_several_nvme_controllers_is_below_each(tree: SysfsTree) -> None:
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    tree.add_device("02:00.0").write(f"{tree.device_path('02:00.0')}/nvme/nvme1/model", "Test NVMe\n")
    tree.add_block_device("nvme1n1", subsystem, number="259:9")
    for number, address in enumerate(("01:00.2", "02:00.0")):
        tree.link(f"{subsystem}/nvme{number}", f"{tree.device_path(address)}/nvme/nvme{number}")
    tree.link("/sys/class/nvme-subsystem/nvme-subsys0", subsystem)
    assert found(tree, "01:00.2") == ([], ["nvme0n1", "nvme1n1"])
    assert found(tree, "02:00.0") == ([], ["nvme1n1"])
    second = Bus(tree.host()).device(PciAddress.parse("02:00.0"))
    assert Topology(tree.host()).own_block_devices(second) == ["nvme1n1"]
    assert found(tree, "01:00.0") == (["eth0"], [])


def test_each_class_is_walked_once_whatever_the_number_of_functions(tree: SysfsTree) -> None:
    host = CountingHost(tree.root)
    topology = Topology(host)
    for device in Bus(host).devices():
        topology.interfaces(device)
        topology.block_devices(device)
    assert host.asked["/sys/class/net"] == host.asked["/sys/class/block"] == 1
