# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kernel modules are made for which PCI devices, as a kernel's modules.alias says.

Sources: depmod(8), modules.alias; the kernel's scripts/mod/file2alias.c, ``do_pci_entry``, which writes its lines::

    alias pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_core
    alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci

Modules that are built into the kernel have no line there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .._core.errors import PassthroughError
from .._core.host import Host

PCI = "pci"
VFIO = "vfio_pci"
"""The prefix of drivers that hand a device to user space (``PCI_DRIVER_OVERRIDE_DEVICE_VFIO``); nothing loads them by
itself."""

ANY = "*"

# Vendor, device, subsystem vendor, subsystem device, base class, sub-class, programming interface.
_FIELDS = "v{0}d{0}sv{0}sd{0}bc{0}sc{0}i{0}".format(r"([0-9A-F]+|\*)")
_DEVICE = re.compile(rf"pci:{_FIELDS}")
# The kernel's build puts a star behind an alias that does not end in one (``add_wildcard``).
_LINES = {
    prefix: re.compile(rf"^alias {prefix}:{_FIELDS}(\*?)[ \t]+(\S+)[ \t]*$", re.MULTILINE) for prefix in (PCI, VFIO)
}


@dataclass(frozen=True)
class Alias:
    """One line of modules.alias. ``fields`` are the seven of a PCI modalias, each a number (upper-case hexadecimal
    digits) or :data:`ANY`; ``open_end`` says whether a star stands behind the last."""

    fields: tuple[str, ...]
    open_end: bool
    module: str

    @property
    def wildcards(self) -> int:
        """How many of the fields stand for anything: 0-7."""
        return self.fields.count(ANY)

    def matches(self, device: Sequence[str]) -> bool:
        """Whether a device with these seven fields is meant."""
        return all(field in (ANY, own) for field, own in zip(self.fields, device))


class ModuleAliases:
    """The modules of a kernel by the devices they are made for. The file is read once, when first asked."""

    def __init__(self, host: Host, kernel: str | None = None) -> None:
        """:param kernel: the version of an installed kernel; None for the running one"""
        self._host = host
        self._kernel = kernel
        self._modules: dict[str, list[str]] = {}

    def modules(self, modalias: str | None) -> list[str] | None:
        """The modules that claim a device, which ``lspci -k`` lists; in the order of the file, each once.

        :param modalias: the device's own (``pci:v00008086d000010CA…``)
        :return: None when it is not known, for want of the file or of a modalias
        """
        fields = parse(modalias)
        if modalias is None or fields is None or self._by_vendor is None:
            return None
        if modalias not in self._modules:  # many devices of a host are of one kind
            near = [*self._by_vendor.get(fields[0], ()), *self._by_vendor.get(ANY, ())]
            self._modules[modalias] = list(dict.fromkeys(alias.module for alias in near if alias.matches(fields)))
        return self._modules[modalias]

    @cached_property
    def for_vfio(self) -> list[Alias] | None:
        """The lines for drivers that hand devices to user space, in the order of the file; None without the file."""
        return self._lines(VFIO)

    @cached_property
    def _by_vendor(self) -> dict[str, list[Alias]] | None:
        lines = self._lines(PCI)
        if lines is None:
            return None
        found: dict[str, list[Alias]] = {}
        for alias in lines:
            found.setdefault(alias.fields[0], []).append(alias)
        return found

    def _lines(self, prefix: str) -> list[Alias] | None:
        if self._text is None:
            return None
        return [Alias(tuple(fields), end == ANY, module) for *fields, end, module in _LINES[prefix].findall(self._text)]

    @cached_property
    def _text(self) -> str | None:
        kernel = self._kernel or self._host.attribute("/proc/sys/kernel/osrelease")
        try:
            return self._host.read_text(f"/lib/modules/{kernel}/modules.alias")
        except PassthroughError:
            return None


def parse(modalias: str | None) -> tuple[str, ...] | None:
    """The seven fields of a device's modalias, or None for anything else."""
    match = _DEVICE.fullmatch(modalias or "")
    return match.groups() if match else None
