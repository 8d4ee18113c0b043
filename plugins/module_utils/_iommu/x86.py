# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Intel VT-d and AMD-Vi have in common."""

from __future__ import annotations

from . import parameters, verdicts
from .machine import ACPI_TABLES, Machine
from .platform import Assessment, Claim, Remapping

_SETTINGS = {
    "GenuineIntel": "Intel VT-d (Virtualization Technology for Directed I/O)",
    "AuthenticAMD": "the IOMMU (AMD-Vi)",
    "HygonGenuine": "the IOMMU (AMD-Vi)",
}
"""What the firmware setup calls it, by the processor's vendor."""

ARCHITECTURES = frozenset(("x86_64", "i686", "i586", "i486", "i386"))


def claim(machine: Machine, unit_prefix: str, table: str) -> Claim:
    """How strong the evidence is: units of this prefix, else the firmware's table."""
    if verdicts.units_of(machine, unit_prefix):
        return Claim.UNITS
    return Claim.FIRMWARE if table in (machine.acpi_tables or ()) else Claim.NONE


def assess_undescribed(machine: Machine) -> Assessment:
    """The verdict for a host without IOMMU units, whose firmware describes none."""
    if machine.acpi_tables is None:
        return verdicts.firmware_hidden((f"the firmware's tables cannot be seen: {ACPI_TABLES} is missing or empty",))
    evidence = ["the kernel drives no IOMMU unit", "the firmware has neither a DMAR nor an IVRS table"]
    setting = _SETTINGS.get(machine.cpu_vendor or "", "Intel VT-d or the AMD IOMMU")
    remedy = f"Switch on {setting} in the firmware setup of this host and start it again."
    if machine.is_virtual_machine:
        evidence.append("this host is itself a virtual machine (processor flag hypervisor)")
        remedy = "Give this virtual machine a virtual IOMMU, and start it again."
    return verdicts.off_in_firmware(
        tuple(evidence),
        "The firmware offers no IOMMU to the kernel (it has neither a DMAR nor an IVRS table): "
        "it is switched off there, or the hardware has none. No kernel parameter can change that.",
        remedy,
    )


def remapping(machine: Machine, supported: bool | None, evidence: tuple[str, ...]) -> Remapping:
    """Interrupt remapping of an active IOMMU: what the kernel does, else what hardware and parameters allow."""
    switch = parameters.interrupt_remapping(machine.command_line)
    if switch.on is False:
        evidence = (*evidence, f"the kernel was started with {switch.text}")
    enabled = machine.interrupts_are_remapped
    if enabled is not None:
        names = "names with" if enabled else "no name with"
        evidence = (*evidence, f"/proc/interrupts has {names} IR-")
    elif switch.on is False or supported is False:
        enabled = False
    else:
        enabled = supported
    return Remapping(supported, enabled, evidence)
