# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import PciDevice
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards import registry
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.base import Guard, GuardContext, Reason
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.info import devices_report
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import answering
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

PCI_IDS = """8086  Intel Corporation
\t10ca  82576 Virtual Function
\t\t8086 a02c  Gigabit ET Quad Port Server Adapter
"""


def no_network(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
    """A host without addresses and routes."""
    if argv[0] == "ip":
        return Completed(tuple(argv), 0, "[]", "")
    raise FileNotFoundError(argv[0])


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path)
    tree.write("/proc/self/mountinfo", "").write("/proc/swaps", "").write("/proc/iomem", "")
    tree.link("/proc/1/fd/0", "/dev/null")
    tree.write("/usr/share/misc/pci.ids", PCI_IDS)
    tree.add_aliases(
        "pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf",
        "vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci",
        "vfio_pci:v00008086d000010CAsv*sd*bc*sc*i* igbvf_vfio_pci",
    )
    tree.add_device("00:1c.0", ids="8086:3420", bridge=True, driver="pcieport", group=1)
    tree.add_device(
        "01:00.0",
        ids="8086:10c9",
        subsystem="8086:a02c",
        pci_class=0x020000,
        driver="igb",
        group=14,
        parent="00:1c.0",
        totalvfs=7,
        interfaces={"enp1s0f0": "52:54:00:00:00:01"},
    )
    tree.add_vfs("01:00.0", 2, subsystem="8086:a02c", driver="igbvf", first_group=15, numa_node=0)
    for function in range(4):
        tree.add_device(f"00:05.{function}", group=5, driver="pci-testdev" if function == 2 else None)
    return tree.add_device("00:07.0", ids="1b36:0010", pci_class=0x010802, driver="nvme", nvme="nvme0", group=7)


def report(machine: SysfsTree, devices: Any = None, **arguments: Any) -> dict[str, Any]:
    """The report, which has to leave the tree as it was."""
    before = tree_hash(machine.root)
    result = devices_report(machine.host(runner=no_network), devices, **arguments)
    assert tree_hash(machine.root) == before
    return result


def codes(device: dict[str, Any]) -> list[tuple[str, str]]:
    return [(obstacle["code"], obstacle["device"]) for obstacle in device["obstacles"]]


def test_everything_about_a_virtual_function(tree: SysfsTree) -> None:
    tree.set_config("01:10.2", serial="00-1b-21-ff-ff-aa-bb-cc").set_attribute("01:10.2", "power_state", "D0")
    tree.add_slot("3", "0000:01:10")
    result = report(tree, [{"name": "nic", "pf": "01:00.0", "vf": 1}])
    assert result["unreadable"] == result["undescribed"] == []
    assert result["msg"] == "1 PCI device: 1 assignable, 0 not."
    assert result["devices"] == [
        {
            "name": "nic",
            "address": "0000:01:10.2",
            "nodedev_name": "pci_0000_01_10_2",
            "ids": "8086:10ca",
            "vendor_id": "8086",
            "device_id": "10ca",
            "subsystem_vendor_id": "8086",
            "subsystem_device_id": "a02c",
            "revision": "01",
            "vendor_name": "Intel Corporation",
            "device_name": "82576 Virtual Function",
            "subsystem_name": "Gigabit ET Quad Port Server Adapter",
            "pci_class": "020000",
            "class_name": "Ethernet controller",
            "serial": "00-1b-21-ff-ff-aa-bb-cc",
            "zpci": None,
            "driver": "igbvf",
            "driver_override": None,
            "modules": ["igbvf"],
            "variant_drivers": ["igbvf_vfio_pci"],
            "vfio_device": None,
            "assignable": True,
            "obstacles": [],
            "held_by": [],
            "iommu_group": {
                "number": 16,
                "type": "DMA",
                "devices": ["0000:01:10.2"],
                "viable": False,
                "isolated": True,
                "bound_to_host": [{"address": "0000:01:10.2", "driver": "igbvf"}],
                "reserved_regions": [{"start": "0xfee00000", "end": "0xfeefffff", "type": "msi"}],
            },
            "physical_slot": "3",
            "numa_node": 0,
            "link": None,
            "power_state": "D0",
            "is_bridge": False,
            "boot_vga": False,
            "multifunction": True,
            "siblings": ["0000:01:10.0"],
            "pf": "0000:01:00.0",
            "vf": 1,
            "vfs": [],
            "sriov_numvfs": None,
            "sriov_totalvfs": None,
            "reset_methods": ["pm", "bus"],
            "interfaces": [],
            "block_devices": [],
            "drm": [],
            "xml": {"domain": "0x0000", "bus": "0x01", "slot": "0x10", "function": "0x2"},
        }
    ]
    assert result["summary"] == [
        "0000:01:10.2 [8086:10ca] Ethernet controller, 82576 Virtual Function, driver igbvf, group 16, assignable"
    ]


def test_a_physical_function(tree: SysfsTree) -> None:
    device = report(tree, ["01:00.0"])["devices"][0]
    assert device["vfs"] == ["0000:01:10.0", "0000:01:10.2"]
    assert (device["sriov_numvfs"], device["sriov_totalvfs"]) == (2, 7)
    assert device["interfaces"] == [{"name": "enp1s0f0", "mac": "52:54:00:00:00:01", "operstate": "up", "uses": []}]
    assert (device["vendor_name"], device["device_name"]) == ("Intel Corporation", None)
    assert device["assignable"] is False
    assert codes(device) == [("has_vfs", "0000:01:00.0")]
    assert report(tree, ["01:00.0"])["summary"][0].endswith("group 14, not assignable (has_vfs)")


def test_a_bridge_is_not_assignable_but_hinders_nobody_else(tree: SysfsTree) -> None:
    tree.add_device("02:00.0", parent="00:1c.0", group=1)
    bridge, endpoint = report(tree, ["00:1c.0", "02:00.0"])["devices"]
    assert ("bridge", "0000:00:1c.0") in codes(bridge)
    assert endpoint["assignable"] is True
    assert endpoint["iommu_group"]["devices"] == ["0000:00:1c.0", "0000:02:00.0"]


def test_the_disk_of_a_mounted_file_system(tree: SysfsTree) -> None:
    tree.write("/proc/self/mountinfo", "22 1 259:0 / / rw,relatime - ext4 /dev/nvme0n1 rw\n")
    device = report(tree, ["1b36:0010"])["devices"][0]
    assert device["block_devices"] == [
        {"name": "nvme0n1", "size": 1 << 30, "model": "Test NVMe", "uses": ["mounted at /"]}
    ]
    assert codes(device) == [("boot_disk", "0000:00:07.0")]


def test_an_obstacle_of_a_group_mate_counts(tree: SysfsTree) -> None:
    tree.write("/proc/self/mountinfo", "22 1 259:0 / / rw,relatime - ext4 /dev/nvme0n1 rw\n")
    tree.add_device("00:08.0", group=7)
    device = report(tree, ["00:08.0"])["devices"][0]
    assert device["assignable"] is False
    assert codes(device) == [("boot_disk", "0000:00:07.0")]


def test_without_an_iommu_nothing_is_assignable(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path).add_device("00:03.0")
    device = report(tree)["devices"][0]
    assert report(tree)["msg"] == "1 PCI device: 0 assignable, 1 not."
    assert device["iommu_group"] is None
    assert device["assignable"] is False
    assert ("no_iommu", "0000:00:03.0") in codes(device)


def test_what_could_not_be_looked_at_makes_assignable_unknown(tree: SysfsTree) -> None:
    tree.path("/proc/1/fd/0").unlink()
    device = report(tree.bind("01:10.0", "vfio-pci"), ["01:10.0"])["devices"][0]
    assert device["assignable"] is None
    assert [(obstacle["code"], obstacle["certain"]) for obstacle in device["obstacles"]] == [
        ("in_use_by_domain", False)
    ]
    assert report(tree, ["01:10.0"])["summary"][0].endswith("assignable is not known")


def test_every_device_in_bus_order(tree: SysfsTree) -> None:
    addresses = [device["address"] for device in report(tree)["devices"]]
    assert addresses == sorted(addresses)
    assert len(addresses) == 9
    assert report(tree, [])["devices"] == []


def test_devices_stand_in_the_order_of_the_selectors_and_once(tree: SysfsTree) -> None:
    devices = report(tree, ["00:07.0", {"vendor_id": "1234", "count": "all"}, {"name": "two", "address": "00:05.2"}])
    assert [(device["address"], device["name"]) for device in devices["devices"]] == [
        ("0000:00:07.0", None),
        ("0000:00:05.0", None),
        ("0000:00:05.1", None),
        ("0000:00:05.2", "two"),
        ("0000:00:05.3", None),
    ]


def test_count_and_index_are_defaults(tree: SysfsTree) -> None:
    assert [device["address"] for device in report(tree, ["8086:10ca"], count="all")["devices"]] == [
        "0000:01:10.0",
        "0000:01:10.2",
    ]
    assert [device["address"] for device in report(tree, ["8086:10ca"], index=1)["devices"]] == ["0000:01:10.2"]
    for arguments in ({"count": "many"}, {"count": "0"}, {"index": -1}):
        with pytest.raises(PassthroughError) as caught:
            report(tree, ["8086:10ca"], **arguments)
        assert caught.value.code == "option_invalid"


# -- what a device is, where it is, and who has it ------------------------------------------------------------


def test_the_link_and_whether_it_could_be_better(tree: SysfsTree) -> None:
    def link(speed: str, width: str, max_speed: str, max_width: str) -> dict[str, Any]:
        for name, text in (("current", speed), ("max", max_speed)):
            tree.set_attribute("01:00.0", f"{name}_link_speed", text)
        for name, text in (("current", width), ("max", max_width)):
            tree.set_attribute("01:00.0", f"{name}_link_width", text)
        found: dict[str, Any] = report(tree, ["01:00.0"])["devices"][0]["link"]
        return found

    assert link("5.0 GT/s PCIe", "4", "16.0 GT/s PCIe", "4") == {
        "speed": "5.0 GT/s",
        "width": 4,
        "max_speed": "16.0 GT/s",
        "max_width": 4,
        "below_maximum": True,
    }
    assert link("16.0 GT/s PCIe", "2", "16.0 GT/s PCIe", "4")["below_maximum"] is True
    assert link("16.0 GT/s PCIe", "4", "16.0 GT/s PCIe", "4")["below_maximum"] is False
    assert link("Unknown", "4", "16.0 GT/s PCIe", "4")["below_maximum"] is None


def test_a_function_of_ibm_z(tree: SysfsTree) -> None:
    tree.add_device("0001:00:00.0", group=30).set_zpci("0001:00:00.0", uid=1, fid=0x1234, pchid=0x1C0, vfn=2)
    assert report(tree, ["0001:00:00.0"])["devices"][0]["zpci"] == {
        "uid": "0x0001",
        "fid": "0x00001234",
        "pchid": "0x01c0",
        "vfn": 2,
        "uid_is_unique": True,
    }


def test_who_has_a_device(tree: SysfsTree) -> None:
    tree.bind("01:10.2", "vfio-pci").write(f"{tree.device_path('01:10.2')}/vfio-dev/vfio3/dev", "511:3\n")
    tree.write("/proc/4711/comm", "qemu-system-x86\n").write("/proc/4711/cmdline", "qemu\0-name\0guest=web01,x=y\0")
    tree.path("/proc/4711/fd").mkdir()
    tree.path("/proc/4711/fd/30").symlink_to("/dev/vfio/16")
    device = report(tree, ["01:10.2"])["devices"][0]
    assert device["vfio_device"] == "/dev/vfio/devices/vfio3"
    assert device["held_by"] == [{"pid": 4711, "command": "qemu-system-x86", "domain": "web01"}]
    assert codes(device) == [("in_use_by_domain", "0000:01:10.2")]


def test_what_is_behind_a_bridge_is_the_devices_there(tree: SysfsTree) -> None:
    bridge, card = report(tree, ["00:1c.0", "01:00.0"])["devices"]
    assert bridge["interfaces"] == []
    assert [interface["name"] for interface in card["interfaces"]] == ["enp1s0f0"]


# -- how much is looked at ------------------------------------------------------------------------------------


class Watcher(Guard):
    """A guard that never objects, and keeps the addresses of the devices it was asked about."""

    code = "watcher"

    def __init__(self) -> None:
        self.looked_at: list[str] = []

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        self.looked_at.append(str(device.address))
        return iter(())


def test_without_obstacles_nobody_is_asked_for_uses(tree: SysfsTree) -> None:
    def never(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        raise AssertionError(argv)

    tree.path("/proc/self/mountinfo").unlink()
    tree.path("/proc/1/fd/0").unlink()
    tree.bind("01:10.0", "vfio-pci")
    result = devices_report(tree.host(runner=never), None, obstacles=False)
    assert result["msg"] == "9 PCI devices."
    assert result["summary"][-1] == (
        "0000:01:10.2 [8086:10ca] Ethernet controller, 82576 Virtual Function, driver igbvf, group 16"
    )
    for device in result["devices"]:
        assert (device["assignable"], device["obstacles"], device["held_by"]) == (None, None, None)
        assert [each["uses"] for each in device["interfaces"] + device["block_devices"]] in ([], [None])
    assert not [text for text in result["unreadable"] if "serial" not in text]


def test_each_device_of_a_group_is_looked_at_once(tree: SysfsTree, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()
    monkeypatch.setattr(registry, "GUARDS", (watcher, *registry.GUARDS))
    report(tree, [{"vendor_id": "1234", "count": "all"}])
    assert watcher.looked_at == [f"0000:00:05.{function}" for function in range(4)]


def test_what_cannot_be_seen_in_a_container_is_null_and_said(tree: SysfsTree) -> None:
    tree.path("/proc/self/ns").mkdir()
    tree.path("/proc/self/ns/pid").symlink_to("pid:[4026532000]")
    result = report(tree, ["01:00.0", "00:07.0", "01:10.0"])
    card, disk, _vf = result["devices"]
    assert [each["uses"] for each in disk["block_devices"]] == [None]
    assert [each["name"] for each in card["interfaces"]] == ["enp1s0f0"]
    assert [text.partition(":")[0] for text in result["unreadable"]] == [
        "serial",
        "interfaces",
        "uses of block devices",
    ]
    assert result["msg"] == "3 PCI devices: 0 assignable, 1 not, of 2 it is not known."


def test_routes_that_cannot_be_listed(tree: SysfsTree) -> None:
    result = devices_report(tree.host(runner=answering({})), ["01:00.0"])
    assert result["devices"][0]["interfaces"][0]["uses"] is None
    assert any(text.startswith("uses of network interfaces: addresses and routes") for text in result["unreadable"])


def test_a_serial_number_that_only_root_can_read(tree: SysfsTree) -> None:
    for device in report(tree)["devices"]:
        tree.set_config(device["address"], serial="00-1b-21-ff-ff-aa-bb-cc", size=64)
    result = report(tree)
    assert {device["serial"] for device in result["devices"]} == {None}
    assert [text for text in result["unreadable"] if text.startswith("serial: only root can")] == result["unreadable"]
    assert len(result["unreadable"]) == 1


def test_a_kernel_whose_modules_are_gone(tree: SysfsTree) -> None:
    tree.path(f"/lib/modules/{tree.kernel}/modules.alias").unlink()
    result = report(tree, ["01:10.0"])
    assert (result["devices"][0]["modules"], result["devices"][0]["variant_drivers"]) == (None, None)
    assert any(text.startswith("modules, variant_drivers: ") for text in result["unreadable"])


def test_without_root_rights_former_interfaces_are_not_known(tree: SysfsTree) -> None:
    state = tree.path(STATE_PATH)
    state.parent.mkdir(parents=True)
    state.symlink_to("state.json")  # which root cannot read either
    assert any(STATE_PATH in text for text in report(tree, ["01:10.0"])["unreadable"])


# -- the tree -------------------------------------------------------------------------------------------------


def test_the_tree(tree: SysfsTree) -> None:
    result = report(tree, tree=True)
    assert result["tree_lines"] == [
        "pci0000:00",
        *(
            f"  +- 0000:00:05.{number} [1234:11e8] Unclassified device, {driver}, group 5"
            for number, driver in enumerate(("no driver", "no driver", "driver pci-testdev", "no driver"))
        ),
        "  +- 0000:00:07.0 [1b36:0010] Non-Volatile memory controller, driver nvme, group 7",
        "  +- 0000:00:1c.0 [8086:3420] PCI bridge, driver pcieport, group 1",
        "      +- 0000:01:00.0 [8086:10c9] Ethernet controller, driver igb, interface enp1s0f0, group 14",
        "      +- 0000:01:10.0 [8086:10ca] Ethernet controller, 82576 Virtual Function, driver igbvf, group 15",
        "      +- 0000:01:10.2 [8086:10ca] Ethernet controller, 82576 Virtual Function, driver igbvf, group 16",
    ]
    (root,) = result["tree"]
    assert root["bus"] == "pci0000:00"
    bridge = root["children"][-1]
    assert {name: bridge[name] for name in ("address", "iommu_group", "selected")} == {
        "address": "0000:00:1c.0",
        "iommu_group": 1,
        "selected": True,
    }
    assert [child["address"] for child in bridge["children"]] == ["0000:01:00.0", "0000:01:10.0", "0000:01:10.2"]
    assert "tree" not in report(tree)


def test_the_tree_of_some_devices_has_the_way_to_them_and_guards_do_not_look_at_it(
    tree: SysfsTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Watcher()
    monkeypatch.setattr(registry, "GUARDS", (watcher, *registry.GUARDS))
    result = report(tree, ["01:10.0"], tree=True)
    assert result["tree_lines"] == [
        "pci0000:00",
        "  +- (0000:00:1c.0 [8086:3420] PCI bridge, driver pcieport, group 1)",
        "      +- 0000:01:10.0 [8086:10ca] Ethernet controller, 82576 Virtual Function, driver igbvf, group 15",
    ]
    assert result["tree"][0]["children"][0]["selected"] is False
    assert watcher.looked_at == ["0000:01:10.0"]


# -- what goes wrong ------------------------------------------------------------------------------------------


def test_a_device_that_vanishes_is_named(tree: SysfsTree) -> None:
    tree.vanish("01:10.0")
    result = report(tree, tree=True)
    assert "0000:01:10.0" not in [device["address"] for device in result["devices"]]
    (vanished,) = result["undescribed"]
    assert (vanished["address"], vanished["code"]) == ("0000:01:10.0", "device_vanished")
    assert "0000:01:10.0" in vanished["message"]
    assert result["msg"].endswith("; 1 more could not be described.")
    assert "      +- 0000:01:10.0" in result["tree_lines"]


def test_a_device_that_hangs_does_not_keep_others_from_being_described(
    tree: SysfsTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its driver hangs, whoever reads driver_override waits for ever; once is enough to know."""
    monkeypatch.setattr("ansible_collections.kvm.passthrough.plugins.module_utils._pci.device.LOCK_TIMEOUT", 0.3)
    override = tree.path(f"{tree.device_path('01:00.0')}/driver_override")
    override.unlink()
    os.mkfifo(override)  # opening it blocks
    result = devices_report(tree.host(runner=no_network), None, obstacles=True)
    assert [(each["address"], each["code"]) for each in result["undescribed"]] == [("0000:01:00.0", "device_hangs")]
    assert "reboot the host" in result["undescribed"][0]["message"]
    assert len(result["devices"]) == 8


def test_a_device_that_vanishes_does_not_hide_its_group(tree: SysfsTree) -> None:
    tree.vanish("00:05.1")
    result = report(tree)
    assert [each["address"] for each in result["undescribed"]] == ["0000:00:05.1"]
    assert {"0000:00:05.0", "0000:00:05.2", "0000:00:05.3"} <= {device["address"] for device in result["devices"]}


def test_a_device_with_a_broken_attribute_does_not_hide_the_others(tree: SysfsTree) -> None:
    tree.set_attribute("01:10.0", "vendor", "garbage")
    result = report(tree)
    assert [(each["address"], each["code"]) for each in result["undescribed"]] == [
        ("0000:01:10.0", "attribute_invalid")
    ]
    assert len(result["devices"]) == 8


def test_every_attribute_may_be_missing(tree: SysfsTree) -> None:
    """Devices go away while they are read: whatever is missing, it is an answer and no error."""
    base = tree.path(tree.device_path("01:00.0"))
    for path in sorted(base.iterdir()):
        aside = tree.root / "aside"
        path.rename(aside)
        result = report(tree, tree=True)
        assert len(result["devices"]) + len(result["undescribed"]) == 9
        aside.rename(path)


def test_no_pci_at_all(tmp_path: Path) -> None:
    result = report(SysfsTree(tmp_path), tree=True)
    assert result == {
        "msg": "This host has no PCI device.",
        "devices": [],
        "summary": [],
        "undescribed": [],
        "unreadable": [],
        "tree": [],
        "tree_lines": [],
    }


def test_an_empty_list_of_selectors(tree: SysfsTree) -> None:
    assert report(tree, [])["msg"] == "No PCI device was asked for."


def test_a_container_without_sys(tmp_path: Path) -> None:
    result = devices_report(Host(str(tmp_path)), None, tree=True)
    assert result["devices"] == result["tree"] == []
    assert result["msg"].startswith("No PCI device can be seen: there is no /sys/bus/pci/devices")
