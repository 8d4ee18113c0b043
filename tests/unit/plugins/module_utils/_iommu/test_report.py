# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.report import iommu_report
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import (
    HANGS,
    NOT_REMAPPED,
    REMAPPED,
    active_vtd,
    answering,
    codes,
    report,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


def test_intel_active(tree: SysfsTree) -> None:
    active_vtd(tree).set_cmdline("root=/dev/vda1 intel_iommu=on quiet")
    result = report(tree)
    assert result["state"] == "active"
    assert result["platform"] == "intel_vtd"
    assert result["evidence"] == ["the kernel drives 1 IOMMU unit: dmar0"]
    assert result["recommended_parameters"] == []
    assert result["parameters_to_remove"] == []
    assert result["running_parameters"] == ["intel_iommu=on"]
    assert result["blockers"] == []
    assert result["firmware"] == {
        "acpi": True,
        "iommu_tables": ["DMAR"],
        "dmar_flags": "0x01",
        "interrupt_remapping": True,
        "x2apic_opt_out": False,
        "dma_protection": False,
        "units": [],
        "reserved_memory": [],
    }
    assert result["units"] == [
        {
            "name": "dmar0",
            "devices": 0,
            "cap": "0xd2008c22260286",
            "ecap": "0xf00f5a",
            "version": "1:0",
            "interrupt_remapping": True,
        }
    ]
    assert result["interrupt_remapping"]["supported"] is True
    assert result["interrupt_remapping"]["enabled"] is True
    assert result["group_count"] == 1
    assert result["group_types"] == {"DMA": 1}
    assert result["vfio"]["pci"]["available"] is True
    assert result["unreadable"] == []
    assert result["msg"] == (
        "The IOMMU (Intel VT-d) is active: 1 unit, 1 group, interrupt remapping on. Nothing stands against passthrough."
    )


def test_the_name_of_the_processor_does_not_count(tree: SysfsTree) -> None:
    active_vtd(tree).set_cpu("AuthenticAMD", "fpu svm hypervisor")
    result = report(tree)
    assert (result["state"], result["platform"]) == ("active", "intel_vtd")
    assert result["cpu"] == {"vendor": "AuthenticAMD", "virtualization": "svm", "is_virtual_machine": True}


@pytest.mark.parametrize(
    ("cmdline", "state", "recommended", "unwanted"),
    [
        ("quiet", "disabled_by_default", ["intel_iommu=on"], []),
        ("intel_iommu=igfx_off", "disabled_by_default", ["intel_iommu=on,igfx_off"], []),
        ("intel_iommu=off", "disabled_by_parameter", ["intel_iommu=on"], []),
        ("intel-iommu=off", "disabled_by_parameter", ["intel_iommu=on"], []),
        ("intel_iommu=on intel_iommu=off", "disabled_by_parameter", ["intel_iommu=on"], []),
        ("intel_iommu=sm_on,off", "disabled_by_parameter", ["intel_iommu=on,sm_on"], []),
        ("intel_iommu=on,off", "disabled_by_parameter", ["intel_iommu=on"], []),
        ("iommu=off", "disabled_by_parameter", ["intel_iommu=on"], ["iommu=off"]),
        ("intel_iommu=on iommu=off", "disabled_by_parameter", ["intel_iommu=on"], ["iommu=off"]),
        ("intel_iommu=on iommu=pt,off", "disabled_by_parameter", ["intel_iommu=on", "iommu=pt"], []),
        ("iommu=off iommu=off intel_iommu=off", "disabled_by_parameter", ["intel_iommu=on"], ["iommu=off"]),
        ("intel_iommu=on", "unknown", [], []),
        ("intel_iommu=off intel_iommu=on", "unknown", [], []),
        ("intel_iommu=off,on", "unknown", [], []),
        ("my_intel_iommu=off amd_iommu=off", "disabled_by_default", ["intel_iommu=on"], []),
        ("-- intel_iommu=off", "disabled_by_default", ["intel_iommu=on"], []),
    ],
)
def test_intel_not_active(
    tree: SysfsTree, cmdline: str, state: str, recommended: list[str], unwanted: list[str]
) -> None:
    tree.add_vtd(active=False).set_cmdline(f"root=/dev/vda1 {cmdline}")
    result = report(tree)
    assert result["state"] == state
    assert result["platform"] == "intel_vtd"
    assert result["recommended_parameters"] == recommended
    assert result["parameters_to_remove"] == unwanted
    expected = {
        "disabled_by_default": "iommu_disabled_by_default",
        "disabled_by_parameter": "iommu_disabled_by_parameter",
        "unknown": "iommu_not_started",
    }
    assert codes(result)[0] == expected[state]
    assert result["blockers"][0]["severity"] == "error"
    for text in recommended + unwanted:
        assert text in result["blockers"][0]["remedy"]
    assert "Passthrough is not possible" in result["msg"]


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ("CONFIG_INTEL_IOMMU=y\n# CONFIG_INTEL_IOMMU_DEFAULT_ON is not set\n", "disabled_by_default"),
        ("CONFIG_INTEL_IOMMU=y\nCONFIG_INTEL_IOMMU_DEFAULT_ON=y\n", "unknown"),
        ("CONFIG_INTEL_IOMMU=y\nCONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF=y\n", "unknown"),
        ("CONFIG_INTEL_IOMMU=y\nCONFIG_INTEL_IOMMU_SCALABLE_MODE_DEFAULT_ON=y\n", "disabled_by_default"),
        ("# CONFIG_INTEL_IOMMU is not set\n", "unsupported"),
    ],
)
def test_what_the_kernel_was_built_with(tree: SysfsTree, config: str, state: str) -> None:
    tree.add_vtd(active=False).write(f"/boot/config-{tree.kernel}", config)
    result = report(tree)
    assert result["state"] == state
    assert result["recommended_parameters"] == (["intel_iommu=on"] if state == "disabled_by_default" else [])
    if state == "disabled_by_default":
        assert "uses it only when it is told to" in result["blockers"][0]["message"]


def test_a_kernel_somebody_built_says_itself_how(tree: SysfsTree) -> None:
    tree.add_vtd(active=False).write(f"/boot/config-{tree.kernel}", "CONFIG_INTEL_IOMMU=y\n")
    tree.write("/proc/config.gz", gzip.compress(b"# CONFIG_INTEL_IOMMU is not set\n"))
    assert report(tree)["state"] == "unsupported"


@pytest.mark.parametrize("content", [None, b"", b"\x1f\x8b cut off", gzip.compress(bytes(99), mtime=0)[:-9]])
def test_a_kernel_of_which_nothing_says_how_it_was_built(tree: SysfsTree, content: bytes | None) -> None:
    tree.add_vtd(active=False)
    if content is not None:
        tree.write("/proc/config.gz", content)
    result = report(tree)
    assert result["recommended_parameters"] == ["intel_iommu=on"]
    assert "what it was built with is not known" in result["evidence"]
    assert "most likely" in result["blockers"][0]["message"]


def test_amd_active(tree: SysfsTree) -> None:
    tree.add_amdvi().set_cpu("AuthenticAMD", "fpu svm").write("/proc/interrupts", REMAPPED)
    tree.add_device("01:00.0", group=1)
    result = report(tree)
    assert (result["state"], result["platform"]) == ("active", "amd_vi")
    assert result["units"] == [{"name": "ivhd0", "devices": 0, "cap": "0xd0000018", "features": "0x29d3"}]
    assert result["interrupt_remapping"]["enabled"] is True
    assert result["blockers"] == []


def test_amd_iommu_on_means_nothing(tree: SysfsTree) -> None:
    tree.add_amdvi().set_cmdline("amd_iommu=on").write("/proc/interrupts", REMAPPED)
    tree.add_device("01:00.0", group=1)
    result = report(tree)
    assert codes(result) == ["parameter_without_effect"]
    assert result["recommended_parameters"] == []


@pytest.mark.parametrize(
    ("cmdline", "state", "recommended", "unwanted"),
    [
        ("amd_iommu=off", "disabled_by_parameter", [], ["amd_iommu=off"]),
        ("amd_iommu=off amd_iommu=on", "disabled_by_parameter", [], ["amd_iommu=off"]),
        ("amd_iommu=fullflush,off", "disabled_by_parameter", ["amd_iommu=fullflush"], []),
        ("amd_iommu=off iommu=off", "disabled_by_parameter", [], ["amd_iommu=off", "iommu=off"]),
        ("quiet", "unknown", [], []),
        ("amd_iommu=on", "unknown", [], []),
        ("intel_iommu=off", "unknown", [], []),
    ],
)
def test_amd_not_active(tree: SysfsTree, cmdline: str, state: str, recommended: list[str], unwanted: list[str]) -> None:
    tree.add_amdvi(active=False).set_cmdline(cmdline)
    result = report(tree)
    assert (result["state"], result["platform"]) == (state, "amd_vi")
    assert result["recommended_parameters"] == recommended
    assert result["parameters_to_remove"] == unwanted


@pytest.mark.parametrize(
    ("vendor", "flags", "remedy"),
    [
        ("GenuineIntel", "vmx", "Intel VT-d"),
        ("AuthenticAMD", "svm", "AMD-Vi"),
        ("CentaurHauls", "vmx", "Intel VT-d or the AMD IOMMU"),
        ("AuthenticAMD", "svm hypervisor", "virtual IOMMU"),
    ],
)
def test_off_in_firmware(tree: SysfsTree, vendor: str, flags: str, remedy: str) -> None:
    tree.set_cpu(vendor, flags).set_cmdline("intel_iommu=off amd_iommu=off")
    result = report(tree)
    assert result["state"] == "disabled_in_firmware"
    assert result["platform"] is None
    assert result["recommended_parameters"] == []
    assert result["parameters_to_remove"] == []
    assert codes(result) == ["iommu_disabled_in_firmware"]
    assert remedy in result["blockers"][0]["remedy"]


def test_a_container_that_hides_the_firmware_is_unknown_not_off(tree: SysfsTree) -> None:
    for name in ("FACP", "APIC"):
        tree.path(f"/sys/firmware/acpi/tables/{name}").unlink()
    result = report(tree)
    assert result["state"] == "unknown"
    assert result["firmware"]["acpi"] is False
    assert codes(result) == ["iommu_state_unknown"]


@pytest.mark.parametrize(
    ("arch", "unit"), [("riscv64", "riscv-iommu@0000:00:01.0"), ("ppc64le", None), ("loongarch64", None)]
)
def test_another_architecture_is_unknown_and_says_so(tree: SysfsTree, arch: str, unit: str | None) -> None:
    tree.write("/proc/sys/kernel/arch", arch).set_cmdline("intel_iommu=on iommu=nobypass")
    if unit is not None:
        tree.write(f"/sys/class/iommu/{unit}/uevent", "")
    tree.add_device("01:00.0", group=3)
    result = report(tree)
    assert result["state"] == "unknown"
    assert result["architecture"] == arch
    assert any(arch in text for text in result["evidence"])
    assert ("such names are those of the IOMMU of RISC-V" in result["evidence"]) is (unit is not None)
    assert result["units"] == ([] if unit is None else [{"name": unit, "devices": 0}])
    assert "seems to have an active IOMMU" in result["blockers"][0]["message"]
    assert "has 1 group now. VFIO can be tried" in result["blockers"][0]["remedy"]
    assert result["group_count"] == 1
    assert codes(result) == ["unknown_platform"]


def test_units_of_an_unknown_kind(tree: SysfsTree) -> None:
    tree.write("/sys/class/iommu/virtio0/uevent", "")
    result = report(tree)
    assert result["state"] == "unknown"
    assert result["platform"] is None
    assert "units: virtio0" in result["evidence"]
    assert "such names are those of virtio-iommu, an IOMMU for virtual machines" in result["evidence"]
    assert "may have no active IOMMU" in result["blockers"][0]["message"]


def test_the_architecture_before_linux_6_1_comes_from_uname(tree: SysfsTree) -> None:
    tree.path("/proc/sys/kernel/arch").unlink()

    def uname(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        assert list(argv) == ["uname", "-m"]
        return Completed(tuple(argv), 0, "x86_64\n", "")

    assert iommu_report(tree.host(runner=uname))["architecture"] == "x86_64"

    assert iommu_report(tree.host(runner=answering({"uname": HANGS})))["state"] == "unknown"


@pytest.mark.parametrize(
    ("interrupts", "ecap", "flags", "cmdline", "supported", "enabled"),
    [
        (REMAPPED, 0xF00F5A, 1, "", True, True),
        (NOT_REMAPPED, 0xF00F5A, 1, "intremap=off", True, False),
        (NOT_REMAPPED, 0xF00F52, 1, "", False, False),
        (NOT_REMAPPED, 0xF00F5A, 0, "", False, False),
        ("", 0xF00F5A, 1, "", True, True),
        ("", 0xF00F5A, 1, "intremap=nosid,off", True, False),
        ("", 0xF00F5A, 1, "nointremap", True, False),
        ("", 0xF00F5A, 1, "nointremap intremap=on", True, True),
        ("", 0xF00F52, 1, "intremap=on", False, False),
        ("", None, None, "", None, None),
    ],
)
def test_interrupt_remapping_of_intel(
    tree: SysfsTree,
    interrupts: str,
    ecap: int | None,
    flags: int | None,
    cmdline: str,
    supported: bool | None,
    enabled: bool | None,
) -> None:
    tree.add_vtd(ecap=ecap, flags=flags or 0, table=flags is not None).set_cmdline(cmdline)
    tree.write("/proc/interrupts", interrupts).add_device("01:00.0", group=1)
    result = report(tree)
    assert result["state"] == "active"
    assert result["interrupt_remapping"]["supported"] is supported
    assert result["interrupt_remapping"]["enabled"] is enabled
    assert ("no_interrupt_remapping" in codes(result)) is (enabled is False)


@pytest.mark.parametrize("how", ["parameter", "option", "type1", "iommufd"])
def test_unsafe_interrupts_are_a_warning_once_they_are_allowed(tree: SysfsTree, how: str) -> None:
    active_vtd(tree).write("/proc/interrupts", NOT_REMAPPED)
    if how == "parameter":
        tree.set_cmdline("vfio_iommu_type1.allow-unsafe-interrupts=1")
    elif how == "option":
        tree.write("/etc/modprobe.d/vfio.conf", "options vfio-iommu-type1 allow_unsafe_interrupts=1\n")
    else:
        module = {"type1": "vfio_iommu_type1", "iommufd": "iommufd"}[how]
        tree.write(f"/sys/module/{module}/parameters/allow_unsafe_interrupts", "Y\n")
    result = report(tree)
    assert codes(result) == ["unsafe_interrupts"]
    assert result["blockers"][0]["severity"] == "warning"
    assert result["interrupt_remapping"]["allow_unsafe_interrupts"] is True


@pytest.mark.parametrize(
    ("cmdline", "loser", "winner"),
    [
        ("intel_iommu=off intel_iommu=on", "intel_iommu=off", "intel_iommu=on"),
        ("intremap=off intremap=on", "intremap=off", "intremap=on"),
        ("nointremap intremap=on", "nointremap", "intremap=on"),
        ("amd_iommu=off amd_iommu=on", "amd_iommu=on", "amd_iommu=off"),
        ("iommu=pt iommu.passthrough=0", "iommu=pt", "iommu.passthrough=0"),
    ],
)
def test_contradictions_name_what_counts(tree: SysfsTree, cmdline: str, loser: str, winner: str) -> None:
    active_vtd(tree).set_cmdline(cmdline)
    found = [blocker for blocker in report(tree)["blockers"] if blocker["code"] == "contradicting_parameters"]
    assert len(found) == 1
    assert f"with {loser} and with {winner}: the latter is what counts" in found[0]["message"]


def test_groups(tree: SysfsTree) -> None:
    active_vtd(tree)
    tree.add_device("00:1c.0", bridge=True, driver="pcieport", group=2)
    tree.add_device("02:00.0", driver="vfio-pci", group=2)
    tree.add_device("02:00.1", driver="pci-stub", group=2)
    tree.add_device("02:00.2", group=2)
    tree.add_group(7, type="identity", reserved=["0x1000 0x1fff direct", "0x2000 0x2fff direct-relaxable"])
    tree.add_device("00:1a.7", driver="ehci-pci", group=7)
    result = report(tree, with_groups=True)
    assert [(group["number"], group["viable"]) for group in result["groups"]] == [(1, False), (2, True), (7, False)]
    assert result["groups"][0]["bound_to_host"] == [{"address": "0000:01:00.0", "driver": "igb"}]
    assert result["groups"][1]["devices"] == ["0000:00:1c.0", "0000:02:00.0", "0000:02:00.1", "0000:02:00.2"]
    assert result["groups"][1]["reserved_regions"] == [{"start": "0xfee00000", "end": "0xfeefffff", "type": "msi"}]
    assert result["group_types"] == {"DMA": 2, "identity": 1}
    assert codes(result) == ["reserved_region"]
    assert result["blockers"][0]["devices"] == ["0000:00:1a.7"]
    assert "0x1000-0x1fff)" in result["blockers"][0]["message"]
    assert "groups" not in report(tree)


def test_an_active_iommu_without_groups(tree: SysfsTree) -> None:
    tree.add_vtd().write("/proc/interrupts", REMAPPED)
    assert codes(report(tree)) == ["no_iommu_groups"]


def test_what_cannot_be_read_is_named_and_the_rest_is_answered(tree: SysfsTree) -> None:
    active_vtd(tree)
    # A directory in a file's place cannot be read by anybody, whoever runs the tests.
    for path in ("/sys/firmware/acpi/tables/DMAR", "/proc/interrupts", "/sys/class/iommu/dmar0/intel-iommu/cap"):
        tree.path(path).unlink()
        tree.path(path).mkdir()
    result = report(tree)
    assert result["state"] == "active"
    assert result["firmware"] == {"acpi": True, "iommu_tables": ["DMAR"]}
    assert result["interrupt_remapping"]["enabled"] is True
    assert result["unreadable"] == [
        "/proc/interrupts",
        "/sys/class/iommu/dmar0/intel-iommu/cap",
        "/sys/firmware/acpi/tables/DMAR",
    ]


@pytest.mark.parametrize("table", [b"", b"DMAR", b"DMAR" + bytes(33)])
def test_a_truncated_table(tree: SysfsTree, table: bytes) -> None:
    active_vtd(tree).write("/sys/firmware/acpi/tables/DMAR", table)
    assert report(tree)["firmware"] == {"acpi": True, "iommu_tables": ["DMAR"]}


def test_an_empty_machine(tmp_path: Path) -> None:
    result = iommu_report(Host(str(tmp_path), runner=lambda argv, timeout, stdin: Completed(tuple(argv), 1, "", "")))
    assert result["state"] == "unknown"
    assert result["kernel"] is None
    assert result["group_count"] == 0


def test_a_host_is_asked_by_few_programs(tree: SysfsTree) -> None:
    """Each of them costs; all that a host can have are installed here."""
    active_vtd(tree).path("/run/systemd/system").mkdir(parents=True)
    for program in ("/usr/bin/systemctl", "/usr/sbin/virtqemud", "/usr/bin/virsh", "/usr/bin/qemu-system-x86_64"):
        tree.write(program, "").path(program).chmod(0o755)
    asked: list[str] = []

    def run(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        asked.append(argv[0].rpartition("/")[2])
        assert timeout <= 30
        return Completed(tuple(argv), 0, "", "")

    report(tree, tree.host(runner=run))
    assert sorted(asked) == ["qemu-system-x86_64", "systemctl", "virtqemud"]


def test_errors_are_told_before_warnings(tree: SysfsTree) -> None:
    active_vtd(tree).add_modules(available=[]).set_cmdline("pcie_acs_override=downstream")
    tree.write("/proc/interrupts", NOT_REMAPPED).path("/dev/kvm").unlink()
    result = report(tree)
    assert result["msg"] == (
        "The IOMMU (Intel VT-d) is active: 1 unit, 1 group, interrupt remapping off. Passthrough is not possible: "
        "no_interrupt_remapping, vfio_pci_missing. Look at: acs_override, no_kvm."
    )
    assert [each["severity"] for each in result["blockers"]] == ["error", "error", "warning", "warning"]
