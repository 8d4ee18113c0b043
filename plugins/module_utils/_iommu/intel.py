# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Intel Virtualization Technology for Directed I/O (VT-d).

Sources: Intel VT-d specification (section 8.1 DMAR table; 11.4.3 extended capability register),
drivers/iommu/intel/iommu.c, Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import parameters, x86
from .machine import Machine, Unit
from .platform import Assessment, Blocker, Claim, Platform, State

TABLE = "DMAR"
UNIT_PREFIX = "dmar"

# Behind the 36 bytes of every ACPI table's header: host address width, then the flags.
_FLAGS_OFFSET = 37
_FLAG_INTERRUPT_REMAPPING = 1 << 0
_ECAP_INTERRUPT_REMAPPING = 1 << 3


class IntelVtd(Platform):
    """VT-d."""

    code = "intel_vtd"
    name = "Intel VT-d"
    architectures = x86.ARCHITECTURES

    def claim(self, machine: Machine) -> Claim:
        return x86.claim(machine, UNIT_PREFIX, TABLE)

    def assess(self, machine: Machine) -> Assessment:
        evidence = x86.active(machine, UNIT_PREFIX)
        firmware = _firmware(machine)
        if evidence is not None:
            supported, sources = _remapping_support(machine, firmware)
            return Assessment(
                State.ACTIVE, (evidence,), remapping=x86.remapping(machine, supported, sources), firmware=firmware
            )
        return replace(self._inactive(machine), firmware=firmware)

    def _inactive(self, machine: Machine) -> Assessment:
        verdict = x86.assess_driver(machine, self.name, "CONFIG_INTEL_IOMMU")
        if verdict is not None:
            return verdict
        line = machine.command_line
        own = parameters.intel_iommu(line)
        everything = parameters.iommu(line)
        on = ",".join(["on", *parameters.other_items(line.named("intel_iommu"))])
        present, unwanted = parameters.without_off(line.named("iommu"))
        recommended = (f"intel_iommu={on}", *present)
        if own.on is False or everything.on is False:
            texts = [switch.text for switch in (own, everything) if switch.on is False]
            return x86.off_by_parameter(machine, self.name, " ".join(texts), recommended, tuple(unwanted))
        evidence = [f"the firmware has a {TABLE} table"]
        if own.on:
            evidence += [f"the kernel was started with {own.text}", "it drives no IOMMU unit"]
            return x86.did_not_start(self.name, tuple(evidence), "DMAR")
        evidence.append("the kernel was started without intel_iommu=on or off")
        config = machine.kernel_config
        if config is not None:
            # Debian's kernels have a variant of their own, CONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF.
            option = next((name for name in config if name.startswith("CONFIG_INTEL_IOMMU_DEFAULT_ON")), None)
            if option is not None:
                evidence += [f"it was built with {option}", "it drives no IOMMU unit"]
                return x86.did_not_start(self.name, tuple(evidence), "DMAR")
            evidence.append("it was built without CONFIG_INTEL_IOMMU_DEFAULT_ON")
        else:
            evidence += ["it drives no IOMMU unit", "what it was built with is not known"]
        return Assessment(
            State.DISABLED_BY_DEFAULT,
            tuple(evidence),
            recommended,
            blockers=(
                Blocker(
                    "iommu_disabled_by_default",
                    "error",
                    f"The firmware offers {self.name}, but this kernel "
                    + (
                        "does not use it, most likely because it wants to be told to."
                        if config is None
                        else "uses it only when it is told to."
                    ),
                    f"Set {recommended[0]} with kvm.passthrough.kernel_parameters, then reboot the host.",
                ),
            ),
        )

    def describe(self, unit: Unit) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: f"0x{unit.registers[name]}" for name in ("cap", "ecap") if name in unit.registers
        }
        found.update({name: unit.registers[name] for name in ("address", "version") if name in unit.registers})
        ecap = _number(unit.registers.get("ecap"))
        if ecap is not None:
            found["interrupt_remapping"] = bool(ecap & _ECAP_INTERRUPT_REMAPPING)
        return found


def _firmware(machine: Machine) -> dict[str, Any]:
    table = machine.acpi_table(TABLE)
    if table is None or len(table) <= _FLAGS_OFFSET:
        return {}
    flags = table[_FLAGS_OFFSET]
    return {"dmar_flags": f"0x{flags:02x}", "interrupt_remapping": bool(flags & _FLAG_INTERRUPT_REMAPPING)}


def _remapping_support(machine: Machine, firmware: dict[str, Any]) -> tuple[bool | None, tuple[str, ...]]:
    """Whether every unit can remap interrupts and the firmware allows it, and how that is known."""
    evidence = []
    verdicts = []
    for unit in machine.units:
        ecap = _number(unit.registers.get("ecap"))
        if ecap is not None:
            able = bool(ecap & _ECAP_INTERRUPT_REMAPPING)
            verdicts.append(able)
            evidence.append(f"bit 3 of the extended capabilities of {unit.name} is {int(able)}")
    if "interrupt_remapping" in firmware:
        verdicts.append(firmware["interrupt_remapping"])
        evidence.append(f"bit 0 of the flags of the {TABLE} table is {int(firmware['interrupt_remapping'])}")
    return (all(verdicts) if verdicts else None), tuple(evidence)


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None
