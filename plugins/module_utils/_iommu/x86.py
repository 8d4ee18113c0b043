# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Intel VT-d and AMD-Vi have in common."""

from __future__ import annotations

from . import parameters
from .machine import ACPI_TABLES, Machine
from .platform import Assessment, Blocker, Claim, Remapping, State

_SETTINGS = {
    "GenuineIntel": "Intel VT-d (Virtualization Technology for Directed I/O)",
    "AuthenticAMD": "the IOMMU (AMD-Vi)",
    "HygonGenuine": "the IOMMU (AMD-Vi)",
}
"""What the firmware setup calls it, by the processor's vendor."""

ARCHITECTURES = frozenset(("x86_64", "i686", "i586", "i486", "i386"))


def claim(machine: Machine, unit_prefix: str, table: str) -> Claim:
    """How strong the evidence is: units of this prefix, else the firmware's table."""
    if any(unit.name.startswith(unit_prefix) for unit in machine.units):
        return Claim.UNITS
    return Claim.FIRMWARE if table in (machine.acpi_tables or ()) else Claim.NONE


def active(machine: Machine, unit_prefix: str) -> str | None:
    """Evidence that the IOMMU is active: the kernel registers units only when it has started translation."""
    names = [unit.name for unit in machine.units if unit.name.startswith(unit_prefix)]
    if not names:
        return None
    return f"the kernel drives {len(names)} IOMMU unit{'' if len(names) == 1 else 's'}: {', '.join(names)}"


def assess_undescribed(machine: Machine) -> Assessment:
    """The verdict for a host without IOMMU units, whose firmware describes none."""
    if machine.acpi_tables is None:
        return Assessment(
            State.UNKNOWN,
            (
                "the kernel drives no IOMMU unit",
                f"the firmware's tables cannot be seen: {ACPI_TABLES} is missing or empty",
            ),
            blockers=(
                Blocker(
                    "iommu_state_unknown",
                    "error",
                    "No IOMMU is active, and whether the firmware offers one cannot be seen.",
                    "Run the module on the host itself, not in a container, and see that the firmware has ACPI on.",
                ),
            ),
        )
    evidence = ["the kernel drives no IOMMU unit", "the firmware has neither a DMAR nor an IVRS table"]
    setting = _SETTINGS.get(machine.cpu_vendor or "", "Intel VT-d or the AMD IOMMU")
    remedy = f"Switch on {setting} in the firmware setup of this host and start it again."
    if "hypervisor" in machine.cpu_flags:
        evidence.append("this host is itself a virtual machine (processor flag hypervisor)")
        remedy = "Give this virtual machine a virtual IOMMU, and start it again."
    return Assessment(
        State.DISABLED_IN_FIRMWARE,
        tuple(evidence),
        blockers=(
            Blocker(
                "iommu_disabled_in_firmware",
                "error",
                "The firmware offers no IOMMU to the kernel (it has neither a DMAR nor an IVRS table): "
                "it is switched off there, or the hardware has none. No kernel parameter can change that.",
                remedy,
            ),
        ),
    )


def assess_driver(machine: Machine, name: str, option: str) -> Assessment | None:
    """The verdict for a kernel that was built without the driver; None when it has it, or nothing says."""
    config = machine.kernel_config
    if config is None or config.get(option) == "y":
        return None
    return Assessment(
        State.UNSUPPORTED,
        (f"the kernel {machine.kernel} was built without {option}",),
        blockers=(
            Blocker(
                "iommu_unsupported",
                "error",
                f"The running kernel {machine.kernel} has no driver for {name} ({option} is not set).",
                "Boot a kernel of the distribution that has it.",
            ),
        ),
    )


def off_by_parameter(
    machine: Machine, name: str, text: str, recommended: tuple[str, ...], unwanted: tuple[str, ...]
) -> Assessment:
    """The verdict for an IOMMU that the command line switches off."""
    steps = []
    if recommended:
        steps.append(f"set {' '.join(recommended)}")
    if unwanted:
        steps.append(f"remove {' '.join(unwanted)}")
    return Assessment(
        State.DISABLED_BY_PARAMETER,
        (f"the kernel was started with {text}",),
        recommended,
        unwanted,
        blockers=(
            Blocker(
                "iommu_disabled_by_parameter",
                "error",
                f"{name} is switched off by the kernel parameter {text}.",
                f"With kvm.passthrough.kernel_parameters, {' and '.join(steps)}; then reboot the host.",
            ),
        ),
    )


def did_not_start(name: str, evidence: tuple[str, ...], word: str) -> Assessment:
    """The verdict for an IOMMU that nothing switches off, and that is not active all the same."""
    return Assessment(
        State.UNKNOWN,
        evidence,
        blockers=(
            Blocker(
                "iommu_not_started",
                "error",
                f"The firmware offers {name} and nothing switches it off, but the kernel did not start it.",
                f"dmesg of the host says why (look for {word}): most often the firmware's table is defective; "
                "update the firmware.",
            ),
        ),
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
