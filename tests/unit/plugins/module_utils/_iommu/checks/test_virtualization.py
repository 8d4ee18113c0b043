# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.iommu import active_vtd, blocker, report
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.mark.parametrize(
    ("flags", "code", "severity"), [("fpu", "no_virtualization", "error"), ("fpu vmx", "no_kvm", "warning")]
)
def test_kvm(tree: SysfsTree, flags: str, code: str, severity: str) -> None:
    active_vtd(tree).set_cpu(flags=flags).path("/dev/kvm").unlink()
    result = report(tree)
    assert result["kvm"]["device"] is False
    assert [(found["code"], found["severity"]) for found in result["blockers"]] == [(code, severity)]


@pytest.mark.parametrize(
    ("flags", "loaded", "told"),
    [
        ("svm", None, "since the module kvm_amd is not loaded"),
        ("vmx", "kvm_intel", "although the module kvm_intel is"),
        ("vmx", "kvm", "since the module kvm_intel is not loaded"),
    ],
)
def test_why_there_is_no_kvm(tree: SysfsTree, flags: str, loaded: str | None, told: str) -> None:
    active_vtd(tree).set_cpu(flags=flags).path("/dev/kvm").unlink()
    if loaded is not None:
        tree.path(f"/sys/module/{loaded}").mkdir()
    result = report(tree)
    module = {"svm": "kvm_amd", "vmx": "kvm_intel"}[flags]
    assert result["kvm"] == {"device": False, "module": module, "loaded": loaded == module}
    assert told in result["blockers"][0]["message"]


def test_on_arm_kvm_is_there_and_may_not_run_all_the_same(tree: SysfsTree) -> None:
    tree.write("/proc/sys/kernel/arch", "aarch64\n").write("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\n")
    tree.path("/sys/module/kvm").mkdir()
    tree.path("/dev/kvm").unlink()
    result = report(tree)
    assert result["kvm"] == {"device": False, "module": "kvm", "loaded": True}
    assert "started at EL2" in blocker(result, "no_kvm")["remedy"]


def test_a_host_with_kvm(tree: SysfsTree) -> None:
    active_vtd(tree).path("/sys/module/kvm_intel").mkdir()
    result = report(tree)
    assert result["kvm"] == {"device": True, "module": "kvm_intel", "loaded": True}
    assert result["blockers"] == []
