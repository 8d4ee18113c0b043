# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the rules look at: the definition as it would be, and the host."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Optional

from ..._core.errors import Problem
from ..._core.host import Host
from ..._pci.address import PciAddress
from ..._pci.device import Bus, PciDevice
from ..definition import Definition, Occupant
from ..element import Version
from ..hostdev import Hostdev, option_of


@dataclass(frozen=True)
class Subject:
    """One PCI device of the host, by hostdev or interface, in the definition as it would be."""

    hostdev: Hostdev
    where: Optional[str] = None
    """Where a person asks for it (``hostdevs[0]``); None for one that is there already and was not asked for."""
    asked: Optional[Hostdev] = None
    """What a person said about it; for an idea of what to change."""

    @property
    def source(self) -> PciAddress:
        """The device."""
        return self.hostdev.source

    @property
    def label(self) -> str:
        """What messages call it."""
        if self.where is None:
            return f"The domain's {self.hostdev.kind} {self.source}"
        return f"{self.where} ({self.source})"

    def problem(
        self, code: str, message: str, remedy: str = "", field: str | None = None, value: Any = None, **details: Any
    ) -> Problem:
        """A problem of this hostdev; ``field`` is a field of :class:`Hostdev`."""
        known = {"hostdev": self.where, "device": str(self.source)}
        if field is not None:
            known.update(field=option_of(field), value=value)
        return Problem(code, f"{self.label}: {message}", remedy, {**known, **details})


@dataclass(frozen=True)
class OtherDomain:
    """Another domain of the same libvirt, and the host devices it has."""

    name: str
    active: bool
    config: frozenset[PciAddress]
    live: frozenset[PciAddress]


@dataclass(frozen=True)
class Context:
    """All that a rule may look at."""

    subjects: Sequence[Subject]
    """Every PCI hostdev of the definition as it would be."""
    removed: frozenset[PciAddress]
    """The devices whose hostdevs would be taken out."""
    definition: Definition
    """The definition as it is."""
    others: Sequence[OtherDomain]
    version: Optional[Version]
    """The version of libvirt; None when it is not known (a file is changed without asking libvirt)."""
    host: Host
    bus: Bus
    live: bool = False
    """Whether it is a domain that runs, and not a definition."""
    qemu: Optional[Version] = None
    """The version of QEMU, where libvirt says it."""

    @property
    def requested(self) -> Iterator[Subject]:
        """The hostdevs that a person asks for."""
        return (subject for subject in self.subjects if subject.where is not None)

    @cached_property
    def declared(self) -> dict[PciAddress, Subject]:
        """The hostdevs by device."""
        return {subject.source: subject for subject in self.subjects}

    @property
    def occupants(self) -> list[Occupant]:
        """The guest's other devices."""
        return self.definition.occupants

    def device(self, address: PciAddress) -> PciDevice | None:
        """The host's device at an address, or None."""
        return self.bus.device(address) if address in self.bus else None

    @cached_property
    def touched(self) -> frozenset[PciAddress]:
        """Every device that is asked for or taken out."""
        return frozenset(subject.source for subject in self.requested) | self.removed


Rule = Callable[[Context], Iterable[Problem]]
"""A rule finds what is wrong with the definition as it would be; it reads, and raises nothing of its own."""


def unique(
    context: Context, field: str, code: str, remedy: str, describe: Callable[[Any], str] = str
) -> Iterator[Problem]:
    """One problem for each hostdev asked for whose value of ``field`` another device of the guest has too."""
    owners: dict[Any, str] = {}
    for occupant in context.occupants:
        value = getattr(occupant, field)
        if value is not None:
            owners.setdefault(value, f"the domain's {occupant.label}")
    for subject in context.subjects:
        value = getattr(subject.hostdev, field)
        if subject.where is None and value is not None:
            owners.setdefault(value, f"the domain's {subject.hostdev.kind} {subject.source}")
    for subject in context.requested:
        value = getattr(subject.hostdev, field)
        if value is None:
            continue
        owner = owners.setdefault(value, subject.label)
        if owner != subject.label:
            yield subject.problem(
                code,
                f"{option_of(field)} {describe(value)} is already that of {owner}.",
                remedy,
                field,
                describe(value),
            )
