# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a guard is: one reason for which a device must stay where it is."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ..._core.errors import Problem
from ..._core.host import Host
from ..._iommu.detect import assess
from ..._iommu.groups import Group, read_group
from ..._iommu.machine import Machine
from ..._iommu.modprobe import modprobe_settings
from ..._iommu.platform import Remapping, State
from ..._iommu.vfio import unsafe_interrupts_allowed
from ..._pci.address import PciAddress
from ..._pci.device import Bus, PciDevice, is_vfio_driver
from ..definitions import Definitions
from ..framebuffers import boot_framebuffers
from ..holders import Holders, Processes
from ..keyboards import Keyboards
from ..network import Network
from ..storage import Storage
from ..topology import Topology


class Change(enum.Enum):
    """What is about to happen to a device."""

    BIND = "bind"
    """It is taken from the host (bound to a VFIO driver)."""
    ASSIGN = "assign"
    """It has a VFIO driver already, so the host lives without it, and a guest is to have it."""
    RELEASE = "release"
    """It is given back to the host."""
    REMOVE = "remove"
    """It ceases to exist (a virtual function of which there are to be fewer)."""

    @classmethod
    def towards_guest(cls, device: PciDevice) -> Change:
        """What a device has before it on its way to a guest."""
        return cls.ASSIGN if is_vfio_driver(device.driver) else cls.BIND


class Severity(str, enum.Enum):
    """How much a finding weighs; the words are those of the blockers of iommu_info."""

    ERROR = "error"
    """It stands against the change."""
    WARNING = "warning"
    """It is to be known, and stands against nothing."""


@dataclass(frozen=True)
class Reason:
    """What a guard found in a device, and what to do about it.

    ``certain`` is false when only the change itself can show it; a module then looks again when the change is made.
    """

    message: str
    remedy: str
    severity: Severity = Severity.ERROR
    certain: bool = True


@dataclass(frozen=True)
class Finding:
    """What a guard found in one device.

    An error that is not ``certain`` is one whose evidence could not be read: a module refuses as well. A warning that
    is not ``certain`` is about what only the change itself can show: a module makes the change and looks again.
    """

    code: str
    device: str
    message: str
    remedy: str
    forcible: bool
    severity: Severity = Severity.ERROR
    certain: bool = True

    @property
    def refuses(self) -> bool:
        """Whether a module leaves the device alone because of it, unless its code is forced."""
        return self.severity is Severity.ERROR

    def stands_against(self, forced: Collection[str]) -> bool:
        """Whether a module leaves the device alone because of it, also when these codes are forced."""
        return self.refuses and not (self.forcible and self.code in forced)

    @property
    def text(self) -> str:
        """Message and remedy as one line of prose."""
        return f"{self.message} {self.remedy}"

    @property
    def is_undecided(self) -> bool:
        """Whether only the change itself shows what it is about."""
        return not self.refuses and not self.certain

    def as_result(self) -> dict[str, Any]:
        """The finding as JSON values."""
        return {
            "code": self.code,
            "device": self.device,
            "severity": self.severity.value,
            "message": self.message,
            "remedy": self.remedy,
            "forcible": self.forcible,
            "certain": self.certain,
        }

    def as_problem(self) -> Problem:
        """The objection as a module reports it when it refuses."""
        remedy = self.remedy
        if self.forcible:
            remedy = f"{remedy} To do it all the same, put {self.code} into force.".lstrip()
        return Problem(self.code, self.message, remedy, {"device": self.device, "forcible": self.forcible})


class GuardContext:
    """What the guards know about a host. Each part is read when a guard first asks, and then shared by all devices."""

    def __init__(self, host: Host, bus: Bus, leaving: Iterable[PciAddress] = ()) -> None:
        """:param leaving: the devices that leave the host together; group mates need not be named"""
        self.host = host
        self.bus = bus
        self.leaving = frozenset(leaving)
        self._groups: dict[int, Group] = {}
        self.findings: dict[tuple[PciAddress, Change], list[Finding]] = {}
        """What the guards said of each device; in a big group each device is asked about for every other one."""

    @cached_property
    def topology(self) -> Topology:
        """Block devices and interfaces of PCI functions."""
        return Topology(self.host)

    @cached_property
    def storage(self) -> Storage:
        """What block devices are used for."""
        return Storage(self.host, self.processes)

    @cached_property
    def network(self) -> Network:
        """What interfaces are used for."""
        return Network(self.host)

    @cached_property
    def holders(self) -> Holders:
        """Who uses devices through VFIO."""
        return Holders(self.host, self.bus, self.processes)

    @cached_property
    def definitions(self) -> Definitions:
        """Which domains are defined with devices, running or not."""
        return Definitions(self.host)

    @cached_property
    def processes(self) -> Processes:
        """The processes of the host."""
        return Processes(self.host)

    @cached_property
    def framebuffers(self) -> dict[PciAddress, str]:
        """The PCI functions in whose memory the firmware's framebuffer is.

        :raises EvidenceMissing: when that cannot be read
        """
        return boot_framebuffers(self.host)

    @cached_property
    def keyboards(self) -> Keyboards:
        """The keyboards of the host."""
        return Keyboards(self.host)

    @cached_property
    def machine(self) -> Machine:
        """The host as far as its IOMMU is concerned."""
        return Machine(self.host, self.bus)

    @cached_property
    def missing_remapping(self) -> Remapping | None:
        """The interrupt remapping that VFIO misses: it is off, and VFIO was not told to do without. None otherwise.

        None, too, when it is not known for certain, or when no IOMMU is active.
        """
        assessment = assess(self.machine)[1]
        if assessment.state is not State.ACTIVE or assessment.remapping.enabled is not False:
            return None
        allowed = unsafe_interrupts_allowed(self.machine, modprobe_settings(self.machine))
        return None if allowed else assessment.remapping

    def group(self, number: int) -> Group:
        """The IOMMU group of this number."""
        if number not in self._groups:
            self._groups[number] = read_group(self.bus, number)
        return self._groups[number]


class Guard(ABC):
    """One kind of reason. It has a code, which is also what forces it, where it can be forced."""

    code: ClassVar[str]
    forcible: ClassVar[bool] = True
    refuses: ClassVar[bool] = True
    """Whether it can stand against a device at all; one that cannot makes warnings only."""
    changes: ClassVar[frozenset[Change]] = frozenset((Change.BIND,))
    """The changes it stands against."""

    @abstractmethod
    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        """Every reason of this kind that holds for the device now.

        :raises EvidenceMissing: when that cannot be known here, for a device that might have one
        """
