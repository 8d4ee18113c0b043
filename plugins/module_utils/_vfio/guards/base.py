# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard is: one reason for which a device must stay where it is."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from ..._core.errors import Problem
from ..._core.host import Host
from ..._pci.address import PciAddress
from ..._pci.device import Bus, PciDevice
from ..holders import Holders
from ..network import Network
from ..storage import Storage
from ..topology import Topology


class Change(enum.Enum):
    """What is about to happen to a device."""

    BIND = "bind"
    """It is taken from the host (bound to a VFIO driver)."""
    RELEASE = "release"
    """It is given back to the host."""


@dataclass(frozen=True)
class Reason:
    """Why a guard stands against a device: what it found, and what to do about it."""

    message: str
    remedy: str


@dataclass(frozen=True)
class Finding:
    """A guard's objection to one device. ``certain`` is false when what decides could not be read."""

    code: str
    device: str
    message: str
    remedy: str
    forcible: bool
    certain: bool = True

    def as_problem(self) -> Problem:
        """The objection as a module reports it when it refuses."""
        remedy = self.remedy
        if self.forcible:
            remedy = f"{remedy} To do it all the same, put {self.code} into force.".lstrip()
        return Problem(self.code, self.message, remedy, {"device": self.device, "forcible": self.forcible})


class GuardContext:
    """What the guards know about a host. Each part is read when a guard first asks, and then shared by all devices."""

    def __init__(self, host: Host, bus: Bus) -> None:
        self.host = host
        self.bus = bus
        self.findings: dict[tuple[PciAddress, Change], list[Finding]] = {}
        """What the guards said of each device; in a big group each device is asked about for every other one."""

    @cached_property
    def topology(self) -> Topology:
        """Block devices and interfaces of PCI functions."""
        return Topology(self.host)

    @cached_property
    def storage(self) -> Storage:
        """What block devices are used for."""
        return Storage(self.host)

    @cached_property
    def network(self) -> Network:
        """What interfaces are used for."""
        return Network(self.host)

    @cached_property
    def holders(self) -> Holders:
        """Who uses devices through VFIO."""
        return Holders(self.host, self.bus)


class Guard(ABC):
    """One kind of reason. It has a code, which is also what forces it, where it can be forced."""

    code: ClassVar[str]
    forcible: ClassVar[bool] = True
    changes: ClassVar[frozenset[Change]] = frozenset((Change.BIND,))
    """The changes it stands against."""

    @abstractmethod
    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        """Every reason of this kind that holds for the device now.

        :raises EvidenceMissing: when that cannot be known here, for a device that might have one
        """
