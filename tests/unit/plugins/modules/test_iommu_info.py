# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.query import documented, run_module, undocumented
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tables import Q35_IVRS, VIRT_IORT
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

RMRR = bytes((1, 0, 32, 0)) + bytes(4) + bytes(range(16)) + bytes((1, 8, 0, 0, 0, 0, 2, 0))
IVHD = Q35_IVRS[48:]


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path).write("/proc/sys/kernel/arch", "x86_64\n").write("/dev/kvm", "").set_cpu()
    tree.write("/sys/firmware/acpi/tables/FACP", b"FACP").add_modules(available=["kernel/drivers/vfio/pci/vfio-pci.ko"])
    return tree.add_device("01:00.0", driver="igb", group=1)


@pytest.mark.parametrize("check", [False, True])
def test_the_answer_is_the_same_in_check_mode_and_changes_nothing(tree: SysfsTree, check: bool) -> None:
    tree.add_vtd()
    before = tree_hash(tree.root)
    result = run_module("iommu_info", tree, check=check)
    assert tree_hash(tree.root) == before
    assert result["changed"] is False
    assert result["state"] == "active"
    assert "groups" not in result


@pytest.mark.parametrize("kind", ["vtd", "amdvi", "vtd_off", "none", "smmu", "zpci"])
def test_every_field_is_documented_and_every_documented_field_is_there(tree: SysfsTree, kind: str) -> None:
    if kind == "vtd":
        tree.add_vtd(structures=RMRR)
    elif kind == "smmu":
        tree.write("/proc/sys/kernel/arch", "aarch64\n").add_smmu()
        tree.write("/sys/firmware/acpi/tables/IORT", VIRT_IORT)
    elif kind == "zpci":
        tree.write("/proc/sys/kernel/arch", "s390x\n").add_zpci("0001:00:00.0", 1)
    elif kind == "vtd_off":
        tree.add_vtd(active=False).set_cmdline("intel_iommu=off")
    elif kind == "amdvi":
        tree.add_amdvi(blocks=IVHD).write("/sys/class/iommu/ivhd0/amd-iommu/features", "29d3:1\n")
    result = run_module("iommu_info", tree, groups=True)
    assert result.pop("changed") is False
    assert undocumented(result, documented("iommu_info")) == []
    assert set(documented("iommu_info")) == set(result)


def test_the_documentation_names_every_code_of_a_blocker() -> None:
    folder = Path(__file__).parents[4] / "plugins/module_utils/_iommu"
    sources = [path.read_text().split("Blocker(\n")[1:] for path in sorted(folder.rglob("*.py"))]
    codes = {text.split('"')[1] for texts in sources for text in texts}
    described = " ".join(documented("iommu_info")["blockers"]["contains"]["code"]["description"])
    assert len(codes) > 30
    assert sorted(code for code in codes if f"V({code})" not in described) == []


def test_a_bad_option(tree: SysfsTree) -> None:
    result = run_module("iommu_info", tree, groups="perhaps")
    assert result["failed"]
    assert "groups" in result["msg"]
