# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil
from typing import Any, Callable

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.iommu import (
    TYPE1_KO,
    VFIO_KO,
    active_vtd,
    blocker,
    codes,
    report,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.mark.parametrize(
    ("prepare", "expected", "code"),
    [
        (lambda tree: tree.add_driver("vfio-pci"), {"loaded": True, "built_in": False, "available": True}, None),
        (
            lambda tree: tree.add_modules(builtin=["kernel/drivers/vfio/pci/vfio-pci.ko", TYPE1_KO]),
            {"loaded": False, "built_in": True, "available": True},
            None,
        ),
        (
            lambda tree: tree.add_modules(available=["kernel/drivers/vfio/pci/mlx5/mlx5-vfio-pci.ko"]),
            {"loaded": False, "built_in": False, "available": False},
            "vfio_pci_missing",
        ),
        (
            lambda tree: shutil.rmtree(tree.path(f"/lib/modules/{tree.kernel}")),
            {"loaded": False, "built_in": False, "available": None},
            "kernel_modules_missing",
        ),
    ],
)
def test_vfio_pci(
    tree: SysfsTree, prepare: Callable[[SysfsTree], Any], expected: dict[str, Any], code: str | None
) -> None:
    active_vtd(tree)
    prepare(tree)
    result = report(tree)
    assert result["vfio"]["pci"] == {**expected, "blacklisted": False, "options": {}}
    assert codes(result) == ([] if code is None else [code])


def test_a_container_has_no_modules_of_its_own(tree: SysfsTree) -> None:
    shutil.rmtree(active_vtd(tree).path(f"/lib/modules/{tree.kernel}"))
    assert "reboot" in blocker(report(tree), "kernel_modules_missing")["remedy"]
    tree.write("/run/.containerenv", "")
    assert "on the host itself" in blocker(report(tree), "kernel_modules_missing")["remedy"]


@pytest.mark.parametrize(
    ("modules", "expected"),
    [
        ([VFIO_KO], ["vfio_back_end_missing"]),
        ([VFIO_KO, TYPE1_KO], []),
        ([VFIO_KO, "kernel/drivers/iommu/iommufd/iommufd.ko"], []),
    ],
)
def test_vfio_needs_a_back_end(tree: SysfsTree, modules: list[str], expected: list[str]) -> None:
    active_vtd(tree).add_modules(available=modules)
    assert codes(report(tree)) == expected


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda tree: tree, None),
        (lambda tree: tree.path("/dev/vfio/devices").mkdir(parents=True), True),
        (lambda tree: tree.write(f"/boot/config-{tree.kernel}", "CONFIG_VFIO_DEVICE_CDEV=y\n"), True),
        (lambda tree: tree.write(f"/boot/config-{tree.kernel}", "CONFIG_VFIO=m\n"), False),
    ],
)
def test_iommufd(tree: SysfsTree, prepare: Callable[[SysfsTree], Any], expected: bool | None) -> None:
    active_vtd(tree).add_modules(available=[VFIO_KO, "kernel/drivers/iommu/iommufd/iommufd.ko"])
    tree.write("/dev/iommu", "")
    prepare(tree)
    assert report(tree)["vfio"]["iommufd"] == {
        "loaded": False,
        "built_in": False,
        "available": True,
        "allow_unsafe_interrupts": False,
        "device": True,
        "vfio_device_files": expected,
    }


def test_what_is_at_work_is_told_with_its_options(tree: SysfsTree) -> None:
    active_vtd(tree).add_driver("vfio-pci").write("/dev/vfio/vfio", "")
    tree.write("/sys/module/vfio_pci/parameters/disable_idle_d3", "Y\n")
    tree.write("/sys/module/vfio_pci/parameters/nointxmask", "N\n")
    tree.write("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n")
    vfio = report(tree)["vfio"]
    assert vfio["pci"]["options"] == {"disable_idle_d3": "Y", "nointxmask": "N"}
    assert vfio["type1"]["loaded"] is True
    assert vfio["type1"]["allow_unsafe_interrupts"] is True
    assert vfio["iommufd"]["allow_unsafe_interrupts"] is False
    assert vfio["container"] is True


@pytest.mark.parametrize(
    ("path", "text", "code", "told"),
    [
        ("/etc/modprobe.d/local.conf", "blacklist vfio-pci\n", "vfio_pci_blacklisted", "/etc/modprobe.d/local.conf"),
        ("/proc/cmdline", "modprobe.blacklist=vfio_pci\n", "vfio_pci_blacklisted", "modprobe.blacklist=vfio_pci"),
        ("/run/modprobe.d/a.conf", "install vfio /bin/false\n", "vfio_not_loadable", "has it run '/bin/false' instead"),
        ("/lib/modprobe.d/a.conf", "install vfio_iommu_type1 /bin/true\n", "vfio_not_loadable", "vfio_iommu_type1"),
        ("/proc/cmdline", "module_blacklist=vfio_pci\n", "vfio_not_loadable", "module_blacklist=vfio_pci"),
        ("/proc/sys/kernel/modules_disabled", "1\n", "vfio_not_loadable", "kernel.modules_disabled = 1"),
    ],
)
def test_what_keeps_the_modules_from_being_loaded(tree: SysfsTree, path: str, text: str, code: str, told: str) -> None:
    modules = [VFIO_KO, TYPE1_KO, "kernel/drivers/vfio/vfio.ko"]
    active_vtd(tree).add_modules(available=modules).write(path, text)
    result = report(tree)
    assert codes(result) == [code]
    found = blocker(result, code)
    assert told in found["message"]
    assert result["vfio"]["pci"]["blacklisted"] is (code == "vfio_pci_blacklisted")
    # What is at work already does not have to be loaded.
    for module in ("vfio", "vfio_pci", "vfio_iommu_type1"):
        tree.path(f"/sys/module/{module}").mkdir()
    assert codes(report(tree)) == []


def test_a_kernel_that_is_closed_after_one_back_end_was_loaded(tree: SysfsTree) -> None:
    active_vtd(tree).write("/proc/sys/kernel/modules_disabled", "1\n")
    for module in ("vfio", "vfio_pci"):
        tree.path(f"/sys/module/{module}").mkdir()
    assert codes(report(tree)) == ["vfio_not_loadable"]
    tree.path("/sys/module/iommufd").mkdir()
    assert codes(report(tree)) == []


def test_a_missing_driver_is_told_once(tree: SysfsTree) -> None:
    active_vtd(tree).add_modules(available=[TYPE1_KO]).write("/etc/modprobe.d/a.conf", "blacklist vfio_pci\n")
    assert codes(report(tree)) == ["vfio_pci_missing"]


@pytest.mark.parametrize(
    ("parameter", "cmdline", "option", "expected"),
    [
        ("Y\n", "", "", True),
        ("N\n", "vfio.enable_unsafe_noiommu_mode=1", "=1", False),  # somebody has switched it off since
        (None, "vfio.enable_unsafe_noiommu_mode=1", None, True),
        (None, "vfio.enable_unsafe_noiommu_mode", None, True),
        (None, "vfio.enable_unsafe_noiommu_mode=", None, False),
        (None, "vfio.enable_unsafe_noiommu_mode=1 vfio.enable-unsafe-noiommu-mode=off", None, False),
        (None, "quiet", None, False),
        (None, "quiet", "=Y", True),
        (None, "quiet", "", True),
        (None, "quiet", "=0", False),
    ],
)
def test_the_mode_without_an_iommu(
    tree: SysfsTree, parameter: str | None, cmdline: str, option: str | None, expected: bool
) -> None:
    active_vtd(tree).set_cmdline(cmdline)
    if option is not None:
        tree.write("/etc/modprobe.d/vfio.conf", f"options vfio enable_unsafe_noiommu_mode{option}\n")
    if parameter is not None:
        tree.write("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", parameter)
    result = report(tree)
    assert result["vfio"]["unsafe_noiommu_mode"] is expected
    assert codes(result) == (["noiommu_mode"] if expected else [])
