# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""AMD I/O Virtualization Technology (AMD-Vi).

Sources: AMD I/O Virtualization Technology specification (IVRS table), drivers/iommu/amd/init.c,
Documentation/admin-guide/kernel-parameters.txt. The kernel uses it unless told otherwise; there is no parameter
that switches it on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import firmware, ivrs, parameters, verdicts, x86
from .machine import Machine, Unit
from .platform import Assessment, Claim, Platform, State

TABLE = ivrs.SIGNATURE
UNIT_PREFIX = "ivhd"


class AmdVi(Platform):
    """AMD-Vi."""

    code = "amd_vi"
    name = "AMD-Vi"
    architectures = x86.ARCHITECTURES

    def claim(self, machine: Machine) -> Claim:
        return x86.claim(machine, UNIT_PREFIX, TABLE)

    def assess(self, machine: Machine) -> Assessment:
        evidence = verdicts.active(machine, UNIT_PREFIX)
        if evidence is not None:
            return Assessment(
                State.ACTIVE,
                (evidence,),
                # Every AMD IOMMU has interrupt remapping tables; only the firmware's description can spoil it.
                remapping=x86.remapping(machine, True, ("every AMD IOMMU can remap interrupts",)),
                firmware=_firmware(machine),
            )
        return replace(self._inactive(machine), firmware=_firmware(machine))

    def _inactive(self, machine: Machine) -> Assessment:
        verdict = verdicts.assess_driver(machine, self.name, "CONFIG_AMD_IOMMU")
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
            return verdicts.off_by_parameter(self.name, text, tuple(present), tuple(unwanted))
        return verdicts.did_not_start(
            self.name, (f"the firmware has an {TABLE} table", "the kernel drives no IOMMU unit"), "AMD-Vi"
        )

    def describe(self, unit: Unit) -> dict[str, Any]:
        found = {"cap": f"0x{unit.registers['cap']}"} if "cap" in unit.registers else {}
        # "29d3:0" since Linux 6.7, which shows the second register, too.
        values = unit.registers.get("features", "").split(":")
        found.update({name: f"0x{value}" for name, value in zip(("features", "features2"), values) if value})
        return found


def _firmware(machine: Machine) -> dict[str, Any]:
    table = ivrs.parse(machine.acpi_table(TABLE))
    if table is None:
        return {}
    return {
        "ivrs_revision": table.revision,
        "ivrs_info": f"0x{table.info:08x}",
        "dma_protection": bool(table.info & ivrs.DMA_REMAP_SUPPORT),
        **firmware.as_result(table.units, table.memory),
    }
