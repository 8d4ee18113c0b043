# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every boot loader is to the rest of this collection: one file each, behind one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from .._core.errors import PassthroughError
from .._core.plan import Plan
from .._core.state import Record
from .cmdline import CommandLine, Request

RECORD_KIND = "kernel_parameter"
"""The kind of the records this package makes, see :class:`BootLoader`."""

ALL_KERNELS = "all"
DEFAULT_KERNEL = "default"
# COMMAND_LINE_SIZE is 2048 on x86 and arm64, with the final NUL; the kernel cuts off the rest without a word.
MAX_LENGTH = 2047

KERNELS = (ALL_KERNELS, DEFAULT_KERNEL)
"""For which entries parameters are changed: all there are and will be, or the one that is booted by default."""


@dataclass(frozen=True)
class Entry:
    """One way to start Linux that the boot loader offers."""

    title: str
    kernel: str
    command_line: CommandLine
    recovery: bool
    generated: bool
    """Whether it is made from the boot loader's settings, so that this collection can change it through them."""
    in_place: bool = False
    """Whether parameters are set in the entry itself, because nothing generates it."""
    written_in: str = ""
    """Where a person has to change it, for an entry of this system that is not changed here; empty for all others."""

    def as_result(self) -> dict[str, Any]:
        """The entry in a module's result."""
        return {
            "title": self.title,
            "kernel": self.kernel,
            "command_line": str(self.command_line),
            "recovery": self.recovery,
            "generated": self.generated,
            "in_place": self.in_place,
        }


@dataclass(frozen=True)
class Configuration:
    """What a boot loader is set to: for entries it will make, and in those it has."""

    normal: CommandLine
    """What the settings give to a normal entry."""
    recovery: CommandLine
    """What the settings give to a recovery entry."""
    entries: tuple[Entry, ...] = ()


@dataclass
class BootPlan(Plan):
    """A plan, and the configuration it leads to."""

    predicted: Configuration = field(default_factory=lambda: Configuration(CommandLine(), CommandLine()))


class Settings(Protocol):
    """Where a boot loader has parameters."""

    def places(self, key: str) -> dict[str, list[str]]:
        """Where parameters of a name stand in the settings, for records: place -> their spellings, in order."""


class Observed(Settings, Protocol):
    """What a boot loader observes: at least its configuration."""

    @property
    def configuration(self) -> Configuration:
        """The configuration as it is now."""


Seen = TypeVar("Seen", bound=Observed)


class Candidate(Protocol):
    """What may have started the running system."""

    @property
    def name(self) -> str:
        """Its name in the option ``bootloader`` and in results."""

    @property
    def title(self) -> str:
        """What people call it."""

    @property
    def drives(self) -> frozenset[str]:
        """The names of those it configures itself: their evidence does not contradict it, and they are not asked."""

    def evidence(self) -> list[str]:
        """What in the running system proves that this boot loader started it, each in words; empty without proof.

        Files it would read are no proof. Never raises for a damaged file: the look at its configuration does.
        """


class BootLoader(Candidate, Protocol[Seen]):
    """A boot loader of one host that this collection configures.

    A new one is a class in a file of its own, and a line in :data:`~.detect.LOADERS`.

    ``observe`` and ``plan`` never write. The actions of a plan carry one :class:`~.._core.state.Record` for each
    name they change, of the kind ``kernel_parameter``:

    * ``key``: the name as the kernel compares it (dashes as underscores);
    * ``before`` and ``after``: every parameter of that name in the settings, as a mapping from the place
      (for GRUB the variable) to the list of their spellings, in order; ``{}`` when there is none;
    * ``restore``: ``{"bootloader": name}``.

    To revert a record is to give each place exactly the parameters in ``before`` where it still has those in
    ``after``, and to let the boot loader derive its entries again (:mod:`.revert`). Whole files are not recorded: other
    people and packages edit them, too, and their changes must survive a revert. That is why ``plan`` asks the request
    what is wanted in each place (:meth:`.cmdline.Request.at`), and why what it has seen tells what is there
    (:meth:`Observed.places`).
    """

    def missing(self) -> list[str]:
        """The files and programs without which it cannot be configured, as far as they are not there."""

    def doubt(self) -> str:
        """Why there is no evidence, as a clause for a person: what was looked at, and what it says."""

    def observe(self) -> Seen:
        """Read settings and entries."""

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """What leads from what was seen to what is wanted, in the settings and in every entry made from them.

        :param kernels: one of :data:`KERNELS`
        :raises PassthroughError: ``kernels_default_unsupported`` (see :func:`refuse_default_kernel`) where single
            entries cannot have parameters of their own
        """


@dataclass(frozen=True)
class Detection:
    """Which boot loader started this host, and how we know."""

    name: str
    evidence: Sequence[str]
    container: str | None = None
    """What shows that this is a container, which no boot loader starts: only the files of this one are meant."""


def spellings(lines: Mapping[str, CommandLine], key: str) -> dict[str, list[str]]:
    """The places that have a name, of these command lines by place, as :meth:`Settings.places` gives them."""
    found = {place: [parameter.text for parameter in line.named(key)] for place, line in lines.items()}
    return {place: texts for place, texts in found.items() if texts}


def records_of(name: str, request: Request, before: Settings, after: Settings) -> list[Record]:
    """One record for each name of the request that changes in a place.

    :param name: the boot loader's
    """
    places = {key: (before.places(key), after.places(key)) for key in request.keys}
    return [record_of(name, key, *states) for key, states in places.items() if states[0] != states[1]]


def record_of(name: str, key: str, before: dict[str, list[str]], after: dict[str, list[str]]) -> Record:
    """The record of a name of a parameter, as :class:`BootLoader` describes it."""
    return Record(RECORD_KIND, key, before, after, restore={"bootloader": name})


def changed_entries(before: Sequence[Entry], after: Sequence[Entry]) -> tuple[list[str], list[str]]:
    """The entries that differ, as lines for ``before`` and ``after`` of the action that changes them."""
    pairs = [(old, new) for old, new in zip(before, after) if old != new]
    return [f"{old.title}: {old.command_line}" for old, _unused in pairs], [
        f"{new.title}: {new.command_line}" for _unused, new in pairs
    ]


def check_length(
    title: str, before: CommandLine, after: CommandLine, put_before: str = "", most: int = MAX_LENGTH
) -> None:
    """Fail when a change would make an entry's command line longer than the kernel reads.

    :param put_before: what the boot loader itself writes before it
    :param most: how many bytes the kernel reads
    :raises PassthroughError: ``command_line_too_long``
    """
    length = len(f"{put_before}{after}".encode("utf-8", "surrogateescape"))
    if length > most and after != before:
        raise PassthroughError(
            "command_line_too_long",
            f"The command line of {title!r} would have {length} bytes; the kernel reads {most} and drops the rest.",
            "Remove parameters that are no longer needed.",
            entry=title,
        )


def refuse_default_kernel(kernels: str, title: str, why: str) -> None:
    """Fail for ``kernels: default`` with a boot loader whose settings are for all of its entries.

    :param why: what stands against it, as a clause
    :raises PassthroughError: ``kernels_default_unsupported``
    """
    if kernels != DEFAULT_KERNEL:
        return
    raise PassthroughError(
        "kernels_default_unsupported",
        f"kernels: {DEFAULT_KERNEL} cannot be had with {title}: {why}.",
        f"Set kernels: {ALL_KERNELS}, or leave it out.",
        field="kernels",
        value=kernels,
    )
