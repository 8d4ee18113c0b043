# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.info import devices_report
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash


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
    tree.write("/usr/share/misc/pci.ids", "8086  Intel Corporation\n\t10ca  82576 Virtual Function\n")
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


def report(tree: SysfsTree, devices: Any = None, **arguments: Any) -> dict[str, Any]:
    """The report, which has to leave the tree as it was."""
    before = tree_hash(tree.root)
    result = devices_report(tree.host(runner=no_network), devices, **arguments)
    assert tree_hash(tree.root) == before
    return result


def codes(device: dict[str, Any]) -> list[tuple[str, str]]:
    return [(obstacle["code"], obstacle["device"]) for obstacle in device["obstacles"]]


def test_everything_about_a_virtual_function(tree: SysfsTree) -> None:
    result = report(tree, [{"name": "nic", "pf": "01:00.0", "vf": 1}])
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
            "vendor_name": "Intel Corporation",
            "device_name": "82576 Virtual Function",
            "pci_class": "020000",
            "class_name": "Ethernet controller",
            "driver": "igbvf",
            "driver_override": None,
            "assignable": True,
            "obstacles": [],
            "iommu_group": {
                "number": 16,
                "type": "DMA",
                "devices": ["0000:01:10.2"],
                "viable": False,
                "bound_to_host": [{"address": "0000:01:10.2", "driver": "igbvf"}],
                "reserved_regions": [{"start": "0xfee00000", "end": "0xfeefffff", "type": "msi"}],
            },
            "numa_node": 0,
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
    assert device["interfaces"] == [{"name": "enp1s0f0", "mac": "52:54:00:00:00:01"}]
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
    assert device["block_devices"] == ["nvme0n1"]
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


def test_a_device_that_vanishes_is_left_out(tree: SysfsTree) -> None:
    tree.vanish("00:05.1")
    assert "0000:00:05.1" not in [device["address"] for device in report(tree)["devices"]]
