# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu import device_tree
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path).add_node("", "linux,dummy-virt")


def test_only_what_matters_is_returned(tree: SysfsTree) -> None:
    tree.add_node("/soc", "simple-bus").add_node("/soc/serial@9000000", "arm,pl011 arm,primecell", status="okay")
    tree.add_node("/soc/iommu@9050000", "chip,smmu arm,smmu-v3", cells_iommu=b"\0\0\0\1", status="ok")
    tree.add_node("/pcie@10000000", "pci-host-ecam-generic", device_type="pci", iommu_map=bytes(16))
    tree.add_node("/pcie@10000000/pcie@0", "pci1234,5678", device_type="pci")
    tree.add_node("/intc@8000000/its@8080000", "arm,gic-v3-its", msi_controller=b"")
    tree.add_node("/memory@40000000", "", device_type="memory")
    found = {node.path: node for node in device_tree.read(tree.host())}
    assert sorted(found) == ["/intc@8000000/its@8080000", "/pcie@10000000", "/soc/iommu@9050000"]
    smmu = found["/soc/iommu@9050000"]
    assert (smmu.compatible, smmu.unit_address, smmu.is_enabled) == (("chip,smmu", "arm,smmu-v3"), 0x9050000, True)
    assert "iommu-map" in found["/pcie@10000000"].properties
    assert found["/pcie@10000000"].device_type == "pci"
    assert device_tree.root_compatible(tree.host()) == ("linux,dummy-virt",)


@pytest.mark.parametrize(
    ("own", "parent", "enabled"),
    [("okay", "okay", True), ("disabled", "okay", False), ("okay", "disabled", False), ("fail-sss", "okay", False)],
)
def test_a_node_is_off_with_those_above_it(tree: SysfsTree, own: str, parent: str, enabled: bool) -> None:
    tree.add_node("/soc", "simple-bus", status=parent)
    tree.add_node("/soc/iommu@1", "arm,mmu-500", cells_iommu=b"\0\0\0\1", status=own)
    assert [node.is_enabled for node in device_tree.read(tree.host())] == [enabled]


def test_the_other_place(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path).write("/proc/device-tree/smmu/compatible", "arm,smmu-v3\0")
    tree.write("/proc/device-tree/smmu/#iommu-cells", b"\0\0\0\1")
    assert [(node.path, node.unit_address) for node in device_tree.read(tree.host())] == [("/smmu", 0)]


def test_no_device_tree(tmp_path: Path) -> None:
    assert device_tree.read(SysfsTree(tmp_path).host()) == []
    assert device_tree.root_compatible(SysfsTree(tmp_path).host()) == ()


@given(st.binary(max_size=40), st.binary(max_size=20), st.sampled_from(["x", "x@", "x@12", "x@zz", "x@1,2", "@@"]))
def test_no_property_is_too_strange(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, status: bytes, name: str
) -> None:
    tree = SysfsTree(tmp_path_factory.mktemp("tree"))
    base = f"/sys/firmware/devicetree/base/{name}"
    tree.write(f"{base}/compatible", text).write(f"{base}/status", status).write(f"{base}/#iommu-cells", b"")
    (node,) = device_tree.read(tree.host())
    assert node.unit_address == (0x12 if name == "x@12" else 0)
    first = next((word for word in status.split(b"\0") if word), b"")
    assert node.is_enabled is (first in (b"ok", b"okay"))
