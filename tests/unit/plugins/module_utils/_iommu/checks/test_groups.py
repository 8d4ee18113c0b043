# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.kvm.passthrough.tests.unit.support.iommu import REMAPPED, active_vtd, blocker, codes, report
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


def test_a_group_is_isolated_when_its_endpoints_are_of_one_device(tree: SysfsTree) -> None:
    active_vtd(tree)
    tree.add_device("00:1c.0", bridge=True, driver="pcieport", group=2)
    tree.add_device("02:00.0", group=2).add_device("02:00.1", group=2)
    tree.add_device("03:00.0", group=3).add_device("04:00.0", group=3)
    tree.add_device("00:1d.0", bridge=True, driver="pcieport", group=4)
    tree.add_device("05:00.0", group=5, totalvfs=2)
    tree.add_vfs("05:00.0", 2, first_group=None)
    tree.add_device("06:00.0", group=6)
    groups = {group["number"]: group["isolated"] for group in report(tree, with_groups=True)["groups"]}
    assert groups == {1: True, 2: True, 3: False, 4: True, 5: True, 6: True}


def test_virtual_functions_are_of_the_device_of_their_pf(tree: SysfsTree) -> None:
    active_vtd(tree).add_device("05:00.0", group=5, totalvfs=2)
    for vf in tree.add_vfs("05:00.0", 2):
        tree.link(f"/sys/kernel/iommu_groups/5/devices/{vf}", tree.device_path(vf))
    groups = {group["number"]: group for group in report(tree, with_groups=True)["groups"]}
    assert groups[5]["devices"] == ["0000:05:00.0", "0000:05:10.0", "0000:05:10.2"]
    assert groups[5]["isolated"] is True
    tree.add_device("05:10.7", group=5)
    groups = {group["number"]: group for group in report(tree, with_groups=True)["groups"]}
    assert groups[5]["isolated"] is False


def test_the_default_type_is_that_of_most_groups(tree: SysfsTree) -> None:
    tree.add_vtd().write("/proc/interrupts", REMAPPED)
    assert report(tree)["default_domain_type"] is None
    for number, kind in enumerate(("identity", "DMA-FQ", "DMA-FQ")):
        tree.add_group(number, type=kind)
    result = report(tree)
    assert result["group_types"] == {"DMA-FQ": 2, "identity": 1}
    assert result["default_domain_type"] == "DMA-FQ"


def test_groups_that_are_split_by_a_parameter_are_not_to_be_trusted(tree: SysfsTree) -> None:
    active_vtd(tree).set_cmdline("pcie_acs_override=downstream,multifunction")
    result = report(tree)
    assert codes(result) == ["acs_override"]
    assert "pcie_acs_override=downstream,multifunction" in blocker(result, "acs_override")["message"]
