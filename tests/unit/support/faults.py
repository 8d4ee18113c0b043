# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How writes to the fake kernel go wrong, and which of them do."""

from __future__ import annotations

import enum
import errno
from dataclasses import dataclass, field


class Fault(enum.Enum):
    """How a write can go wrong."""

    EIO = "EIO"
    ENODEV = "ENODEV"
    EBUSY = "EBUSY"
    """The kernel refuses with that error, and nothing happens."""
    IGNORE = "ignore"
    """It ends well, and nothing happens (an override that somebody else clears at once)."""
    DECLINE = "decline"
    """The driver that is asked to take the device does not: its probe fails. ``drivers_probe`` says nothing then, and
    ``bind`` says EIO (drivers/base/dd.c: ``__device_attach_driver``, ``device_driver_attach``)."""
    LATE = "late"
    """It ends well, and its effect comes a second later."""
    INTERFERE = "interfere"
    """It has its effect, and then udev, or somebody's script, gives the device to the driver that knows its ids."""
    VANISH = "vanish"
    """The device is gone."""
    HANG = "hang"
    """It does not end, nor does anything later that needs the lock of the device, until :meth:`FakeKernel.unhang`."""

    @property
    def errno(self) -> int | None:
        """The error of the write, where it is one of these."""
        return {Fault.EIO: errno.EIO, Fault.ENODEV: errno.ENODEV, Fault.EBUSY: errno.EBUSY}.get(self)


@dataclass
class _Injected:
    fault: Fault
    times: int | None


@dataclass
class Faults:
    """Which writes go wrong: by their number since :meth:`clear` (from 1), or by device and attribute."""

    by_number: dict[int, Fault] = field(default_factory=dict)
    _by_place: dict[tuple[str, str], _Injected] = field(default_factory=dict)

    def inject(self, address: str, attribute: str, fault: Fault, times: int | None = 1) -> None:
        """Let the next ``times`` writes (None: all) for a device to an attribute of this name go wrong."""
        self._by_place[(address, attribute)] = _Injected(fault, times)

    def clear(self) -> None:
        """From now on, all goes well."""
        self.by_number = {}
        self._by_place.clear()

    def of(self, number: int, address: str, attribute: str) -> Fault | None:
        """How this write goes wrong."""
        injected = self._by_place.get((address, attribute))
        if injected is None or injected.times == 0:
            return self.by_number.get(number)
        if injected.times is not None:
            injected.times -= 1
        return injected.fault
