# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arm hosts as the emulated machine "virt" shows them, with ACPI and with a device tree."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.report import iommu_report
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import codes
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree, acpi_table
from ansible_collections.kvm.passthrough.tests.unit.support.tables import VIRT_IORT, VIRT_MADT

INTERRUPTS = " 11:  9  GICv3  27 Level  arch_timer\n 21:  1  ITS-PCI-MSIX-0000:00:04.0  0 Edge  PCIe PME\n"
IOMMU_CELLS = b"\0\0\0\1"
BUILT_IN = "CONFIG_ARM_SMMU=y\nCONFIG_ARM_SMMU_V3=y\n"


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path).write("/proc/sys/kernel/arch", "aarch64\n").write("/dev/kvm", "")
    tree.write("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n\n")
    tree.write("/proc/interrupts", INTERRUPTS).write(f"/boot/config-{tree.kernel}", BUILT_IN)
    tree.add_modules(available=[f"kernel/drivers/vfio/{name}.ko" for name in ("pci/vfio-pci", "vfio_iommu_type1")])
    tree.add_device("00:00.0", pci_class=0x060000)
    return tree.add_device("00:01.0", driver="virtio-pci")


def with_acpi(tree: SysfsTree, iort: bytes | None = VIRT_IORT) -> SysfsTree:
    tree.write("/sys/firmware/acpi/tables/FACP", b"FACP").write("/sys/firmware/acpi/tables/APIC", VIRT_MADT)
    return tree if iort is None else tree.write("/sys/firmware/acpi/tables/IORT", iort)


def with_device_tree(tree: SysfsTree, status: str = "okay", **bridge: bytes) -> SysfsTree:
    tree.add_node("", "vendor,board").add_node("/intc/its@8080000", "arm,gic-v3-its", msi_controller=b"")
    tree.add_node("/smmuv3@9050000", "arm,smmu-v3", cells_iommu=IOMMU_CELLS, status=status)
    return tree.add_node("/pcie@10000000", "pci-host-ecam-generic", device_type="pci", **bridge)


def grouped(tree: SysfsTree) -> SysfsTree:
    return tree.add_smmu().add_device("00:03.0", driver="nvme", group=2)


def test_active_with_acpi(tree: SysfsTree) -> None:
    result = iommu_report(grouped(with_acpi(tree)).host())
    assert (result["state"], result["platform"]) == ("active", "arm_smmu")
    assert result["evidence"] == ["the kernel drives 1 IOMMU unit: smmu3.0x0000000009050000"]
    assert result["units"] == [
        {"name": "smmu3.0x0000000009050000", "devices": 0, "kind": "smmu_v3", "address": "0000000009050000"}
    ]
    assert result["firmware"] == {
        "acpi": True,
        "iommu_tables": ["IORT"],
        "device_tree": False,
        "units": [{"kind": "smmu_v3", "address": "0x9050000", "devices": [], "enabled": True}],
        "reserved_memory": [],
    }
    assert result["interrupt_remapping"]["enabled"] is True
    assert result["recommended_parameters"] == []
    assert codes(result) == []


def test_active_with_a_device_tree(tree: SysfsTree) -> None:
    result = iommu_report(grouped(with_device_tree(tree, iommu_map=bytes(16))).host())
    assert (result["state"], result["platform"]) == ("active", "arm_smmu")
    assert result["firmware"]["device_tree"] is True
    assert result["firmware"]["units"][0]["node"] == "/smmuv3@9050000"
    assert codes(result) == []


def test_a_device_without_a_driver_may_get_its_group_later(tree: SysfsTree) -> None:
    with_device_tree(tree, iommu_map=bytes(16)).add_smmu().add_device("00:02.0")
    result = iommu_report(tree.host())
    assert result["evidence"][1].startswith("1 PCI device without a driver and without an IOMMU group (0000:00:02.0)")
    assert codes(result) == []


def test_without_such_a_device_no_group_is_a_finding(tree: SysfsTree) -> None:
    with_device_tree(tree, iommu_map=bytes(16)).add_smmu()
    assert codes(iommu_report(tree.host())) == ["no_iommu_groups"]


@pytest.mark.parametrize("how", ["acpi", "device tree"])
def test_an_smmu_that_serves_no_pci_device(tree: SysfsTree, how: str) -> None:
    if how == "acpi":
        iort = bytearray(VIRT_IORT)
        iort[0xA8] = 0  # the root complex has no mappings
        with_acpi(tree, bytes(iort))
    else:
        with_device_tree(tree)
    tree.add_smmu().add_group(2).add_device("00:03.0", driver="nvme")  # the group is that of a platform device
    result = iommu_report(tree.host())
    assert result["state"] == "active"
    assert codes(result) == ["pci_without_iommu"]
    tree.join_group("00:03.0", 2)
    assert codes(iommu_report(tree.host())) == []
    assert result["blockers"][0]["severity"] == "error"
    assert ("PCI segment 0000" if how == "acpi" else "/pcie@10000000") in result["blockers"][0]["message"]


@pytest.mark.parametrize(
    ("cmdline", "config", "state", "recommended", "unwanted"),
    [
        ("quiet", BUILT_IN, "unknown", [], []),
        ("iommu.passthrough=1 arm-smmu-v3.disable_bypass=0", BUILT_IN, "unknown", [], []),
        (
            "initcall_blacklist=arm_smmu_driver_init",
            BUILT_IN,
            "disabled_by_parameter",
            [],
            ["initcall_blacklist=arm_smmu_driver_init"],
        ),
        (
            "initcall_blacklist=a,arm_smmu_driver_init,b",
            BUILT_IN,
            "disabled_by_parameter",
            ["initcall_blacklist=a,b"],
            [],
        ),
        ("module_blacklist=arm_smmu_v3", BUILT_IN, "unknown", [], []),
        (
            "module_blacklist=nouveau module_blacklist=arm_smmu_v3",
            "CONFIG_ARM_SMMU_V3=m\n",
            "disabled_by_parameter",
            [],
            ["module_blacklist=arm_smmu_v3"],
        ),
        ("module_blacklist=arm-smmu-v3", "CONFIG_ARM_SMMU_V3=m\n", "unknown", [], []),
        ("module_blacklist=arm_smmu_v3 module_blacklist=x", "CONFIG_ARM_SMMU_V3=m\n", "unknown", [], []),
        (
            "modprobe.blacklist=arm-smmu-v3",
            "CONFIG_ARM_SMMU_V3=m\n",
            "disabled_by_parameter",
            [],
            ["modprobe.blacklist=arm-smmu-v3"],
        ),
        (
            "modprobe.blacklist=nouveau,arm_smmu_v3",
            "CONFIG_ARM_SMMU_V3=m\n",
            "disabled_by_parameter",
            ["modprobe.blacklist=nouveau"],
            [],
        ),
        ("quiet", "CONFIG_ARM_SMMU=y\n# CONFIG_ARM_SMMU_V3 is not set\n", "unsupported", [], []),
    ],
)
@pytest.mark.parametrize("how", [with_acpi, with_device_tree])
def test_not_active(
    tree: SysfsTree, how: Any, cmdline: str, config: str, state: str, recommended: list[str], unwanted: list[str]
) -> None:
    how(tree).set_cmdline(cmdline).write(f"/boot/config-{tree.kernel}", config)
    result = iommu_report(tree.host())
    assert (result["state"], result["platform"]) == (state, "arm_smmu")
    assert result["recommended_parameters"] == recommended
    assert result["parameters_to_remove"] == unwanted
    assert result["firmware"]["units"]
    assert result["blockers"][0]["severity"] == "error"


def test_a_module_that_is_not_loaded(tree: SysfsTree) -> None:
    with_acpi(tree).write(f"/boot/config-{tree.kernel}", "CONFIG_ARM_SMMU_V3=m\n")
    result = iommu_report(tree.host())
    assert codes(result)[0] == "iommu_not_started"
    assert "the module arm_smmu_v3 is not loaded" in result["evidence"]
    assert "put arm_smmu_v3 into the initramfs" in result["blockers"][0]["remedy"]
    tree.path("/sys/module/arm_smmu_v3").mkdir()
    assert "defective" in iommu_report(tree.host())["blockers"][0]["remedy"]


def test_off_in_the_device_tree(tree: SysfsTree) -> None:
    result = iommu_report(with_device_tree(tree, "disabled").host())
    assert (result["state"], result["platform"]) == ("disabled_in_firmware", "arm_smmu")
    assert result["firmware"]["units"][0]["enabled"] is False
    assert "the device tree has 1 SMMU node, disabled" in result["evidence"]


@pytest.mark.parametrize("iort", [None, acpi_table(b"IORT", bytes(4) + (48).to_bytes(4, "little") + bytes(4))])
def test_none_in_acpi(tree: SysfsTree, iort: bytes | None) -> None:
    result = iommu_report(with_acpi(tree, iort).host())
    assert (result["state"], result["platform"]) == ("disabled_in_firmware", None)
    assert codes(result) == ["iommu_disabled_in_firmware"]
    assert "firmware setup" in result["blockers"][0]["remedy"]


def test_none_in_the_device_tree_of_a_virtual_machine(tree: SysfsTree) -> None:
    result = iommu_report(tree.add_node("", "linux,dummy-virt").host())
    assert result["state"] == "disabled_in_firmware"
    assert result["cpu"]["is_virtual_machine"] is True
    assert "virtual IOMMU" in result["blockers"][0]["remedy"]


def test_iommus_of_other_kinds(tree: SysfsTree) -> None:
    tree.add_node("", "apple,j293").add_node("/soc/iommu@382f00000", "apple,t8103-dart", cells_iommu=IOMMU_CELLS)
    result = iommu_report(tree.host())
    assert (result["state"], result["platform"]) == ("unknown", None)
    assert "/soc/iommu@382f00000 (apple,t8103-dart)" in result["blockers"][0]["message"]
    tree.write("/sys/class/iommu/382f00000.iommu/uevent", "")
    assert codes(iommu_report(tree.host())) == ["unknown_platform"]


@pytest.mark.parametrize("content", [None, b"", b"IORT", bytes(200)])
def test_firmware_that_hides(tree: SysfsTree, content: bytes | None) -> None:
    if content is not None:
        with_acpi(tree, content)
    result = iommu_report(tree.host())
    assert result["state"] == "unknown"
    assert codes(result) == ["iommu_state_unknown"]


def test_an_unreadable_table_of_an_active_host(tree: SysfsTree) -> None:
    grouped(with_acpi(tree, None)).path("/sys/firmware/acpi/tables/IORT").mkdir()
    result = iommu_report(tree.host())
    assert result["state"] == "active"
    assert "units" not in result["firmware"]
    assert result["unreadable"] == ["/sys/firmware/acpi/tables/IORT"]


FRAMES = acpi_table(b"APIC", bytes(8) + bytes((0x0D, 24)) + bytes(22))


@pytest.mark.parametrize(
    ("interrupts", "madt", "enabled"),
    [
        ("", VIRT_MADT, True),
        (" 40: 1 ITS-MSI 8192 Edge nvme\n", FRAMES, True),
        (" 40: 1 MSI 8192 Edge nvme\n", FRAMES, False),
        ("", acpi_table(b"APIC", bytes(8)), None),
        ("", b"", None),
    ],
)
def test_isolated_interrupts(tree: SysfsTree, interrupts: str, madt: bytes, enabled: bool | None) -> None:
    grouped(with_acpi(tree)).write("/proc/interrupts", interrupts).write("/sys/firmware/acpi/tables/APIC", madt)
    result = iommu_report(tree.host())
    assert result["interrupt_remapping"]["enabled"] is enabled
    assert codes(result) == (["no_interrupt_remapping"] if enabled is False else [])
    if enabled is False:
        assert "x2APIC" not in result["blockers"][0]["remedy"]
        assert "GICv2m" in result["blockers"][0]["message"]


@pytest.mark.parametrize(
    ("frame", "enabled"), [("arm,gic-v2m-frame", False), ("arm,gic-v3-its", True), ("vendor,msi", None)]
)
def test_isolated_interrupts_of_a_device_tree(tree: SysfsTree, frame: str, enabled: bool | None) -> None:
    tree.add_node("/msi@1", frame, msi_controller=b"").write("/proc/interrupts", "")
    assert iommu_report(grouped(tree).host())["interrupt_remapping"]["enabled"] is enabled


def test_the_kernel_was_not_started_at_el2(tree: SysfsTree) -> None:
    grouped(with_acpi(tree)).path("/dev/kvm").unlink()
    result = iommu_report(tree.host())
    assert result["cpu"]["virtualization"] is None
    assert codes(result) == ["no_kvm"]
    assert "EL2" in result["blockers"][0]["remedy"]
