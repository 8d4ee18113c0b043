# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.amd import AmdVi
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.arm import ArmSmmu
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.ineffective import ineffective
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.intel import IntelVtd
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.machine import Machine
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.platform import Platform
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


def messages(
    root: Path, cmdline: str, platform: Platform | None, arch: str = "x86_64", is_active: bool = False
) -> list[str]:
    tree = SysfsTree(root).write("/proc/sys/kernel/arch", arch).set_cmdline(cmdline)
    return [blocker.message for blocker in ineffective(Machine(tree.host()), platform, is_active)]


@pytest.mark.parametrize(
    ("cmdline", "platform", "part"),
    [
        ("intel_iommu=on", AmdVi(), "for Intel VT-d, and this host has AMD-Vi"),
        ("amd_iommu=fullflush", IntelVtd(), "for AMD-Vi, and this host has Intel VT-d"),
        ("amd_iommu=on", AmdVi(), "does not know on. AMD-Vi is on by itself"),
        ("intel_iommu=1", IntelVtd(), "intel_iommu=on is what switches it on"),
        ("intel_iommu=yes", IntelVtd(), "does not know yes"),
        ("intel_iommu=on,igfx-off", IntelVtd(), "does not know igfx-off; the rest"),
        ("intel_iommu", IntelVtd(), "needs a value"),
        ("intel-iommu=", IntelVtd(), "needs a value"),
        ("iommu=on", IntelVtd(), "does not know on"),
        ("iommu=enable", AmdVi(), "no value of iommu= switches an IOMMU on"),
        ("iommu=passthrough", AmdVi(), "does not know passthrough. iommu=pt is what"),
        ("intremap=enable", IntelVtd(), "does not know enable"),
        ("iommu.passthrough=pt", IntelVtd(), "takes 0 or 1"),
        ("iommu.strict", IntelVtd(), "takes 0 or 1"),
        ("intel_immu=on", IntelVtd(), "no such parameter. intel_iommu may be meant"),
        ("intel.iommu=on", IntelVtd(), "no such parameter. intel_iommu may be meant"),
        ("inteliommu=on", None, "no such parameter. intel_iommu may be meant"),
        ("imomu=pt", IntelVtd(), "no such parameter. iommu may be meant"),
        ("iommu.pasthrough=1", IntelVtd(), "no such parameter. iommu.passthrough may be meant"),
    ],
)
def test_what_does_nothing(tmp_path: Path, cmdline: str, platform: Platform | None, part: str) -> None:
    (message,) = messages(tmp_path, cmdline, platform)
    assert f"started with {cmdline}," in message
    assert part in message


@pytest.mark.parametrize(
    ("cmdline", "platform"),
    [
        ("intel_iommu=on,sm_on,igfx_off iommu=pt intremap=no_x2apic_optout", IntelVtd()),
        ("intel-iommu=on iommu.passthrough=y iommu.strict=0 nointremap", IntelVtd()),
        ("intel_iommu=on,relax_rmrr", IntelVtd()),
        ("intel_iommu=on,nobounce", IntelVtd()),
        ("iommu=128,memaper=3,noagp", AmdVi()),
        ("amd_iommu=force_isolation,pgtbl_v2 amd_iommu_intr=legacy iommu=soft amd_iommu_dump", AmdVi()),
        ("intel_iommu=on amd_iommu=off", None),
        ("my_intel_iommu=1 root=/dev/iommu quiet console=tty0 iommufd.allow_unsafe_interrupts=1", IntelVtd()),
        ("-- intel_iommu=1", IntelVtd()),
    ],
)
def test_what_does_something_or_is_about_other_things(tmp_path: Path, cmdline: str, platform: Platform | None) -> None:
    assert messages(tmp_path, cmdline, platform) == []


def test_arm_knows_none_of_those_of_x86(tmp_path: Path) -> None:
    found = messages(tmp_path, "iommu=pt intel_iommu=on iommu.passthrough=1", ArmSmmu(), "aarch64")
    assert len(found) == 2
    assert "iommu.passthrough=1 is what chooses identity domains here" in found[0]
    assert "for x86 processors" in found[1]


@pytest.mark.parametrize(
    ("cmdline", "platform", "arch"),
    [
        ("intel_iommu=on amd_iommu=on", IntelVtd(), "x86_64"),
        ("intel_iommu=on,sm_on iommu=pt", AmdVi(), "x86_64"),
        ("intel_iommu=on", ArmSmmu(), "aarch64"),
    ],
)
def test_a_fleet_has_parameters_for_all_its_hosts(tmp_path: Path, cmdline: str, platform: Platform, arch: str) -> None:
    assert messages(tmp_path, cmdline, platform, arch, is_active=True) == []
    assert len(messages(tmp_path, cmdline, platform, arch, is_active=False)) == 1


def test_an_active_iommu_makes_nothing_of_a_wrong_value(tmp_path: Path) -> None:
    assert len(messages(tmp_path, "amd_iommu=on iommu=on", AmdVi(), is_active=True)) == 2


def test_powerpc_has_an_iommu_parameter_of_its_own(tmp_path: Path) -> None:
    assert messages(tmp_path, "iommu=nobypass", None, "ppc64le") == []


def test_the_same_twice_is_told_once(tmp_path: Path) -> None:
    assert len(messages(tmp_path, "intel_iommu=1 intel_iommu=1", IntelVtd())) == 1
