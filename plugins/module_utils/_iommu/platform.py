# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a kind of IOMMU has to answer. Each kind is one file; ``detect`` knows them all."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any, Protocol

from .machine import Machine, Unit


class State(str, enum.Enum):
    """Whether the host has an IOMMU at work and, if not, whose decision that is."""

    ACTIVE = "active"
    DISABLED_BY_PARAMETER = "disabled_by_parameter"
    DISABLED_BY_DEFAULT = "disabled_by_default"
    DISABLED_IN_FIRMWARE = "disabled_in_firmware"
    UNSUPPORTED = "unsupported"
    UNKNOWN = "unknown"


class Claim(enum.IntEnum):
    """How strong the evidence for a kind of IOMMU is, weakest first.

    The processor's name is none: an emulated one may name any vendor.
    """

    NONE = 0
    FIRMWARE = 1
    """The firmware has a table that describes it."""
    UNITS = 2
    """The kernel drives it."""


@dataclass(frozen=True)
class Remapping:
    """Interrupt remapping: whether the hardware can, whether it is on, and how that is known. None: not known.

    ``remedy`` is what to do on this platform when it is off.
    """

    supported: bool | None = None
    enabled: bool | None = None
    evidence: tuple[str, ...] = ()
    remedy: str = (
        "Switch it on in the firmware setup (with x2APIC), and remove intremap=off and nointremap from the kernel's "
        "parameters. Only when all guests are trusted: set vfio_iommu_type1.allow_unsafe_interrupts=1."
    )


@dataclass(frozen=True)
class Blocker:
    """One thing that stands against passthrough: ``error`` makes it impossible, ``warning`` may hurt.

    ``devices`` are the addresses it concerns; none when it concerns all.
    """

    code: str
    severity: str
    message: str
    remedy: str
    devices: tuple[str, ...] = ()

    def as_result(self) -> dict[str, Any]:
        """The blocker as JSON values."""
        return {
            "code": self.code,
            "severity": self.severity,
            "message": self.message,
            "remedy": self.remedy,
            "devices": list(self.devices),
        }


@dataclass(frozen=True)
class Assessment:
    """What a kind of IOMMU says about this host.

    ``recommended`` are kernel parameters to set and ``unwanted`` those to remove, so that the IOMMU becomes active;
    both are empty when there is nothing to be done by parameters. ``firmware`` is what its table says.
    ``groups_complete`` is False when devices may still get an IOMMU group that they do not have now, so that having
    none says nothing.
    """

    state: State
    evidence: tuple[str, ...]
    recommended: tuple[str, ...] = ()
    unwanted: tuple[str, ...] = ()
    remapping: Remapping = Remapping()
    firmware: dict[str, Any] = field(default_factory=dict)
    blockers: tuple[Blocker, ...] = ()
    groups_complete: bool = True


class Platform(Protocol):
    """A kind of IOMMU."""

    code: str
    """Its name for programs: ``intel_vtd``."""
    name: str
    """Its name for people: ``Intel VT-d``."""
    architectures: frozenset[str]
    """Where it can be found, as ``uname -m`` says."""

    def claim(self, machine: Machine) -> Claim:
        """How strong the evidence is that this host has (or would have) this kind of IOMMU."""

    def assess(self, machine: Machine) -> Assessment:
        """The state of the IOMMU; called for the platform with the strongest claim."""

    def describe(self, unit: Unit) -> dict[str, Any]:
        """What the registers of a unit say, as JSON values."""
