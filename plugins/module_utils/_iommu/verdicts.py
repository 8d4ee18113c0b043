# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Verdicts that every kind of IOMMU can come to, in the same words."""

from __future__ import annotations

from collections.abc import Iterable

from .machine import Machine, Unit
from .platform import Assessment, Blocker, State


def units_of(machine: Machine, prefixes: str | tuple[str, ...]) -> list[Unit]:
    """The units that the kernel drives and whose names begin with one of these."""
    return [unit for unit in machine.units if unit.name.startswith(prefixes)]


def active(machine: Machine, prefixes: str | tuple[str, ...]) -> str | None:
    """Evidence that the IOMMU is active: the kernel registers units only when it has started translation."""
    names = [unit.name for unit in units_of(machine, prefixes)]
    if not names:
        return None
    return f"the kernel drives {count(len(names), 'IOMMU unit')}: {shortened(names)}"


def count(number: int, noun: str) -> str:
    """``1 unit``, ``2 units``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def shortened(names: Iterable[str], limit: int = 8) -> str:
    """A list for a sentence: the first names, and how many more there are (IBM Z has a unit per function)."""
    listed = list(names)
    more = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {more} more" if more > 0 else "")


def assess_driver(machine: Machine, name: str, *options: str) -> Assessment | None:
    """The verdict for a kernel that was built without the driver; None when it has it, or nothing says.

    :param options: what the driver needs, all of them, built in or as modules
    """
    config = machine.kernel_config
    missing = [option for option in options if config is not None and config.get(option) not in ("y", "m")]
    if not missing:
        return None
    return Assessment(
        State.UNSUPPORTED,
        (f"the kernel {machine.kernel} was built without {' and '.join(missing)}",),
        blockers=(
            Blocker(
                "iommu_unsupported",
                "error",
                f"The running kernel {machine.kernel} has no driver for {name} ({', '.join(missing)} not set).",
                "Boot a kernel of the distribution that has it.",
            ),
        ),
    )


def off_by_parameter(name: str, text: str, recommended: tuple[str, ...], unwanted: tuple[str, ...]) -> Assessment:
    """The verdict for an IOMMU that the command line switches off with the parameters ``text``."""
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


def off_in_firmware(evidence: tuple[str, ...], message: str, remedy: str) -> Assessment:
    """The verdict for a host whose firmware offers the kernel no IOMMU."""
    return Assessment(
        State.DISABLED_IN_FIRMWARE,
        evidence,
        blockers=(Blocker("iommu_disabled_in_firmware", "error", message, remedy),),
    )


def did_not_start(name: str, evidence: tuple[str, ...], word: str, remedy: str | None = None) -> Assessment:
    """The verdict for an IOMMU that nothing switches off, and that is not active all the same.

    :param word: what the driver's messages in the kernel's log begin with
    :param remedy: what to do, when the cause is known
    """
    return Assessment(
        State.UNKNOWN,
        evidence,
        blockers=(
            Blocker(
                "iommu_not_started",
                "error",
                f"The firmware offers {name} and nothing switches it off, but the kernel did not start it.",
                remedy
                or f"dmesg of the host says why (look for {word}): most often the firmware's table is defective; "
                "update the firmware.",
            ),
        ),
    )


def firmware_hidden(evidence: tuple[str, ...]) -> Assessment:
    """The verdict for a host that drives no IOMMU, and whose firmware cannot be asked."""
    return Assessment(
        State.UNKNOWN,
        ("the kernel drives no IOMMU unit", *evidence),
        blockers=(
            Blocker(
                "iommu_state_unknown",
                "error",
                "No IOMMU is active, and whether the firmware offers one cannot be seen.",
                "Run the module as root and on the host itself, not in a container; on x86, see that ACPI is on.",
            ),
        ),
    )
