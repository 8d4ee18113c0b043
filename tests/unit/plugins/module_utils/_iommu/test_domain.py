# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.domain import default_domain
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.groups import Group
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.machine import Machine
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

LAZY = "CONFIG_IOMMU_DEFAULT_DMA_LAZY=y\n"
STRICT = "CONFIG_IOMMU_DEFAULT_DMA_STRICT=y\n"
PASSTHROUGH = "CONFIG_IOMMU_DEFAULT_PASSTHROUGH=y\n"


def machine(root: Path, cmdline: str, config: str | None, arch: str = "x86_64") -> Machine:
    tree = SysfsTree(root).write("/proc/sys/kernel/arch", arch).set_cmdline(cmdline)
    if config is not None:
        tree.write(f"/boot/config-{tree.kernel}", config)
    return Machine(tree.host())


@pytest.mark.parametrize(
    ("cmdline", "config", "expected"),
    [
        ("", LAZY, "DMA-FQ"),
        ("", STRICT, "DMA"),
        ("", PASSTHROUGH, "identity"),
        ("", None, None),
        ("iommu=pt", None, "identity"),
        ("iommu=soft,pt", LAZY, "identity"),
        ("iommu=pt iommu.passthrough=0", LAZY, "DMA-FQ"),
        ("iommu.passthrough=0 iommu=pt", LAZY, "identity"),
        ("iommu=nopt", PASSTHROUGH, "DMA-FQ"),
        ("iommu=usedac,pt", LAZY, "DMA-FQ"),
        ("iommu.passthrough=maybe", LAZY, "DMA-FQ"),
        ("iommu.strict=1", LAZY, "DMA"),
        ("iommu.strict=0", STRICT, "DMA-FQ"),
        ("intel_iommu=on,strict", LAZY, "DMA"),
        ("amd_iommu=fullflush iommu.strict=0", LAZY, "DMA"),
        ("iommu.strict=1 iommu.strict=0", STRICT, "DMA-FQ"),
        ("amd_iommu=fullflush", LAZY, "DMA"),
        ("iommu.passthrough=off", None, None),
        ("iommu.passthrough=off iommu.strict=on", None, "DMA"),
    ],
)
def test_what_the_kernel_would_choose(tmp_path: Path, cmdline: str, config: str | None, expected: str | None) -> None:
    assert default_domain(machine(tmp_path, cmdline, config), []) == expected


def test_iommu_is_a_parameter_of_x86_only(tmp_path: Path) -> None:
    assert default_domain(machine(tmp_path, "iommu=pt", STRICT, "aarch64"), []) == "DMA"


def test_what_groups_show_comes_first(tmp_path: Path) -> None:
    groups = [Group(n, kind, (), (), ()) for n, kind in enumerate(["DMA", "identity", "identity", None, "blocked"])]
    host = machine(tmp_path, "iommu.strict=1", LAZY)
    assert default_domain(host, groups) == "identity"
    assert default_domain(host, groups[3:]) == "DMA"
