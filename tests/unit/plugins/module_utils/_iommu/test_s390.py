# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""IBM Z as an emulated machine shows it (Linux 6.12)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.report import iommu_report
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import codes
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

CPUINFO = """vendor_id       : IBM/S390
# processors    : 1
max thread id   : 0
features\t: esan3 zarch stfle msa vx {features}
facilities      : 0 1 2 {facilities} 129
processor 0: version = 00,  identification = 000000,  machine = 8561

cpu number      : 0
"""
CONFIG = "CONFIG_PCI=y\nCONFIG_S390_IOMMU=y\n"


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path).write("/proc/sys/kernel/arch", "s390x\n").write("/dev/kvm", "")
    tree.write("/proc/interrupts", "  3:  0  PCI-MSI  virtio0-config\n")
    tree.add_modules(
        available=[f"kernel/drivers/vfio/{name}.ko" for name in ("pci/vfio-pci", "vfio_iommu_type1")]
    ).write(f"/boot/config-{tree.kernel}", CONFIG)
    return tree.write("/proc/cpuinfo", CPUINFO.format(features="sie", facilities="69 71 72"))


def test_active(tree: SysfsTree) -> None:
    tree.add_zpci("0001:00:00.0", 0x10, group=0, driver="virtio-pci").add_zpci("1234:00:00.0", 0xABCDEF, group=1)
    result = iommu_report(tree.host())
    assert (result["state"], result["platform"]) == ("active", "ibm_z")
    assert result["evidence"] == ["the kernel drives 2 IOMMU units: s390-iommu.00000010, s390-iommu.00abcdef"]
    assert result["units"] == [
        {"name": "s390-iommu.00000010", "devices": 1, "fid": "0x00000010"},
        {"name": "s390-iommu.00abcdef", "devices": 1, "fid": "0x00abcdef"},
    ]
    assert result["interrupt_remapping"]["enabled"] is True
    assert result["cpu"] == {"vendor": "IBM/S390", "virtualization": "sie", "is_virtual_machine": False}
    assert (result["recommended_parameters"], result["parameters_to_remove"]) == ([], [])
    assert codes(result) == []


def test_many_functions_are_counted(tree: SysfsTree) -> None:
    for number in range(1, 20):
        tree.add_zpci(f"{number:04x}:00:00.0", number, group=number)
    (evidence,) = iommu_report(tree.host())["evidence"]
    assert evidence.startswith("the kernel drives 19 IOMMU units: s390-iommu.00000001, ")
    assert evidence.endswith("s390-iommu.00000008 and 11 more")


def test_a_function_in_standby_is_told_beside_others(tree: SysfsTree) -> None:
    tree.add_zpci("0001:00:00.0", 1, group=0).add_zpci("0002:00:00.0", 2, power=0)
    result = iommu_report(tree.host())
    assert result["evidence"][1] == "1 PCI function in standby: 00000002"
    assert codes(result) == []


@pytest.mark.parametrize(
    ("cmdline", "state", "recommended", "unwanted", "code"),
    [
        ("quiet", "unknown", [], [], "no_pci_functions"),
        ("pci=nomio", "unknown", [], [], "no_pci_functions"),
        ("pci=official", "unknown", [], [], "no_pci_functions"),
        ("pci=off", "disabled_by_parameter", [], ["pci=off"], "iommu_disabled_by_parameter"),
        ("pci=nomio,off", "disabled_by_parameter", ["pci=nomio"], [], "iommu_disabled_by_parameter"),
        ("pci=off pci=norid", "disabled_by_parameter", ["pci=norid"], [], "iommu_disabled_by_parameter"),
    ],
)
def test_not_active(
    tree: SysfsTree, cmdline: str, state: str, recommended: list[str], unwanted: list[str], code: str
) -> None:
    result = iommu_report(tree.set_cmdline(cmdline).host())
    assert (result["state"], result["platform"]) == (state, "ibm_z")
    assert result["recommended_parameters"] == recommended
    assert result["parameters_to_remove"] == unwanted
    assert codes(result)[0] == code


def test_functions_in_standby_only(tree: SysfsTree) -> None:
    result = iommu_report(tree.add_zpci("", 0x2A, power=0).host())
    assert codes(result) == ["no_pci_functions"]
    assert result["blockers"][0]["remedy"] == "Switch one on: echo 1 > /sys/bus/pci/slots/0000002a/power"


@pytest.mark.parametrize("option", ["CONFIG_PCI", "CONFIG_S390_IOMMU"])
def test_a_kernel_without_it(tree: SysfsTree, option: str) -> None:
    tree.write(f"/boot/config-{tree.kernel}", CONFIG.replace(f"{option}=y", f"# {option} is not set"))
    result = iommu_report(tree.host())
    assert result["state"] == "unsupported"
    assert option in result["blockers"][0]["message"]


@pytest.mark.parametrize(("facilities", "missing"), [("69", "71"), ("71", "69"), ("", "69 and 71")])
def test_a_machine_without_pci(tree: SysfsTree, facilities: str, missing: str) -> None:
    tree.write("/proc/cpuinfo", CPUINFO.format(features="sie", facilities=facilities))
    result = iommu_report(tree.host())
    assert result["state"] == "disabled_in_firmware"
    assert result["evidence"] == [f"the processor does not show facility {missing} (/proc/cpuinfo)"]


def test_functions_without_a_unit(tree: SysfsTree) -> None:
    result = iommu_report(tree.add_zpci("0001:00:00.0", 1, unit=False).host())
    assert (result["state"], codes(result)) == ("unknown", ["iommu_not_started"])
    assert "zpci" in result["blockers"][0]["remedy"]


def test_without_cpuinfo(tree: SysfsTree) -> None:
    tree.path("/proc/cpuinfo").unlink()
    assert codes(iommu_report(tree.host())) == ["no_pci_functions"]


def test_a_guest_without_nested_virtualization(tree: SysfsTree) -> None:
    tree.add_zpci("0001:00:00.0", 1, group=0).path("/dev/kvm").unlink()
    tree.write("/proc/cpuinfo", CPUINFO.format(features="", facilities="69 71"))
    tree.write("/proc/sysinfo", "Manufacturer: QEMU\n\nVM00 Control Program: KVM/Linux        \n")
    result = iommu_report(tree.host())
    assert result["cpu"]["is_virtual_machine"] is True
    assert codes(result) == ["no_virtualization"]
    assert "sie" in result["blockers"][0]["message"]


def test_parameters_of_other_architectures(tree: SysfsTree) -> None:
    tree.add_zpci("0001:00:00.0", 1, group=0).set_cmdline("iommu=pt iommu.passthrough=x")
    result = iommu_report(tree.host())
    assert codes(result) == ["parameter_without_effect"] * 2
    assert "iommu.passthrough=1" in result["blockers"][0]["message"]
