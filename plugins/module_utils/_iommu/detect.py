# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kind of IOMMU a host has. A new kind is one file beside this one and one line here."""

from __future__ import annotations

from dataclasses import replace

from . import arm, x86
from .amd import AmdVi
from .arm import ArmSmmu
from .ineffective import ineffective
from .intel import IntelVtd
from .machine import Machine
from .platform import Assessment, Blocker, Claim, Platform, State
from .s390 import IbmZ
from .verdicts import count, shortened

PLATFORMS: tuple[Platform, ...] = (IntelVtd(), AmdVi(), ArmSmmu(), IbmZ())

# What the kernel names the units of other kinds, so that a person learns at least what was found.
_OTHER_UNITS = {"virtio": "virtio-iommu, an IOMMU for virtual machines", "riscv-iommu": "the IOMMU of RISC-V"}

_OTHER_TABLES = {"VIOT": "virtio-iommu, an IOMMU for virtual machines", "RIMT": "the IOMMU of RISC-V"}


def detect(machine: Machine) -> Platform | None:
    """The kind of IOMMU with the strongest evidence, or None when this host is of no kind that is known here."""
    here = [platform for platform in PLATFORMS if machine.architecture in platform.architectures]
    claims = {platform: platform.claim(machine) for platform in here}
    best = max(claims, key=lambda platform: claims[platform], default=None)
    return best if best is not None and claims[best] is not Claim.NONE else None


def assess(machine: Machine) -> tuple[Platform | None, Assessment]:
    """The kind of IOMMU, or None when nothing shows its kind, and what can be said of it."""
    platform, assessment = _assess(machine)
    evidence = assessment.evidence
    if machine.container is not None:
        evidence = (
            *evidence,
            f"this was asked in a container ({machine.container}), which may not show what the host has",
        )
    blockers = (*assessment.blockers, *ineffective(machine, platform, assessment.state is State.ACTIVE))
    return platform, replace(assessment, evidence=evidence, blockers=blockers)


def _assess(machine: Machine) -> tuple[Platform | None, Assessment]:
    if machine.is_xen_dom0:
        return None, _assess_xen()
    platform = detect(machine)
    if platform is not None:
        return platform, platform.assess(machine)
    if machine.units or _other_tables(machine):
        return None, _assess_unknown(machine)
    if machine.architecture in x86.ARCHITECTURES:
        return None, x86.assess_undescribed(machine)
    if machine.architecture in arm.ARCHITECTURES:
        return None, arm.assess_undescribed(machine)
    return None, _assess_unknown(machine)


def _assess_xen() -> Assessment:
    return Assessment(
        State.UNKNOWN,
        ("this is the control domain of a Xen hypervisor (/proc/xen/capabilities or /sys/hypervisor/start_flags)",),
        blockers=(
            Blocker(
                "xen_dom0",
                "error",
                "This host runs on the Xen hypervisor, which keeps the IOMMU to itself: there is no KVM and no VFIO.",
                "Boot the kernel without Xen, or give devices to guests with Xen's own tools (xl pci-assignable-add).",
            ),
        ),
    )


def _other_tables(machine: Machine) -> list[str]:
    """The tables of the firmware that describe an IOMMU of a kind that is not known here."""
    return [name for name in _OTHER_TABLES if name in (machine.acpi_tables or ())]


def _assess_unknown(machine: Machine) -> Assessment:
    """What can be said of a host of no known kind: what there is to see, and that it is not understood."""
    groups = len(machine.bus.groups())
    names = [unit.name for unit in machine.units]
    tables = _other_tables(machine)
    if machine.architecture in {name for platform in PLATFORMS for name in platform.architectures}:
        who = "the kernel drives IOMMU units" if names else "the kernel drives no IOMMU, and the firmware describes one"
        reason = f"{who} of a kind this module does not know"
    else:
        reason = f"the architecture {machine.architecture or '(not known)'} is not one this module knows"
    evidence = [reason]
    if names:
        evidence.append(f"units: {shortened(names)}")
    kinds = {text for prefix, text in _OTHER_UNITS.items() if any(name.startswith(prefix) for name in names)}
    evidence += [f"such names are those of {kind}" for kind in sorted(kinds)]
    evidence += [f"the firmware has a {name} table, which describes {_OTHER_TABLES[name]}" for name in tables]
    evidence.append(f"the kernel has {count(groups, 'IOMMU group')}")
    return Assessment(
        State.UNKNOWN,
        tuple(evidence),
        blockers=(
            Blocker(
                "unknown_platform",
                "warning",
                f"This host {'seems to have an active IOMMU' if groups else 'may have no active IOMMU'}, "
                f"but that is not certain: {reason}.",
                f"With an active IOMMU /sys/kernel/iommu_groups is not empty; it has {count(groups, 'group')} now."
                + (" VFIO can be tried." if groups else ""),
            ),
        ),
    )
