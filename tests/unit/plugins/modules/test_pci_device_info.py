# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.query import documented, run_module, undocumented
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
    result = run_module("pci_device_info", tree)
    assert result.pop("changed") is False
    assert len(result["devices"]) == 6
    assert undocumented(result, documented("pci_device_info")) == []
    assert set(documented("pci_device_info")) == set(result)
    assert set(documented("pci_device_info")["devices"]["contains"]) == set(result["devices"][0])


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
