# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of vendors and devices from the host's own pci.ids (the file lspci reads; format: pci.ids(5))."""

from __future__ import annotations

import re
from functools import cached_property

from .._core.errors import PassthroughError
from .._core.host import Host

PCI_IDS_FILES = (
    "/usr/share/misc/pci.ids",
    "/usr/share/hwdata/pci.ids",
    "/usr/share/pci.ids",
    "/var/lib/pciutils/pci.ids",
)

# A vendor begins at the first column; its devices have one tab, their subsystems two. Comments begin with "#".
_NEXT_ENTRY = re.compile(r"^[^\t\n#]", re.MULTILINE)
_DEVICE = re.compile(r"^\t([0-9a-f]{4})  (.*)$", re.MULTILINE)


class PciNames:
    """The names in pci.ids, read when the first name is asked for; only the vendors asked for are parsed."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._vendors: dict[int, tuple[str | None, dict[int, str]]] = {}
        self._subsystems: dict[tuple[int, int, int, int], str | None] = {}

    @cached_property
    def _text(self) -> str:
        for path in PCI_IDS_FILES:
            try:
                return "\n" + self._host.read_text(path)
            except PassthroughError:
                continue
        return ""

    def _vendor(self, vendor_id: int) -> tuple[str | None, dict[int, str]]:
        if vendor_id not in self._vendors:
            self._vendors[vendor_id] = self._parse(vendor_id)
        return self._vendors[vendor_id]

    def _parse(self, vendor_id: int) -> tuple[str | None, dict[int, str]]:
        start = self._text.find(f"\n{vendor_id:04x}  ")
        if start < 0:
            return None, {}
        end_of_name = self._text.find("\n", start + 1)
        if end_of_name < 0:
            end_of_name = len(self._text)
        names = {int(match[1], 16): match[2].strip() for match in _DEVICE.finditer(self._block(end_of_name))}
        return self._text[start + 7 : end_of_name].strip(), names

    def _block(self, end_of_name: int) -> str:
        """What belongs to the vendor whose name ends there."""
        following = _NEXT_ENTRY.search(self._text, end_of_name)
        return self._text[end_of_name : following.start() if following else len(self._text)]

    def vendor(self, vendor_id: int) -> str | None:
        """The vendor's name, or None when the file or the vendor is not there."""
        return self._vendor(vendor_id)[0]

    def device(self, vendor_id: int, device_id: int) -> str | None:
        """The device's name, or None when the file does not have it."""
        return self._vendor(vendor_id)[1].get(device_id)

    def subsystem(
        self, vendor_id: int, device_id: int, subsystem_vendor_id: int, subsystem_device_id: int
    ) -> str | None:
        """The name of the card a chip is on, or None when the file does not have it.

        Where the card has the ids of its chip, it also has its name (pciutils, lib/names.c, ``pci_lookup_name``).
        """
        ids = (vendor_id, device_id, subsystem_vendor_id, subsystem_device_id)
        if ids not in self._subsystems:
            named = self._parse_subsystem(*ids)
            same = (vendor_id, device_id) == (subsystem_vendor_id, subsystem_device_id)
            self._subsystems[ids] = self.device(vendor_id, device_id) if named is None and same else named
        return self._subsystems[ids]

    def _parse_subsystem(self, vendor_id: int, device_id: int, subvendor_id: int, subdevice_id: int) -> str | None:
        start = self._text.find(f"\n{vendor_id:04x}  ")
        end_of_name = self._text.find("\n", start + 1)
        if start < 0 or end_of_name < 0 or self.device(vendor_id, device_id) is None:
            return None
        _unused, _unused, rest = self._block(end_of_name).partition(f"\n\t{device_id:04x}  ")
        wanted = f"\t\t{subvendor_id:04x} {subdevice_id:04x}  "
        for line in rest.split("\n")[1:]:
            if line.startswith(wanted):
                return line[len(wanted) :].strip()
            if line and not line.startswith(("\t\t", "#")):
                return None
        return None
