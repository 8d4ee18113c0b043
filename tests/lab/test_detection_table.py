# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What ``iommu_info`` says of every kind of host: once as this file expects it, once as docs/platforms.md prints it.

The expectations come from what QEMU was told to emulate and how Debian builds its kernels, not
from the module. ``make lab-table`` writes the table of the page anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests import lab

from . import platform_table
from .controller import Controller


@dataclass(frozen=True)
class Host:
    """A row: a kind of host, the machine that is one, and what has to be said of it.

    ``blockers`` are codes, each with its severity.
    """

    title: str
    machine: str
    state: str
    platform: str | None
    snapshot: str | None = None
    recommended: tuple[str, ...] = ()
    to_remove: tuple[str, ...] = ()
    blockers: tuple[tuple[str, str], ...] = ()


# QEMU emulates neither VMX nor the SIE instruction of IBM Z, so that KVM cannot run there.
NO_VIRTUALIZATION = ("no_virtualization", "error")

HOSTS = (
    Host("Intel, active", "intel", "active", "intel_vtd", snapshot="iommu"),
    Host(
        "Intel, off by parameter",
        "intel",
        "disabled_by_parameter",
        "intel_vtd",
        snapshot="fresh",
        recommended=("intel_iommu=on",),
        blockers=(("iommu_disabled_by_parameter", "error"),),
    ),
    # Nothing is left of VT-d then, so nothing shows that the host would have it.
    Host(
        "Intel, off in firmware",
        "intel-firmware-off",
        "disabled_in_firmware",
        None,
        blockers=(("iommu_disabled_in_firmware", "error"), NO_VIRTUALIZATION),
    ),
    Host(
        "Intel, without interrupt remapping",
        "intel-no-remapping",
        "active",
        "intel_vtd",
        blockers=(("no_interrupt_remapping", "error"),),
    ),
    Host("AMD, active", "amd", "active", "amd_vi"),
    # There is nothing to set: it is on as soon as nothing says otherwise.
    Host(
        "AMD, off by parameter",
        "amd-off",
        "disabled_by_parameter",
        "amd_vi",
        to_remove=("amd_iommu=off",),
        blockers=(("iommu_disabled_by_parameter", "error"),),
    ),
    Host("Arm, active (device tree)", "arm64", "active", "arm_smmu"),
    Host("Arm, active (ACPI)", "arm64-acpi", "active", "arm_smmu"),
    Host("IBM Z, active", "s390x", "active", "ibm_z", blockers=(NO_VIRTUALIZATION,)),
    # CONFIG_VFIO is not set in Debian 12's kernel for s390x, while the IOMMU works.
    Host(
        "IBM Z, kernel without VFIO (Debian 12)",
        "s390x-debian12",
        "active",
        "ibm_z",
        blockers=(("vfio_pci_missing", "error"), NO_VIRTUALIZATION),
    ),
    # Off in firmware and not there look the same from the kernel.
    Host(
        "no IOMMU at all (Arm, device tree)",
        "arm64-no-iommu",
        "disabled_in_firmware",
        None,
        blockers=(("iommu_disabled_in_firmware", "error"),),
    ),
)


@pytest.mark.parametrize(
    "host", [pytest.param(host, id=host.title, marks=pytest.mark.lab(host.machine)) for host in HOSTS]
)
def test_detection_table(host: Host, request: pytest.FixtureRequest) -> None:
    machine: lab.Machine = request.getfixturevalue(f"{host.snapshot}_host" if host.snapshot else "small_machine")

    task = Controller(machine).module("iommu_info")

    assert task.status == "ok", task.result
    assert not task.changed
    result = task.result
    row = platform_table.format_row(host.title, result)
    if request.config.getoption("--write-table"):
        page = platform_table.PAGE.read_text(encoding="utf-8")
        page = platform_table.replace_rows(page, {host.title: row}, [each.title for each in HOSTS])
        platform_table.PAGE.write_text(page, encoding="utf-8")
    said = (
        result["state"],
        result["platform"],
        tuple(result["recommended_parameters"]),
        tuple(result["parameters_to_remove"]),
        {(blocker["code"], blocker["severity"]) for blocker in result["blockers"]},
    )
    assert said == (host.state, host.platform, host.recommended, host.to_remove, set(host.blockers)), result["msg"]
    assert result["evidence"]
    assert result["unreadable"] == []
    printed = platform_table.read_rows(platform_table.PAGE.read_text(encoding="utf-8"))
    assert printed.get(host.title) == row, f"{platform_table.PAGE} says otherwise; make lab-table writes it anew"
