# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host's boot loader is set to start the next kernel with, and what that would mean for the IOMMU."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

from .._boot.cmdline import CommandLine, Parameter
from .._boot.detect import detect
from .._boot.loader import Configuration
from .._boot.parameters import configuration
from .._core.errors import PassthroughError
from . import parameters
from .machine import Machine
from .platform import Assessment, Blocker, Platform, State

OFF_BY_CHOICE = (State.DISABLED_BY_PARAMETER, State.DISABLED_BY_DEFAULT)
"""The states that a kernel parameter leads out of."""

_CODES = ("iommu_disabled_by_parameter", "iommu_disabled_by_default")


@dataclass(frozen=True)
class Configured:
    """What the next boot is set to.

    ``entry`` is the command line of the boot entry that is there, ``settings`` what the boot loader's settings would
    give to a new one; both are None when they cannot be known, and ``code`` and ``reason`` say why. ``bootloader`` is
    the boot loader's name and ``evidence`` what proves it.
    """

    bootloader: str | None = None
    evidence: tuple[str, ...] = ()
    entry: CommandLine | None = None
    settings: CommandLine | None = None
    code: str | None = None
    reason: str | None = None


def read_configured(machine: Machine) -> Configured:
    """Ask the boot loader; what it cannot answer is a field of the answer, and never an error."""
    name = None
    evidence: tuple[str, ...] = ()
    try:
        detection = detect(machine.host)
        name, evidence = detection.name, tuple(detection.evidence)
        found = configuration(machine.host)
    except PassthroughError as error:
        path = error.problems[0].details.get("path")
        if error.code == "file_unreadable" and path:
            machine.unreadable.append(str(path))
        return Configured(name, evidence, code=error.code, reason=str(error))
    return Configured(name, evidence, _next_entry(found), found.normal)


def _next_entry(found: Configuration) -> CommandLine:
    """The command line of the entry that stands for a normal start: the first that is made from the settings."""
    normal = [entry for entry in found.entries if not entry.recovery]
    made = [entry for entry in normal if entry.generated]
    return next((entry.command_line for entry in made or normal), found.normal)


def relevant_parameters(line: CommandLine) -> dict[str, tuple[Parameter, ...]]:
    """The parameters that have to do with IOMMU, VFIO and KVM, by the name the kernel compares."""
    texts = set(parameters.relevant(line))
    keys = dict.fromkeys(parameter.key for parameter in line.parameters if parameter.text in texts)
    return {key: line.named(key) for key in keys}


def differing(one: CommandLine, other: CommandLine) -> tuple[list[str], list[str]]:
    """The relevant parameters of names that differ in meaning: as ``one`` has them, and as ``other`` has them."""
    left, right = relevant_parameters(one), relevant_parameters(other)
    keys = [key for key in {**left, **right} if _meanings(left.get(key, ())) != _meanings(right.get(key, ()))]
    return (
        [parameter.text for key in keys for parameter in left.get(key, ())],
        [parameter.text for key in keys for parameter in right.get(key, ())],
    )


def _meanings(found: Iterable[Parameter]) -> list[tuple[str, str | None]]:
    return [parameter.meaning for parameter in found]


def after_reboot(machine: Machine, platform: Platform, configured: Configured) -> Assessment | None:
    """What the platform would say of this host, had it been started as it is set to and drove no unit yet.

    An IOMMU that is not off then is one that the next boot brings up, as far as parameters decide. None when it is
    not known what the host is set to.
    """
    if configured.entry is None:
        return None
    imagined = copy.copy(machine)
    imagined.command_line = configured.entry
    imagined.units = []
    return platform.assess(imagined)


def with_configuration(
    machine: Machine, platform: Platform | None, assessment: Assessment, configured: Configured
) -> Assessment:
    """The verdict with parameters and remedies that fit what is configured already.

    kernel_parameters changes the configuration, so what is to be changed follows from that; what the running kernel
    has is only the reason why it does not work yet.
    """
    if platform is None or assessment.state not in OFF_BY_CHOICE:
        return assessment
    planned = after_reboot(machine, platform, configured)
    if planned is None or configured.entry is None:
        return assessment
    if planned.state in OFF_BY_CHOICE:
        remedies = [blocker.remedy for blocker in planned.blockers if blocker.code in _CODES]
        return replace(
            _with_remedy(assessment, remedies[0] if remedies else None),
            recommended=planned.recommended,
            unwanted=planned.unwanted,
        )
    recommended, unwanted = _as_configured(machine.command_line, configured.entry, assessment)
    own = [parameter.text for found in relevant_parameters(configured.entry).values() for parameter in found]
    remedy = (
        f"Reboot the host: its boot loader is set to start the next kernel with {' '.join(own)}."
        if own
        else "Reboot the host: its boot loader starts the next kernel without such a parameter."
    )
    return replace(_with_remedy(assessment, remedy), recommended=recommended, unwanted=unwanted)


def _with_remedy(assessment: Assessment, remedy: str | None) -> Assessment:
    blockers: tuple[Blocker, ...] = assessment.blockers
    if remedy is not None:
        blockers = tuple(replace(blocker, remedy=remedy) if blocker.code in _CODES else blocker for blocker in blockers)
    return replace(assessment, blockers=blockers)


def _as_configured(
    running: CommandLine, entry: CommandLine, assessment: Assessment
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parameters to set and to remove that leave a good configuration as it is, and that the running kernel lacks."""
    recommended: list[str] = []
    unwanted = list(assessment.unwanted)
    for text in assessment.recommended:
        key = Parameter.parse(text).key
        there = entry.named(key)
        if not there:
            # It is on without being told to; only the running kernel was told not to.
            unwanted += [parameter.text for parameter in running.named(key) if parameter.value is not None]
        else:
            recommended.append(there[0].text if len(there) == 1 else text)
    named = {Parameter.parse(text).key for text in recommended}
    kept = [text for text in dict.fromkeys(unwanted) if Parameter.parse(text).key not in named]
    return tuple(recommended), tuple(kept)
