# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI class codes: what they are called, and the names by which a selector may ask for them.

Source: PCI Code and ID Assignment Specification (PCI-SIG); the numbers are those of Linux' include/linux/pci_ids.h.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .._core.errors import PassthroughError

BASE_CLASSES = {
    0x00: "Unclassified device",
    0x01: "Mass storage controller",
    0x02: "Network controller",
    0x03: "Display controller",
    0x04: "Multimedia controller",
    0x05: "Memory controller",
    0x06: "Bridge",
    0x07: "Communication controller",
    0x08: "Generic system peripheral",
    0x09: "Input device controller",
    0x0A: "Docking station",
    0x0B: "Processor",
    0x0C: "Serial bus controller",
    0x0D: "Wireless controller",
    0x0E: "Intelligent controller",
    0x0F: "Satellite communications controller",
    0x10: "Encryption controller",
    0x11: "Signal processing controller",
    0x12: "Processing accelerator",
    0x13: "Non-essential instrumentation",
    0x40: "Coprocessor",
    0xFF: "Unassigned class",
}

SUBCLASSES = {
    0x0001: "VGA compatible unclassified device",
    0x0100: "SCSI storage controller",
    0x0101: "IDE interface",
    0x0104: "RAID bus controller",
    0x0105: "ATA controller",
    0x0106: "SATA controller",
    0x0107: "Serial Attached SCSI controller",
    0x0108: "Non-Volatile memory controller",
    0x0200: "Ethernet controller",
    0x0207: "InfiniBand controller",
    0x0208: "Fabric controller",
    0x0300: "VGA compatible controller",
    0x0301: "XGA compatible controller",
    0x0302: "3D controller",
    0x0400: "Multimedia video controller",
    0x0401: "Multimedia audio controller",
    0x0403: "Audio device",
    0x0500: "RAM memory",
    0x0501: "FLASH memory",
    0x0502: "CXL memory",
    0x0600: "Host bridge",
    0x0601: "ISA bridge",
    0x0604: "PCI bridge",
    0x0607: "CardBus bridge",
    0x0700: "Serial controller",
    0x0701: "Parallel controller",
    0x0780: "Communication controller",
    0x0800: "PIC",
    0x0801: "DMA controller",
    0x0802: "Timer",
    0x0803: "RTC",
    0x0805: "SD Host controller",
    0x0806: "IOMMU",
    0x0880: "System peripheral",
    0x0C00: "FireWire (IEEE 1394)",
    0x0C03: "USB controller",
    0x0C04: "Fibre Channel",
    0x0C05: "SMBus",
    0x0D11: "Bluetooth",
    0x0D80: "Wireless controller",
    0x1000: "Network and computing encryption device",
    0x1080: "Encryption controller",
    0x1101: "Performance counters",
    0x1180: "Signal processing controller",
    0x1200: "Processing accelerators",
}

# Names a selector understands -> hexadecimal prefix of the class code. A name never looks like a class code
# itself (two, four or six hexadecimal digits).
CLASS_NAMES = {
    "storage": "01",
    "scsi": "0100",
    "ide": "0101",
    "raid": "0104",
    "sata": "0106",
    "sas": "0107",
    "nvme": "010802",
    "network": "02",
    "ethernet": "0200",
    "infiniband": "0207",
    "display": "03",
    "gpu": "03",
    "vga": "0300",
    "multimedia": "04",
    "audio": "0403",
    "serial": "0700",
    "usb": "0c03",
    "xhci": "0c0330",
    "ehci": "0c0320",
    "fibrechannel": "0c04",
    "wireless": "0d",
    "encryption": "10",
    "accelerator": "12",
    "bridge": "06",
}

_PREFIX = re.compile(r"(?:0x)?((?:[0-9a-f]{2}){1,3})", re.IGNORECASE)


@dataclass(frozen=True)
class ClassPrefix:
    """The first one, two or three bytes of a class code, which a device's class has to begin with."""

    digits: str

    @classmethod
    def parse(cls, value: Any) -> ClassPrefix:
        """Read a name of :data:`CLASS_NAMES`, or two, four or six hexadecimal digits with or without ``0x``.

        :raises PassthroughError: ``pci_class_invalid``
        """
        if isinstance(value, str):
            text = value.strip().lower()
            if text in CLASS_NAMES:
                return cls(CLASS_NAMES[text])
            match = _PREFIX.fullmatch(text)
            if match:
                return cls(match[1])
        raise PassthroughError(
            "pci_class_invalid",
            f"{value!r} is no PCI class.",
            "Give two, four or six hexadecimal digits in quotes ('02', '0200', '020000'), or one of the names "
            f"{', '.join(CLASS_NAMES)}.",
            value=value,
        )

    def matches(self, pci_class: int) -> bool:
        """Whether a 24-bit class code begins with this prefix."""
        return f"{pci_class:06x}".startswith(self.digits)

    def __str__(self) -> str:
        return self.digits


def class_name(pci_class: int) -> str:
    """What a 24-bit class code is called, as far as it is known: the sub-class, else the base class."""
    base = pci_class >> 16
    return SUBCLASSES.get(pci_class >> 8) or BASE_CLASSES.get(base) or f"Class {pci_class >> 8:04x}"
