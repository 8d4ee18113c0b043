# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts on which the question itself needs an answer: Xen, containers, virtual machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.detect import assess
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.machine import Machine
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.platform import State
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path).write("/proc/sys/kernel/arch", "x86_64\n").set_cpu()
    return tree.write("/sys/firmware/acpi/tables/FACP", b"FACP")


@pytest.mark.parametrize(
    ("path", "content", "is_dom0"),
    [
        ("/proc/xen/capabilities", "control_d\n", True),
        ("/proc/xen/capabilities", "", False),
        ("/sys/hypervisor/start_flags/initdomain", "1\n", True),
        ("/sys/hypervisor/start_flags/initdomain", "0\n", False),
    ],
)
def test_the_control_domain_of_xen(tree: SysfsTree, path: str, content: str, is_dom0: bool) -> None:
    tree.write("/sys/hypervisor/type", "xen\n").write(path, content)
    platform, assessment = assess(Machine(tree.host()))
    assert platform is None
    assert [blocker.code for blocker in assessment.blockers] == [
        "xen_dom0" if is_dom0 else "iommu_disabled_in_firmware"
    ]


@pytest.mark.parametrize(
    ("path", "content", "shown"),
    [
        ("/run/.containerenv", 'engine="podman-4.3.1"\n', "/run/.containerenv is there"),
        ("/.dockerenv", "", "/.dockerenv is there"),
        ("/run/systemd/container", "systemd-nspawn\n", "/run/systemd/container says systemd-nspawn"),
        ("/proc/1/environ", "PATH=/bin\0container=lxc\0TERM=linux\0", "process 1 was started with container=lxc"),
        ("/proc/1/environ", "PATH=/bin\0my_container=lxc\0container=\0", None),
    ],
)
def test_a_container_is_told(tree: SysfsTree, path: str, content: str, shown: str | None) -> None:
    tree.add_vtd().write(path, content)
    machine = Machine(tree.host())
    assert machine.container == shown
    _platform, assessment = assess(machine)
    assert assessment.state is State.ACTIVE
    assert any(f"in a container ({shown})" in text for text in assessment.evidence) is (shown is not None)


def test_a_container_that_hides_the_firmware(tree: SysfsTree) -> None:
    tree.write("/run/.containerenv", "").path("/sys/firmware/acpi/tables/FACP").unlink()
    _platform, assessment = assess(Machine(tree.host()))
    assert assessment.state is State.UNKNOWN
    assert any("/run/.containerenv" in text for text in assessment.evidence)


@pytest.mark.parametrize(
    ("vendor", "is_virtual"), [("QEMU", True), ("VMware, Inc.", True), ("Supermicro", False), (None, False)]
)
def test_virtual_machines_without_a_flag_for_it(tmp_path: Path, vendor: str | None, is_virtual: bool) -> None:
    tree = SysfsTree(tmp_path)
    if vendor is not None:
        tree.write("/sys/class/dmi/id/sys_vendor", f"{vendor}\n")
    assert Machine(tree.host()).is_virtual_machine is is_virtual


def test_an_x86_machine_with_a_vendor_and_without_the_flag_is_real(tree: SysfsTree) -> None:
    tree.write("/sys/class/dmi/id/sys_vendor", "QEMU\n")
    assert Machine(tree.host()).is_virtual_machine is False


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_firmware_that_describes_a_virtual_iommu(tree: SysfsTree, arch: str) -> None:
    tree.write("/proc/sys/kernel/arch", arch).write("/sys/firmware/acpi/tables/VIOT", b"VIOT")
    platform, assessment = assess(Machine(tree.host()))
    assert platform is None
    assert [blocker.code for blocker in assessment.blockers] == ["unknown_platform"]
    assert "the kernel drives no IOMMU, and the firmware describes one" in assessment.evidence[0]
    assert any("VIOT table, which describes virtio-iommu" in text for text in assessment.evidence)
