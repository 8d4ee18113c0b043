# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""AMD I/O Virtualization Technology (AMD-Vi).

Sources: AMD I/O Virtualization Technology specification (IVRS table), drivers/iommu/amd/init.c,
Documentation/admin-guide/kernel-parameters.txt. The kernel uses it unless told otherwise; there is no parameter
that switches it on.
"""

from __future__ import annotations

from typing import Any

from . import parameters, x86
from .machine import Machine, Unit
from .platform import Assessment, Blocker, Claim, Platform, State

TABLE = "IVRS"
UNIT_PREFIX = "ivhd"


class AmdVi(Platform):
    """AMD-Vi."""

    code = "amd_vi"
    name = "AMD-Vi"
    architectures = x86.ARCHITECTURES

    def claim(self, machine: Machine) -> Claim:
        return x86.claim(machine, UNIT_PREFIX, TABLE)

    def assess(self, machine: Machine) -> Assessment:
        evidence = x86.active(machine, UNIT_PREFIX)
        if evidence is not None:
            return Assessment(
                State.ACTIVE,
                (evidence,),
                # Every AMD IOMMU has interrupt remapping tables; only the firmware's description can spoil it.
                remapping=x86.remapping(machine, True, ("every AMD IOMMU can remap interrupts",)),
                blockers=_warnings(machine),
            )
        verdict = x86.assess_driver(machine, self.name, "CONFIG_AMD_IOMMU")
        if verdict is not None:
            return verdict
        line = machine.command_line
        offs = [switch for switch in (parameters.amd_iommu(line), parameters.iommu(line)) if switch.on is False]
        if offs:
            present: list[str] = []
            unwanted: list[str] = []
            for key in ("amd_iommu", "iommu"):
                to_set, to_remove = parameters.without_off(line.named(key))
                present += to_set
                unwanted += to_remove
            text = " ".join(switch.text for switch in offs)
            return x86.off_by_parameter(machine, self.name, text, tuple(present), tuple(unwanted))
        return x86.did_not_start(self.name, (f"the firmware has an {TABLE} table", "no unit is active"), "AMD-Vi")

    def describe(self, unit: Unit) -> dict[str, Any]:
        return {name: f"0x{unit.registers[name]}" for name in ("cap", "features") if name in unit.registers}


def _warnings(machine: Machine) -> tuple[Blocker, ...]:
    wanted_on = [
        parameter.text
        for parameter in machine.command_line.named("amd_iommu")
        if "on" in (parameter.value or "").split(",")
    ]
    if not wanted_on:
        return ()
    return (
        Blocker(
            "parameter_without_effect",
            "warning",
            f"The kernel was started with {' '.join(wanted_on)}, which means nothing to it: AMD-Vi is on by itself.",
            "Remove it with kvm.passthrough.kernel_parameters.",
        ),
    )
