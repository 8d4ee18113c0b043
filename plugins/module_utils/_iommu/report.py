# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answer to "can this host do PCI passthrough, and if not, why": what the module iommu_info returns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core.host import Host
from .checks.base import Context
from .checks.registry import CHECKS
from .configured import read_configured, with_configuration
from .detect import assess
from .groups import read_groups
from .machine import Machine
from .platform import Blocker, State
from .verdicts import count

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
    configured = read_configured(machine)
    context = Context(
        machine=machine,
        platform=platform,
        assessment=with_configuration(machine, platform, assessment, configured),
        configured=configured,
        groups=read_groups(machine.bus),
        with_groups=with_groups,
    )
    sections = [check(context) for check in CHECKS]
    blockers = [blocker for section in sections for blocker in section.blockers]
    blockers.sort(key=lambda blocker: blocker.severity != "error")
    result: dict[str, Any] = {"msg": _summary(context, blockers)}
    for section in sections:
        result.update(section.fields)
    result["blockers"] = [blocker.as_result() for blocker in blockers]
    result["unreadable"] = sorted(set(machine.unreadable))
    return result


def _summary(context: Context, blockers: list[Blocker]) -> str:
    """The verdict, then what makes passthrough impossible, then what else to look at."""
    platform, assessment = context.platform, context.assessment
    name = "The IOMMU" if platform is None else f"The IOMMU ({platform.name})"
    text = f"{name} {_STATES[assessment.state]}."
    if assessment.state is State.ACTIVE:
        remapping = {True: "on", False: "off", None: "not known"}[assessment.remapping.enabled]
        text = (
            f"{name} is active: {count(len(context.machine.units), 'unit')}, "
            f"{count(len(context.groups), 'group')}, interrupt remapping {remapping}."
        )
    errors = _codes(blocker for blocker in blockers if blocker.severity == "error")
    warnings = _codes(blocker for blocker in blockers if blocker.severity != "error")
    if errors:
        text += f" Passthrough is not possible: {errors}."
    if warnings:
        text += f" Look at: {warnings}."
    if not blockers:
        text += " Nothing stands against passthrough."
    return text


def _codes(blockers: Iterable[Blocker]) -> str:
    return ", ".join(dict.fromkeys(blocker.code for blocker in blockers))
