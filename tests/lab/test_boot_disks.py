# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As test_boot_loaders, on disks of other architectures: the boot loader's own tools, and kernels that it starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests import lab

from .controller import Controller, quadruple
from .test_boot_loaders import DASHED, DYNAMIC_DEBUG, HOSTILE, TAME, UNDERSCORED, command_line, read_only

SWITCHED_ON, SWITCHED_OFF = "iommu.passthrough=1", "iommu.passthrough=0"
INSTALL_SECOND_KERNEL = "sudo /usr/lib/kvm-passthrough-lab/install-second-kernel"


@dataclass(frozen=True)
class Disk:
    """What is to be seen on a machine."""

    loader: str
    evidence: str
    """What its evidence begins with."""
    settings: str
    """The file in which the parameters are."""
    hostile: str = HOSTILE


DISKS = {
    "s390x-zipl": Disk(
        "zipl",
        "/sys/firmware/ipl/ipl_type says ",
        "/etc/zipl.conf",
        # One that is not ASCII is refused: the kernel would take all of the line for EBCDIC.
        HOSTILE.replace(" é", ""),
    ),
    "arm64-uboot": Disk("extlinux", "the device tree says U-Boot ", "/etc/default/u-boot"),
}


@pytest.mark.full
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.lab(name)) for name in DISKS])
def test_parameters_reach_every_kernel_until_they_are_removed(small_machine: lab.Machine, name: str) -> None:
    disk, machine, ansible = DISKS[name], small_machine, Controller(small_machine)
    before = machine.ssh(f"cat {disk.settings}").stdout
    first_kernel = machine.ssh("uname -r").stdout.strip()
    assert f" {SWITCHED_OFF} " in command_line(machine)

    refused(machine, ansible, disk)
    assert machine.ssh(f"cat {disk.settings}").stdout == before

    # Set: one that contradicts what is there, and one of each kind that is hard to spell.
    wanted = [SWITCHED_ON, disk.hostile, DYNAMIC_DEBUG, DASHED]
    result = quadruple(ansible, "kernel_parameters", {"present": wanted, "absent": ["nosuch"]})
    assert result["bootloader"]["name"] == disk.loader
    assert result["bootloader"]["evidence"][0].startswith(disk.evidence), result["bootloader"]
    assert result["reboot_required"]
    machine.reboot()
    running = command_line(machine)
    for parameter in wanted:
        assert f" {parameter} " in running, running
    assert SWITCHED_OFF not in running

    # Replaced, and removed; a kernel that is installed afterwards has it, too, and is booted.
    request = {"present": [SWITCHED_ON, TAME, UNDERSCORED], "absent": ["dyndbg"]}
    quadruple(ansible, "kernel_parameters", request)
    second_kernel = machine.ssh(INSTALL_SECOND_KERNEL).stdout.strip()
    settled = ansible.module("kernel_parameters", request)
    assert settled.status == "ok", settled.result
    assert not settled.changed, settled.result
    machine.reboot()
    running = command_line(machine)
    assert machine.ssh("uname -r").stdout.strip() == second_kernel != first_kernel
    for parameter in (SWITCHED_ON, TAME, UNDERSCORED):
        assert f" {parameter} " in running, running
    for absent in ("lab.note=x", "dyndbg", DASHED, SWITCHED_OFF):
        assert absent not in running, running

    quadruple(ansible, "kernel_parameters", {"present": [SWITCHED_OFF], "absent": ["lab.note", "vfio-pci.ids"]})
    assert machine.ssh(f"cat {disk.settings}").stdout == before
    machine.reboot()
    running = command_line(machine)
    assert f" {SWITCHED_OFF} " in running
    for absent in ("lab.note", "vfio", SWITCHED_ON):
        assert absent not in running, running


def refused(machine: lab.Machine, ansible: Controller, disk: Disk) -> None:
    """A read-only /boot, and what this boot loader cannot say, in check mode and in a run."""
    cases: list[tuple[str, str, Callable[[], contextlib.AbstractContextManager[None]]]] = [
        (SWITCHED_ON, "file_unwritable", lambda: read_only(machine, "/boot"))
    ]
    if disk.hostile != HOSTILE:
        cases.append((HOSTILE, "value_not_representable", contextlib.nullcontext))
    for text, code, circumstances in cases:
        with circumstances():
            for check in (True, False):
                task = ansible.module("kernel_parameters", {"present": [text]}, check=check)
                assert task.status == "failed", task.result
                assert [problem["code"] for problem in task.result["problems"]] == [code], task.result
