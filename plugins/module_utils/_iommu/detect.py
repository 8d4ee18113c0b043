# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kind of IOMMU a host has. A new kind is one file beside this one and one line here."""

from __future__ import annotations

from . import x86
from .amd import AmdVi
from .intel import IntelVtd
from .machine import Machine
from .platform import Assessment, Blocker, Claim, Platform, State

PLATFORMS: tuple[Platform, ...] = (IntelVtd(), AmdVi())


def detect(machine: Machine) -> Platform | None:
    """The kind of IOMMU with the strongest evidence, or None when this host is of no kind that is known here."""
    here = [platform for platform in PLATFORMS if machine.architecture in platform.architectures]
    claims = {platform: platform.claim(machine) for platform in here}
    best = max(claims, key=lambda platform: claims[platform], default=None)
    return best if best is not None and claims[best] is not Claim.NONE else None


def assess(machine: Machine) -> tuple[Platform | None, Assessment]:
    """The kind of IOMMU, or None when nothing shows its kind, and what can be said of it."""
    platform = detect(machine)
    if platform is not None:
        return platform, platform.assess(machine)
    if machine.architecture in x86.ARCHITECTURES and not machine.units:
        return None, x86.assess_undescribed(machine)
    return None, _assess_unknown(machine)


def _assess_unknown(machine: Machine) -> Assessment:
    """What can be said of a host of no known kind: what there is to see, and that it is not understood."""
    if machine.architecture in {name for platform in PLATFORMS for name in platform.architectures}:
        reason = "the kernel drives IOMMU units of a kind this module does not know"
    else:
        reason = f"the architecture {machine.architecture or '(not known)'} is not one this module knows"
    evidence = [reason]
    if machine.units:
        evidence.append(f"units: {', '.join(unit.name for unit in machine.units)}")
    return Assessment(
        State.UNKNOWN,
        tuple(evidence),
        blockers=(
            Blocker(
                "unknown_platform",
                "warning",
                f"Whether this host has an active IOMMU is not known: {reason}.",
                "With an active IOMMU /sys/kernel/iommu_groups is not empty; it has "
                f"{len(machine.bus.groups())} groups now.",
            ),
        ),
    )
