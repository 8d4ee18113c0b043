# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.query import (
    documented,
    run_module,
    undocumented,
    unreturned,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path)
    tree.write("/proc/self/mountinfo", "").write("/proc/swaps", "").write("/proc/iomem", "")
    tree.link("/proc/1/fd/0", "/dev/null")
    tree.add_device(
        "01:00.0",
        ids="8086:10c9",
        pci_class=0x020000,
        driver="igb",
        group=14,
        totalvfs=7,
        interfaces={"enp1s0f0": "52:54:00:00:00:01"},
    )
    tree.add_vfs("01:00.0", 4, driver="igbvf", first_group=15)
    return tree.add_device("00:07.0", ids="1b36:0010", pci_class=0x010802, driver="nvme", nvme="nvme0", group=7)


@pytest.mark.parametrize("check", [False, True])
def test_the_ad_hoc_spelling(tree: SysfsTree, check: bool) -> None:
    before = tree_hash(tree.root)
    result = run_module("pci_device_info", tree, check=check, devices="8086:10ca", count="all")
    assert tree_hash(tree.root) == before
    assert result["changed"] is False
    assert [device["address"] for device in result["devices"]] == [f"0000:01:10.{n}" for n in (0, 2, 4, 6)]
    assert len(result["summary"]) == 4


def test_several_selectors_in_one_string(tree: SysfsTree) -> None:
    result = run_module("pci_device_info", tree, devices="00:07.0,enp1s0f0,8086:10ca", index="2")
    assert result["msg"].startswith("2 problems")
    result = run_module("pci_device_info", tree, devices="00:07.0,8086:10ca", count="1")
    assert result["code"] == "count_mismatch"


def test_every_field_is_documented_and_every_documented_field_is_there(tree: SysfsTree) -> None:
    tree.set_zpci("01:10.0", uid=1, fid=2)
    for name, text in {"current_link_speed": "5.0 GT/s PCIe", "current_link_width": "4"}.items():
        tree.set_attribute("01:00.0", name, text)
    tree.add_device("00:08.0", driver="vfio-pci", group=8)
    tree.write("/proc/4711/comm", "qemu\n").path("/proc/4711/fd").mkdir()
    tree.path("/proc/4711/fd/3").symlink_to("/dev/vfio/8")
    tree.add_device("00:09.0", group=9).vanish("00:09.0")
    result = run_module("pci_device_info", tree, tree=True)
    assert result.pop("changed") is False
    assert len(result["devices"]) == 7
    assert [device["address"] for device in result["undescribed"]] == ["0000:00:09.0"]
    assert undocumented(result, documented("pci_device_info")) == []
    assert set(documented("pci_device_info")) == set(result)
    assert unreturned(documented("pci_device_info"), [result]) == []


@pytest.mark.parametrize("check", [False, True])
def test_the_tree_of_a_quick_look(tree: SysfsTree, check: bool) -> None:
    before = tree_hash(tree.root)
    result = run_module("pci_device_info", tree, check=check, obstacles="false", tree="true", devices="01:10.0,00:07.0")
    assert tree_hash(tree.root) == before
    assert result["msg"] == "2 PCI devices."
    assert result["tree_lines"] == [
        "pci0000:00",
        "  +- 0000:00:07.0 [1b36:0010] Non-Volatile memory controller, driver nvme, group 7",
        "  +- 0000:01:10.0 [8086:10ca] Ethernet controller, driver igbvf, group 15",
    ]
    assert [device["assignable"] for device in result["devices"]] == [None, None]


def test_a_host_without_pci(tmp_path: Path) -> None:
    result = run_module("pci_device_info", SysfsTree(tmp_path), tree=True)
    assert (result["devices"], result["tree"], result["msg"]) == ([], [], "This host has no PCI device.")
    assert run_module("pci_device_info", SysfsTree(tmp_path), devices="8086:10ca")["code"] == "no_match"


@pytest.mark.parametrize(
    ("options", "code", "fragment"),
    [
        ({"devices": "01:20.0"}, "address_out_of_range", "slot 0x20"),
        ({"devices": "0000:01:10.9"}, "address_out_of_range", "function 0x9"),
        ({"devices": "8086:10ca"}, "too_many_matches", "count: all"),
        ({"devices": [{"vendor_id": 8086}]}, "selector_invalid", "quotes"),
        ({"devices": [{"interface": "enp1s0f0", "colour": "red"}]}, "selector_invalid", "'colour'"),
        ({"devices": "8086:10ca", "count": "some"}, "option_invalid", "count: 'some'"),
        ({"devices": "enp1s0f0", "count": 1, "index": 0}, None, "mutually exclusive"),
        ({"count": "all"}, None, "devices"),
    ],
)
def test_bad_input_is_one_clear_error(
    tree: SysfsTree, options: dict[str, Any], code: str | None, fragment: str
) -> None:
    result = run_module("pci_device_info", tree, **options)
    assert result["failed"]
    assert result.get("code") == code
    assert fragment in result["msg"]
    assert "Traceback" not in str(result)
