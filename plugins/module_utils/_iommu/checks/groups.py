# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""IOMMU groups: how many, of what kind, and how far they can be trusted to keep guests apart."""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..domain import default_domain
from ..groups import Group
from ..platform import Assessment, Blocker, State
from .base import Context, Section


def check_groups(context: Context) -> Section:
    """The groups; a list of them only where it was asked for."""
    groups = context.groups
    types = Counter(group.type for group in groups if group.type is not None)
    fields: dict[str, Any] = {
        "group_count": len(groups),
        "group_types": dict(sorted(types.items())),
        "default_domain_type": default_domain(context.machine, groups),
    }
    if context.with_groups:
        fields["groups"] = [group.as_result() for group in groups]
    return Section(
        fields,
        (*_group_blockers(context.assessment, groups), *_override_blockers(context)),
    )


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


def _override_blockers(context: Context) -> list[Blocker]:
    """``pcie_acs_override`` is of kernels with a patch that upstream never took; others ignore it."""
    overrides = context.machine.command_line.named("pcie_acs_override")
    if not overrides:
        return []
    return [
        Blocker(
            "acs_override",
            "warning",
            f"The kernel was started with {' '.join(parameter.text for parameter in overrides)}. A kernel that knows "
            "it splits IOMMU groups which the hardware does not isolate, so a guest may reach devices of the host or "
            "of other guests; any other kernel ignores it.",
            "Remove it with kvm.passthrough.kernel_parameters, and give away only what is in one group without it.",
        )
    ]
