# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answer to "can this host do PCI passthrough, and if not, why": what the module iommu_info returns."""

from __future__ import annotations

from collections import Counter
from typing import Any

from .._core.host import Host
from . import parameters
from .detect import assess
from .groups import Group, read_groups
from .machine import Machine
from .platform import Assessment, Blocker, Platform, State
from .vfio import VfioPci, unsafe_interrupts_allowed, vfio_pci

# The firmware tables that describe an IOMMU, on any platform.
IOMMU_TABLES = frozenset(("DMAR", "IVRS", "IORT", "VIOT", "RIMT"))

_STATES = {
    State.ACTIVE: "is active",
    State.DISABLED_BY_PARAMETER: "is switched off by a kernel parameter",
    State.DISABLED_BY_DEFAULT: "is not used, since the kernel was not told to",
    State.DISABLED_IN_FIRMWARE: "is off in the firmware, or there is none",
    State.UNSUPPORTED: "is not supported by the running kernel",
    State.UNKNOWN: "is in a state that is not known",
}


def iommu_report(host: Host, with_groups: bool = False) -> dict[str, Any]:
    """Everything about the host's IOMMU, as the result of the module.

    :param with_groups: whether to list every group
    """
    machine = Machine(host)
    platform, assessment = assess(machine)
    groups = read_groups(machine.bus)
    vfio = vfio_pci(machine)
    unsafe = unsafe_interrupts_allowed(machine)
    blockers = [
        *assessment.blockers,
        *_contradictions(machine),
        *_remapping_blockers(assessment, unsafe),
        *_group_blockers(assessment, groups),
        *_vfio_blockers(machine, vfio),
        *_kvm_blockers(machine),
    ]
    blockers.sort(key=lambda blocker: blocker.severity != "error")
    types = Counter(str(group.type) for group in groups if group.type is not None)
    result: dict[str, Any] = {
        "msg": _summary(platform, assessment, machine, groups, blockers),
        "state": assessment.state.value,
        "platform": None if platform is None else platform.code,
        "platform_name": None if platform is None else platform.name,
        "evidence": list(assessment.evidence),
        "recommended_parameters": list(assessment.recommended),
        "parameters_to_remove": list(assessment.unwanted),
        "running_parameters": parameters.relevant(machine.command_line),
        "blockers": [blocker.as_result() for blocker in blockers],
        "architecture": machine.architecture,
        "kernel": machine.kernel,
        "cpu": {
            "vendor": machine.cpu_vendor,
            "virtualization": machine.virtualization_flag,
            "is_virtual_machine": machine.is_virtual_machine,
        },
        "firmware": {
            "acpi": machine.acpi_tables is not None,
            "iommu_tables": sorted(IOMMU_TABLES & (machine.acpi_tables or frozenset())),
            **assessment.firmware,
        },
        "units": [
            {"name": unit.name, "devices": unit.devices, **({} if platform is None else platform.describe(unit))}
            for unit in machine.units
        ],
        "interrupt_remapping": {
            "supported": assessment.remapping.supported,
            "enabled": assessment.remapping.enabled,
            "evidence": list(assessment.remapping.evidence),
            "allow_unsafe_interrupts": unsafe,
        },
        "group_count": len(groups),
        "group_types": dict(sorted(types.items())),
        "vfio_pci": vfio.as_result(),
        "kvm": machine.has_kvm,
        "lockdown": machine.lockdown,
    }
    if with_groups:
        result["groups"] = [group.as_result() for group in groups]
    result["unreadable"] = sorted(machine.unreadable)
    return result


def _summary(
    platform: Platform | None,
    assessment: Assessment,
    machine: Machine,
    groups: list[Group],
    blockers: list[Blocker],
) -> str:
    name = "The IOMMU" if platform is None else f"The IOMMU ({platform.name})"
    text = f"{name} {_STATES[assessment.state]}."
    if assessment.state is State.ACTIVE:
        remapping = {True: "on", False: "off", None: "not known"}[assessment.remapping.enabled]
        text = (
            f"{name} is active: {len(machine.units)} unit{'' if len(machine.units) == 1 else 's'}, "
            f"{len(groups)} group{'' if len(groups) == 1 else 's'}, interrupt remapping {remapping}."
        )
    errors = [blocker.code for blocker in blockers if blocker.severity == "error"]
    warnings = [blocker.code for blocker in blockers if blocker.severity != "error"]
    if errors:
        text += f" Passthrough is not possible: {', '.join(errors)}."
    if warnings:
        text += f" Look at: {', '.join(dict.fromkeys(warnings))}."
    if not blockers:
        text += " Nothing stands against passthrough."
    return text


def _contradictions(machine: Machine) -> list[Blocker]:
    line = machine.command_line
    found = []
    for switch in (
        parameters.intel_iommu(line),
        parameters.amd_iommu(line),
        parameters.iommu(line),
        parameters.interrupt_remapping(line),
        parameters.identity(line, on_x86=bool(machine.cpu_flags)),
    ):
        if switch.contradicting:
            others = " ".join(parameter.text for parameter in switch.contradicting)
            found.append(
                Blocker(
                    "contradicting_parameters",
                    "warning",
                    f"The kernel was started with {others} and with {switch.text}: the latter is what counts.",
                    "Say it once, with kvm.passthrough.kernel_parameters.",
                )
            )
    return found


def _remapping_blockers(assessment: Assessment, unsafe: bool) -> list[Blocker]:
    if assessment.state is not State.ACTIVE or assessment.remapping.enabled is not False:
        return []
    why = "; ".join(assessment.remapping.evidence)
    if unsafe:
        return [
            Blocker(
                "unsafe_interrupts",
                "warning",
                f"Interrupt remapping is off ({why}), and VFIO was told to do without: "
                "a guest can send interrupts to the host and to other guests.",
                "Switch interrupt remapping on in firmware or kernel, and remove allow_unsafe_interrupts.",
            )
        ]
    return [
        Blocker(
            "no_interrupt_remapping",
            "error",
            f"Interrupt remapping is off ({why}). VFIO refuses devices without it, since a guest could send "
            "interrupts to the host.",
            assessment.remapping.remedy,
        )
    ]


def _group_blockers(assessment: Assessment, groups: list[Group]) -> list[Blocker]:
    if assessment.state is State.ACTIVE and assessment.groups_complete and not groups:
        return [
            Blocker(
                "no_iommu_groups",
                "error",
                "The IOMMU is active, but no device is in an IOMMU group.",
                "dmesg of the host says why; update its firmware and kernel.",
            )
        ]
    found = []
    for group in groups:
        if group.blocking_regions:
            regions = ", ".join(f"0x{region.start:x}-0x{region.end:x}" for region in group.blocking_regions)
            found.append(
                Blocker(
                    "reserved_region",
                    "warning",
                    f"The firmware keeps memory ({regions}) mapped for the devices of IOMMU group {group.number}, "
                    "which the kernel therefore does not give to guests.",
                    "Switch off in the firmware what uses it (often the shared management of a network or storage "
                    "controller), or choose another device.",
                    tuple(str(address) for address in group.members),
                )
            )
    return found


def _vfio_blockers(machine: Machine, vfio: VfioPci) -> list[Blocker]:
    if vfio.available:
        return []
    if vfio.available is None:
        return [
            Blocker(
                "kernel_modules_missing",
                "warning",
                f"Whether the running kernel {machine.kernel} has the driver vfio-pci is not known: "
                f"/lib/modules/{machine.kernel} is not there.",
                "When the kernel was upgraded or removed since the host was started, reboot the host.",
            )
        ]
    return [
        Blocker(
            "vfio_pci_missing",
            "error",
            f"The running kernel {machine.kernel} has no driver vfio-pci, neither built in nor as a module.",
            "Install the kernel package that has it (often named linux-modules-extra or kernel-modules-extra), "
            "or boot another kernel.",
        )
    ]


def _kvm_blockers(machine: Machine) -> list[Blocker]:
    if machine.has_kvm:
        return []
    on_x86 = bool(machine.cpu_flags)
    if machine.lacks_virtualization:
        flags = "neither vmx nor svm is among its flags" if on_x86 else "sie is not among its features"
        where = "Switch on Intel VT-x or AMD SVM in the firmware setup; in" if on_x86 else "In"
        return [
            Blocker(
                "no_virtualization",
                "error",
                f"The processor offers no hardware virtualization ({flags}), so KVM cannot run guests here.",
                f"{where} a virtual machine, nested virtualization has to be switched on by its host.",
            )
        ]
    return [
        Blocker(
            "no_kvm",
            "warning",
            "/dev/kvm is not there, so KVM cannot run guests now.",
            "Load the module kvm_intel or kvm_amd; dmesg says what hinders it."
            if on_x86
            else "Load the module kvm. On Arm the kernel has to be started at EL2, which is the firmware's decision; "
            "dmesg says (look for kvm).",
        )
    ]
