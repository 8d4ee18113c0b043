# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which processes have device files open, such as the running virtual machines that use devices through VFIO.

Of VFIO, a process opens either the device's group (``/dev/vfio/12``) or the device itself (``/dev/vfio/devices/vfio3``,
with iommufd, since kernel 6.6). Source: Documentation/driver-api/vfio.rst.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass

from .._core.host import Host
from .._pci.device import Bus, PciDevice, is_vfio_driver
from .evidence import EvidenceMissing, demand_all_processes, evidence

_GROUP = re.compile(r".*/vfio/(?:noiommu-)?(\d+)")
_CDEV = re.compile(r".*/vfio/devices/(vfio\d+)")
_FLAGS = re.compile(r"^flags:\s*([0-7]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Holder:
    """A process that has a device file open; ``domain`` is the libvirt domain's name when it is such a QEMU."""

    pid: int
    command: str
    domain: str | None

    def __str__(self) -> str:
        if self.domain is not None:
            return f"the running domain {self.domain} (process {self.pid})"
        return f"process {self.pid} ({self.command})"


@dataclass(frozen=True)
class OpenFile:
    """A device file (``/dev/vfio/12``) that a process has open under a descriptor."""

    path: str
    pid: int
    descriptor: str


class Processes:
    """The processes of the host and the device files they have open. Everything is read on first use and then kept."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @evidence
    def device_files(self) -> list[OpenFile]:
        """Every device file that any process has open.

        :raises EvidenceMissing: when other processes' open files cannot be seen
        """
        demand_all_processes(self._host)
        # The first process always has files open; where they cannot be seen, nobody else's can.
        first = [self._host.link_target(f"/proc/1/fd/{name}") for name in self._host.list_dir("/proc/1/fd")]
        if not any(first):
            raise EvidenceMissing("the open files of other processes (/proc/*/fd) cannot be read")
        found = []
        for pid in self._host.list_dir("/proc"):
            if not pid.isdigit():
                continue
            for descriptor in self._host.list_dir(f"/proc/{pid}/fd"):
                target = self._host.link_target(f"/proc/{pid}/fd/{descriptor}") or ""
                if target.startswith("/dev/"):
                    found.append(OpenFile(target, int(pid), descriptor))
        return found

    def writes(self, file: OpenFile) -> bool:
        """Whether a file was opened for writing (``flags`` in /proc/PID/fdinfo, octal; see proc(5))."""
        match = _FLAGS.search(self._host.attribute(f"/proc/{file.pid}/fdinfo/{file.descriptor}") or "")
        return match is not None and int(match[1], 8) & os.O_ACCMODE != os.O_RDONLY

    def holder(self, pid: int) -> Holder:
        """A process as people know it."""
        command = self._host.attribute(f"/proc/{pid}/comm") or "?"
        arguments = (self._host.attribute(f"/proc/{pid}/cmdline") or "").split("\0")
        for option, value in zip(arguments, arguments[1:]):
            match = re.match(r"(?:guest=)?([^,=]+)(?:,|$)", value) if option == "-name" else None
            if match:
                return Holder(pid, command, match[1])
        return Holder(pid, command, None)


class Holders:
    """The processes that hold VFIO groups and devices."""

    def __init__(self, host: Host, bus: Bus, processes: Processes | None = None) -> None:
        self._host = host
        self._bus = bus
        self._processes = processes or Processes(host)

    def of(self, device: PciDevice) -> list[Holder]:
        """The processes that use a device or, since a group is owned as a whole, any device of its IOMMU group.

        :raises EvidenceMissing: when other processes' open files cannot be seen, and a VFIO driver is bound
        """
        members = [self._bus.device(address) for address in device.group_members if address in self._bus] or [device]
        if not any(is_vfio_driver(member.driver) for member in members):
            return []
        nodes = [str(device.iommu_group)] if device.iommu_group is not None else []
        nodes += [name for member in members for name in member.vfio_cdevs]
        return sorted({holder for node in nodes for holder in self._by_node.get(node, [])}, key=lambda item: item.pid)

    @evidence
    def _by_node(self) -> dict[str, list[Holder]]:
        found: dict[str, list[Holder]] = defaultdict(list)
        for file in self._processes.device_files:
            match = _GROUP.fullmatch(file.path) or _CDEV.fullmatch(file.path)
            if match:
                found[match[1]].append(self._processes.holder(file.pid))
        return found
