# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus, PciDevice, ReservedRegion
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.link import Link
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.zpci import Zpci
from ansible_collections.kvm.passthrough.tests.unit.support.counting import CountingHost
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


def device(tree: SysfsTree, address: str) -> PciDevice:
    return Bus(tree.host()).device(PciAddress.parse(address))


def test_a_physical_function_and_its_virtual_functions(tree: SysfsTree) -> None:
    tree.add_device("00:1c.0", bridge=True, driver="pcieport", group=1)
    tree.add_device(
        "01:00.0",
        ids="8086:10c9",
        subsystem="8086:a02c",
        pci_class=0x020000,
        driver="igb",
        group=14,
        parent="00:1c.0",
        totalvfs=7,
        numa_node=1,
        reset_methods="flr bus",
        interfaces={"enp1s0f0": "52:54:00:AA:BB:CC"},
    )
    vfs = tree.add_vfs("01:00.0", 2, driver="igbvf", first_group=15)
    assert [str(address) for address in vfs] == ["0000:01:10.0", "0000:01:10.2"]
    pf = device(tree, "01:00.0")
    assert (pf.vendor_id, pf.device_id) == (0x8086, 0x10C9)
    assert (pf.subsystem_vendor_id, pf.subsystem_device_id) == (0x8086, 0xA02C)
    assert pf.pci_class == 0x020000
    assert (pf.driver, pf.driver_override) == ("igb", None)
    assert (pf.iommu_group, pf.group_members) == (14, [pf.address])
    assert (pf.numa_node, pf.reset_methods) == (1, ["flr", "bus"])
    assert (pf.pf, pf.vf_index, pf.vfs) == (None, None, vfs)
    assert (pf.sriov_numvfs, pf.sriov_totalvfs) == (2, 7)
    assert pf.interfaces == ["enp1s0f0"]
    assert pf.mac_addresses() == {"enp1s0f0": "52:54:00:aa:bb:cc"}
    assert pf.modalias == "pci:v00008086d000010C9sv00008086sd0000A02Cbc02sc00i00"
    assert not pf.is_bridge
    vf = device(tree, "01:10.2")
    assert (vf.pf, vf.vf_index, vf.vfs) == (pf.address, 1, [])
    assert (vf.iommu_group, vf.sriov_totalvfs, vf.sriov_numvfs) == (16, None, None)
    assert vf.ids == "8086:10ca"
    assert vf.numa_node is None
    assert device(tree, "00:1c.0").is_bridge


def test_the_functions_of_a_slot(tree: SysfsTree) -> None:
    for function in (0, 1, 3):
        tree.add_device(f"00:05.{function}", group=5)
    tree.add_device("00:06.0", group=6)
    assert [str(address) for address in device(tree, "00:05.1").siblings] == [
        "0000:00:05.0",
        "0000:00:05.1",
        "0000:00:05.3",
    ]
    assert device(tree, "00:05.3").group_members == device(tree, "00:05.3").siblings
    assert device(tree, "00:06.0").siblings == [PciAddress.parse("00:06.0")]


def test_interfaces_of_virtio_devices(tree: SysfsTree) -> None:
    tree.add_device("00:03.0", driver="virtio-pci", virtio=2, interfaces={"ens3": "02:00:00:00:00:01"})
    assert device(tree, "00:03.0").interfaces == ["ens3"]
    assert device(tree, "00:03.0").mac_addresses() == {"ens3": "02:00:00:00:00:01"}


def test_a_device_without_driver_group_and_most_attributes(tree: SysfsTree) -> None:
    tree.add_device("00:03.0", override="vfio-pci", reset_methods=None)
    found = device(tree, "00:03.0")
    assert (found.driver, found.driver_override) == (None, "vfio-pci")
    assert (found.iommu_group, found.group_members) == (None, [])
    assert found.reset_methods == []
    assert found.interfaces == []
    assert not found.boot_vga


def test_binding_and_unbinding_is_seen_by_a_new_bus(tree: SysfsTree) -> None:
    tree.add_device("00:03.0", driver="nvme")
    assert device(tree, "00:03.0").driver == "nvme"
    assert device(tree.bind("00:03.0", "vfio-pci"), "00:03.0").driver == "vfio-pci"
    assert device(tree.bind("00:03.0", None), "00:03.0").driver is None


def test_the_bus(tree: SysfsTree) -> None:
    for address in ("10000:e1:00.0", "00:1f.3", "00:02.0", "0001:00:00.0"):
        tree.add_device(address)
    bus = Bus(tree.host())
    assert [str(address) for address in bus.addresses] == [
        "0000:00:02.0",
        "0000:00:1f.3",
        "0001:00:00.0",
        "10000:e1:00.0",
    ]
    assert PciAddress.parse("00:02.0") in bus
    assert PciAddress.parse("00:03.0") not in bus
    assert bus.device(PciAddress.parse("00:02.0")) is bus.devices()[0]
    with pytest.raises(PassthroughError) as caught:
        bus.device(PciAddress.parse("00:03.0"))
    assert caught.value.code == "device_not_found"
    assert bus.groups() == []


def test_groups(tree: SysfsTree) -> None:
    tree.add_group(12, type="identity", reserved=["0x00000000fee00000 0x00000000feefffff msi", "0x0 0xfff direct"])
    tree.add_device("00:02.0", group=12).add_device("00:01.0", group=12).add_device("00:03.0", group=3)
    tree.link("/sys/kernel/iommu_groups/12/devices/a-platform-device", "/sys/devices")
    bus = Bus(tree.host())
    assert bus.groups() == [3, 12]
    assert [str(address) for address in bus.group_members(12)] == ["0000:00:01.0", "0000:00:02.0"]
    assert bus.group_type(12) == "identity"
    assert bus.reserved_regions(12) == [
        ReservedRegion(0xFEE00000, 0xFEEFFFFF, "msi"),
        ReservedRegion(0, 0xFFF, "direct"),
    ]
    assert bus.group_type(99) is None
    assert bus.reserved_regions(99) == []


def test_one_line_for_people(tree: SysfsTree) -> None:
    tree.write("/usr/share/misc/pci.ids", "8086  Intel Corporation\n\t10c9  82576\n")
    tree.add_device(
        "01:00.0", ids="8086:10c9", pci_class=0x020000, driver="igb", interfaces={"eth0": "02:00:00:00:00:01"}
    )
    tree.add_device("02:00.0", ids="dead:beef", pci_class=0x770000)
    assert (
        device(tree, "01:00.0").line
        == "0000:01:00.0 [8086:10c9] Ethernet controller, 82576, driver igb, interface eth0"
    )
    assert device(tree, "02:00.0").line == "0000:02:00.0 [dead:beef] Class 7700, no driver"
    assert device(tree, "01:00.0").vendor_name == "Intel Corporation"


@pytest.mark.parametrize(
    ("content", "code"), [(None, "device_vanished"), ("", "attribute_invalid"), ("x", "attribute_invalid")]
)
def test_an_identity_that_cannot_be_read(tree: SysfsTree, content: str | None, code: str) -> None:
    tree.add_device("00:03.0")
    if content is None:
        tree.vanish("00:03.0")
    else:
        tree.set_attribute("00:03.0", "vendor", content)
    found = Bus(tree.host()).devices()[0]
    with pytest.raises(PassthroughError) as caught:
        found.vendor_id  # noqa: B018
    assert caught.value.code == code
    assert "0000:00:03.0" in str(caught.value)
    assert found.line == "0000:00:03.0"


@pytest.mark.parametrize(
    ("config", "serial", "readable"),
    [
        ({"serial": "00-1b-21-ff-ff-aa-bb-cc"}, "00-1b-21-ff-ff-aa-bb-cc", True),
        ({"serial": "00-1b-21-ff-ff-aa-bb-cc", "before": 3}, "00-1b-21-ff-ff-aa-bb-cc", True),
        ({}, None, True),
        ({"size": 256}, None, True),
        ({"size": 64}, None, False),
        ({"size": 0}, None, False),
        (None, None, False),
    ],
)
def test_the_serial_number(tree: SysfsTree, config: Any, serial: str | None, readable: bool) -> None:
    tree.add_device("01:00.0")
    if config is not None:
        tree.set_config("01:00.0", **config)
    found = device(tree, "01:00.0")
    assert (found.serial, found.serial_readable) == (serial, readable)


def test_physical_slots(tree: SysfsTree) -> None:
    for address in ("01:00.0", "01:00.1", "10000:e1:00.0", "02:00.0"):
        tree.add_device(address)
    tree.add_slot("7", "0000:01:00").add_slot("VMD 1", "10000:e1:00").add_slot("2", "0000:03:00")
    tree.add_slot("placeholder", "0000:02").add_slot("garbage", "").add_slot("8", "0000:01:00")
    tree.path("/sys/bus/pci/slots/old").mkdir()
    bus = Bus(tree.host())
    slots = {str(one.address): one.physical_slot for one in bus.devices()}
    assert slots == {"0000:01:00.0": "7", "0000:01:00.1": "7", "0000:02:00.0": None, "10000:e1:00.0": "VMD 1"}


def test_functions_of_ibm_z(tree: SysfsTree) -> None:
    tree.add_device("00a1:00:00.0").set_zpci("00a1:00:00.0", fid=0x8, uid=0xA1, pchid=0x1C0)
    tree.add_device("00a1:00:00.1").set_zpci("00a1:00:00.1", fid=0x9, uid=0xB2, vfn=1, unique=None)
    tree.add_device("00a1:00:01.0")  # the address of the slot of function 1 looks like this one
    first, second = device(tree, "00a1:00:00.0"), device(tree, "00a1:00:00.1")
    assert first.zpci == Zpci(uid=0xA1, fid=0x8, pchid=0x1C0, vfn=0, uid_is_unique=True)
    assert second.zpci == Zpci(uid=0xB2, fid=0x9, pchid=0, vfn=1, uid_is_unique=None)
    assert (first.physical_slot, second.physical_slot) == ("00000008", "00000009")
    tree.set_zpci("00a1:00:01.0", fid=0xA, uid=0xC3, slot=False)
    assert device(tree, "00a1:00:01.0").physical_slot is None
    tree.set_attribute("00a1:00:00.0", "function_id", "")
    assert device(tree, "00a1:00:00.0").zpci is None


def test_the_link(tree: SysfsTree) -> None:
    tree.add_device("01:00.0").add_device("00:02.0").add_device("01:10.0")
    for name, text in {
        "current_link_speed": "2.5 GT/s PCIe",
        "current_link_width": "4",
        "max_link_speed": "8.0 GT/s PCIe",
        "max_link_width": "16",
    }.items():
        tree.set_attribute("01:00.0", name, text)
    tree.set_attribute("01:10.0", "current_link_speed", "Unknown").set_attribute("01:10.0", "current_link_width", "0")
    assert device(tree, "01:00.0").link == Link("2.5 GT/s", 4, "8.0 GT/s", 16)
    assert device(tree, "00:02.0").link is None
    assert device(tree, "01:10.0").link is None
    assert device(tree, "01:00.0").revision == 1


def test_a_scan_asks_once_and_for_nothing_more(tree: SysfsTree) -> None:
    for slot in range(8):
        tree.add_device(f"00:{slot:02x}.0", driver="igb", group=slot // 2)
    host = CountingHost(tree.root)
    bus = Bus(host)
    for _round in range(2):
        for one in bus.devices():
            assert one.ids == "1234:11e8"
            assert (one.pci_class, one.subsystem_device_id) == (0x00FF00, 0x1100)
            assert (one.driver, one.numa_node, one.revision) == ("igb", None, 1)
            assert len(one.group_members) == 2
            assert one.siblings == [one.address]
            assert one.address in bus
    wanted = ("modalias", "driver", "numa_node", "revision", "iommu_group")
    assert host.below("/sys/bus/pci/devices") == {f"{one.name}/{name}": 1 for one in bus.devices() for name in wanted}
    assert host.below("/sys/kernel/iommu_groups") == {f"{group}/devices": 1 for group in range(4)}
    assert host.asked["/sys/bus/pci/devices"] == 1


def test_the_name_of_the_card(tree: SysfsTree) -> None:
    tree.write("/usr/share/misc/pci.ids", "8086  Intel\n\t10c9  82576\n\t\t8086 a02c  Quad Port Adapter\n")
    for slot, subsystem in enumerate(("8086:a02c", "8086:10c9", "8086:0001")):
        tree.add_device(f"00:{slot:02x}.0", ids="8086:10c9", subsystem=subsystem)
    assert [one.subsystem_name for one in Bus(tree.host()).devices()] == ["Quad Port Adapter", "82576", None]
