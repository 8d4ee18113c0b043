# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Variant drivers: VFIO drivers for certain devices, which can do what vfio-pci cannot (migrate a running guest).

A variant driver binds a device only when it is asked to by name (``driver_override``); that it exists is written in
modules.alias. Which one is best is libvirt's rule (src/util/virpci.c, ``virPCIDeviceFindBestVFIOVariant``), so that a
device gets the same driver from us as from libvirt, since 10.0, with managed='yes'.
"""

from __future__ import annotations

from .._core.host import Host
from .._pci.modalias import ModuleAliases, parse

GENERIC = "vfio_pci"
"""The module of the driver for any device, which is no variant."""


class VariantDrivers:
    """The variant drivers that the running kernel has. Everything is read on first use and then kept."""

    def __init__(self, host: Host, aliases: ModuleAliases) -> None:
        self._host = host
        self._aliases = aliases
        self._found: dict[str, list[str]] = {}

    def of(self, modalias: str | None) -> list[str] | None:
        """The drivers to prefer to vfio-pci for a device, best first; None when that is not known.

        :param modalias: the device's own (``pci:v000015B3d0000101E…``)
        """
        if modalias is None:
            return None
        if modalias not in self._found:
            modules = self._modules(modalias)
            if modules is None:
                return None
            self._found[modalias] = [self._driver(module) for module in modules]
        return self._found[modalias]

    def _modules(self, modalias: str) -> list[str] | None:
        """Fewest wildcards first, and of equals the first in the file; what comes behind vfio-pci is never chosen.

        libvirt takes for a wildcard only what is exactly a star, so a line that names the programming interface
        (``i02*``, as the kernel's build writes it) fits no device.
        """
        device, lines = parse(modalias), self._aliases.for_vfio
        if device is None or lines is None:
            return None
        fitting = [line for line in lines if line.matches(device) and not line.open_end]
        ordered = list(dict.fromkeys(line.module for line in sorted(fitting, key=lambda line: line.wildcards)))
        return ordered[: ordered.index(GENERIC)] if GENERIC in ordered else ordered

    def _driver(self, module: str) -> str:
        """The PCI driver of a module. The loaded module tells; the kernel's own variant drivers have its name."""
        entries = self._host.list_dir(f"/sys/module/{module}/drivers")
        return next((entry[len("pci:") :] for entry in entries if entry.startswith("pci:")), module)
