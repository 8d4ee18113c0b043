# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kernel parameters: those of the running kernel, those of the next, and what contradicts itself among them."""

from __future__ import annotations

from ..._boot.cmdline import CommandLine
from .. import parameters
from ..configured import OFF_BY_CHOICE, after_reboot, differing
from ..parameters import Switch
from ..platform import Blocker, State
from .base import Context, Section


def check_parameters(context: Context) -> Section:
    """Running and configured parameters, and the boot loader that says so."""
    configured = context.configured
    running = context.machine.command_line
    return Section(
        {
            "running_parameters": parameters.relevant(running),
            "configured_parameters": None if configured.entry is None else parameters.relevant(configured.entry),
            "bootloader": {
                "name": configured.bootloader,
                "evidence": list(configured.evidence),
                "code": configured.code,
                "reason": configured.reason,
            },
        },
        (
            *_contradictions(running, configured.entry, bool(context.machine.cpu_flags)),
            *_off_after_reboot(context),
            *_differences(context),
        ),
    )


def _switches(line: CommandLine, on_x86: bool) -> list[Switch]:
    return [
        parameters.intel_iommu(line),
        parameters.amd_iommu(line),
        parameters.iommu(line),
        parameters.interrupt_remapping(line),
        parameters.identity(line, on_x86),
    ]


def _contradictions(running: CommandLine, configured: CommandLine | None, on_x86: bool) -> list[Blocker]:
    now = _pairs(running, on_x86)
    next_boot = [] if configured is None else _pairs(configured, on_x86)
    found = []
    for pair in dict.fromkeys((*now, *next_boot)):
        others, decisive = pair
        who = "The running kernel was started" if pair in now else "The boot loader is set to start the next kernel"
        also = ", and the next one will be" if pair in now and pair in next_boot else ""
        found.append(
            Blocker(
                "contradicting_parameters",
                "warning",
                f"{who} with {others} and with {decisive}{also}: the latter is what counts.",
                "Say it once, with kvm.passthrough.kernel_parameters.",
            )
        )
    return found


def _pairs(line: CommandLine, on_x86: bool) -> list[tuple[str, str]]:
    """What does not count on a command line, each with what counts in its place."""
    return [
        (" ".join(parameter.text for parameter in switch.contradicting), switch.text)
        for switch in _switches(line, on_x86)
        if switch.contradicting
    ]


def _off_after_reboot(context: Context) -> list[Blocker]:
    """An IOMMU that works, and that the next boot is set to leave off."""
    if context.platform is None or context.assessment.state is not State.ACTIVE:
        return []
    planned = after_reboot(context.machine, context.platform, context.configured)
    if planned is None or planned.state not in OFF_BY_CHOICE:
        return []
    if planned.state is State.DISABLED_BY_DEFAULT and context.machine.kernel_config is None:
        return []  # that this kernel wants to be told is a guess then
    entry = context.configured.entry
    texts = parameters.relevant(entry) if entry is not None else []
    return [
        Blocker(
            "iommu_off_after_reboot",
            "warning",
            "The IOMMU is active now, but the boot loader is set to start the next kernel with "
            f"{_shown(texts)}, which leaves it off.",
            " ".join(blocker.remedy for blocker in planned.blockers[:1]),
        )
    ]


def _differences(context: Context) -> list[Blocker]:
    configured = context.configured
    if configured.entry is None or configured.settings is None:
        return []
    found = []
    there, wanted = differing(configured.entry, configured.settings)
    if there or wanted:
        found.append(
            Blocker(
                "boot_entries_outdated",
                "warning",
                f"The boot loader's settings are to start kernels {_change(there, wanted)}, but its entries do not: "
                "they were not made again since the settings were changed.",
                "Run kvm.passthrough.kernel_parameters, which makes them again, or what the distribution has for that.",
            )
        )
    runs, will_run = differing(context.machine.command_line, configured.entry)
    if runs or will_run:
        found.append(
            Blocker(
                "reboot_pending",
                "warning",
                f"The boot loader is set to start the next kernel {_change(runs, will_run)}; the running one was "
                "started otherwise.",
                "That counts once the host is rebooted. When it was rebooted since, it boots another entry, or by "
                "another boot loader.",
            )
        )
    return found


def _shown(texts: list[str]) -> str:
    return " ".join(texts) if texts else "no parameter for the IOMMU"


def _change(old: list[str], new: list[str]) -> str:
    """In words, what starts a kernel with ``new`` where there was ``old``."""
    if not old:
        return f"with {' '.join(new)}"
    return f"with {' '.join(new)} in place of {' '.join(old)}" if new else f"without {' '.join(old)}"
