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
_SUBSYSTEM = re.compile(r"^\t(?:\t([0-9a-f]{4}) ([0-9a-f]{4})|([0-9a-f]{4}))  (.*)$", re.MULTILINE)


class PciNames:
    """The names in pci.ids, read when the first name is asked for; only the vendors asked for are parsed."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._vendors: dict[int, tuple[str | None, dict[int, str]]] = {}
        self._subsystems: dict[int, dict[tuple[int, int, int], str]] = {}

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
        name, block = self._block(vendor_id)
        return name, {int(match[1], 16): match[2].strip() for match in _DEVICE.finditer(block)}

    def _block(self, vendor_id: int) -> tuple[str | None, str]:
        """A vendor's name, and the lines of its devices."""
        start = self._text.find(f"\n{vendor_id:04x}  ")
        if start < 0:
            return None, ""
        end_of_name = self._text.find("\n", start + 1)
        if end_of_name < 0:
            end_of_name = len(self._text)
        following = _NEXT_ENTRY.search(self._text, end_of_name)
        block = self._text[end_of_name : following.start() if following else len(self._text)]
        return self._text[start + 7 : end_of_name].strip(), block

    def _parse_subsystems(self, vendor_id: int) -> dict[tuple[int, int, int], str]:
        found = {}
        device = 0
        for match in _SUBSYSTEM.finditer(self._block(vendor_id)[1]):
            if match[3]:
                device = int(match[3], 16)
            else:
                found[device, int(match[1], 16), int(match[2], 16)] = match[4].strip()
        return found

    def vendor(self, vendor_id: int) -> str | None:
        """The vendor's name, or None when the file or the vendor is not there."""
        return self._vendor(vendor_id)[0]

    def device(self, vendor_id: int, device_id: int) -> str | None:
        """The device's name, or None when the file does not have it."""
        return self._vendor(vendor_id)[1].get(device_id)

    def subsystem(self, vendor_id: int, device_id: int, subvendor_id: int, subdevice_id: int) -> str | None:
        """What a device of these ids is called on a card of these subsystem ids, or None when the file does not say."""
        if vendor_id not in self._subsystems:
            self._subsystems[vendor_id] = self._parse_subsystems(vendor_id)
        return self._subsystems[vendor_id].get((device_id, subvendor_id, subdevice_id))
