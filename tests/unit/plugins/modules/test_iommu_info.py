# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT
from ansible_collections.kvm.passthrough.tests.unit.support.query import (
    documented,
    run_module,
    undocumented,
    unreturned,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tables import Q35_DMAR, Q35_IVRS, VIRT_IORT
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

RMRR = bytes((1, 0, 32, 0)) + bytes(4) + bytes(range(16)) + bytes((1, 8, 0, 0, 0, 0, 2, 0))
DRHD = Q35_DMAR[48:]
IVHD = Q35_IVRS[48:]


def bare(root: Path) -> SysfsTree:
    """A host without an IOMMU."""
    tree = SysfsTree(root).write("/proc/sys/kernel/arch", "x86_64\n").write("/dev/kvm", "").set_cpu()
    tree.write("/sys/firmware/acpi/tables/FACP", b"FACP").add_modules(available=["kernel/drivers/vfio/pci/vfio-pci.ko"])
    return tree.add_device("01:00.0", driver="igb", group=1)


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return bare(tmp_path)


@pytest.mark.parametrize("check", [False, True])
def test_the_answer_is_the_same_in_check_mode_and_changes_nothing(tree: SysfsTree, check: bool) -> None:
    tree.add_vtd()
    before = tree_hash(tree.root)
    result = run_module("iommu_info", tree, check=check)
    assert tree_hash(tree.root) == before
    assert result["changed"] is False
    assert result["state"] == "active"
    assert "groups" not in result


KINDS = ("vtd", "amdvi", "vtd_off", "none", "smmu", "smmu_acpi", "zpci")
DAEMON = "Id=libvirtd.service\nLoadState=loaded\nCapabilityBoundingSet=cap_sys_resource\nLimitMEMLOCK=67108864\n"


def report_of(tree: SysfsTree, kind: str) -> dict[str, Any]:
    """The result on a host of some kind, on which libvirt is installed."""
    if kind == "vtd":
        tree.add_vtd(structures=RMRR + DRHD).write("/sys/class/iommu/dmar0/intel-iommu/address", "fed90000\n")
        tree.write("/etc/libvirt/qemu.conf", 'user = "qemu"\n')
    elif kind == "smmu":
        tree.write("/proc/sys/kernel/arch", "aarch64\n").add_node("/smmu@9050000", "arm,smmu-v3", cells_iommu=b"\1")
        tree.add_smmu().path("/sys/firmware/acpi/tables/FACP").unlink()
    elif kind == "smmu_acpi":
        tree.write("/proc/sys/kernel/arch", "aarch64\n").add_smmu().write("/sys/firmware/acpi/tables/IORT", VIRT_IORT)
    elif kind == "zpci":
        tree.write("/proc/sys/kernel/arch", "s390x\n").add_zpci("0001:00:00.0", 1)
    elif kind == "vtd_off":
        tree.add_vtd(active=False).set_cmdline("intel_iommu=off")
    elif kind == "amdvi":
        tree.add_amdvi(blocks=IVHD).write("/sys/class/iommu/ivhd0/amd-iommu/features", "29d3:1\n")
    tree.path("/run/systemd/system").mkdir(parents=True)
    result = run_module("iommu_info", tree, groups=True, answers={"systemctl": DAEMON})
    assert result.pop("changed") is False
    return result


def test_every_field_is_documented_and_every_documented_field_is_there_somewhere(tmp_path: Path) -> None:
    results = {kind: report_of(bare(tmp_path / kind), kind) for kind in KINDS}
    documentation = documented("iommu_info")
    assert {kind: undocumented(result, documentation) for kind, result in results.items()} == {
        kind: [] for kind in KINDS
    }
    assert all(set(documentation) == set(result) for result in results.values())
    assert unreturned(documentation, results.values()) == []


def test_the_documentation_names_every_code_of_a_blocker() -> None:
    folder = ROOT / "plugins/module_utils/_iommu"
    sources = [path.read_text() for path in folder.rglob("*.py")]
    codes = {code for text in sources for code in re.findall(r'\bBlocker\(\s*"(\w+)"', text)}
    described = " ".join(documented("iommu_info")["blockers"]["contains"]["code"]["description"])
    assert len(codes) > 30
    assert sorted(code for code in codes if f"V({code})" not in described) == []


def test_a_bad_option(tree: SysfsTree) -> None:
    result = run_module("iommu_info", tree, groups="perhaps")
    assert result["failed"]
    assert "groups" in result["msg"]
