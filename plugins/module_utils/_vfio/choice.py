# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which VFIO driver each device of a request is to have."""

from __future__ import annotations

from .._core.errors import Problem
from .._core.host import Host
from .._pci.device import DRIVERS, PciDevice, is_vfio_driver
from .._pci.modalias import ModuleAliases
from .binding import AUTO, unavailable
from .variant import GENERIC, VariantDrivers

GENERIC_DRIVER = "vfio-pci"
"""The driver for any device; its module is :data:`GENERIC`."""


class DriverChoice:
    """The driver that was named, or the best one for each device. Everything is read on first use and then kept."""

    def __init__(self, host: Host, wanted: str) -> None:
        """:param wanted: the name of a driver or of its module, or :data:`AUTO`"""
        self._host = host
        self._aliases = ModuleAliases(host)
        self._variants = VariantDrivers(host, self._aliases)
        self._missing: dict[str, Problem | None] = {}
        self._named = None if wanted == AUTO else self._spelt(wanted)

    def of(self, device: PciDevice) -> str:
        """The driver a device is to have.

        Without a name it is the one that the device has, when that is a VFIO driver, whichever: any of them hands it to
        guests, and to change it would take it from a guest that uses it.
        """
        if self._named is not None:
            return self._named
        if device.driver is not None and is_vfio_driver(device.driver):
            return device.driver
        return self.best(device)

    def best(self, device: PciDevice) -> str:
        """The best driver for a device: the first of its variant drivers that is to be had, or else vfio-pci."""
        variants = self._variants.of(device.modalias) or []
        return next((name for name in variants if self.missing(name) is None), GENERIC_DRIVER)

    def passed_over(self, device: PciDevice) -> str | None:
        """The variant driver that a device does not get because it has vfio-pci already; None when it misses nothing.

        Of two variant drivers neither is better for certain, and somebody chose the one it has.
        """
        if self._named is not None or device.driver != GENERIC_DRIVER:
            return None
        best = self.best(device)
        return None if best == GENERIC_DRIVER else best

    def missing(self, driver: str) -> Problem | None:
        """Why a driver is not to be had (``driver_unavailable``)."""
        if driver not in self._missing:
            self._missing[driver] = unavailable(self._host, driver)
        return self._missing[driver]

    def _spelt(self, name: str) -> str:
        """The driver that is meant by the name of a driver or of its module, in which ``-`` and ``_`` are mixed up.

        A driver that is not there yet cannot tell: vfio-pci alone has a dash, and the kernel's variant drivers have the
        names of their modules. Any other name is taken as it is.
        """
        module = name.replace("-", "_")
        present = [driver for driver in self._host.list_dir(DRIVERS) if driver.replace("-", "_") == module]
        if present:
            return name if name in present else present[0]
        if module == GENERIC:
            return GENERIC_DRIVER
        known = {alias.module for alias in self._aliases.for_vfio or ()}
        return module if module in known else name
