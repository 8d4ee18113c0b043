# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is found in a PCI function's configuration space only: the PCI Express device serial number.

Only what is needed is read: every double word is a transaction on the bus, and a whole extended configuration space
is a thousand of them. Without CAP_SYS_ADMIN the kernel shows the first 64 bytes (drivers/pci/pci-sysfs.c,
``pci_read_config``), and of conventional PCI there are 256 (``pci_cfg_space_size``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

Reader = Callable[[int, int], bytes]
"""Gives so many bytes from an offset of the configuration space on; fewer, or none, where there are no more."""

# include/uapi/linux/pci_regs.h: PCI_CFG_SPACE_SIZE, PCI_CFG_SPACE_EXP_SIZE, PCI_EXT_CAP_ID_DSN
_EXTENDED = 0x100
_END = 0x1000
_ID_SERIAL = 0x0003

_SILENT = b"\xff\xff\xff\xff"  # what the host bridge answers for a function that does not


@dataclass(frozen=True)
class Serial:
    """A serial number as lspci prints it (``00-1b-21-ff-ff-aa-bb-cc``), None for none; ``readable``: whether that is
    known, that is, whether the extended configuration space could be read, or there is none."""

    number: str | None
    readable: bool


def read_serial(read: Reader) -> Serial:
    """The device serial number (PCI Express Base Specification, Device Serial Number Extended Capability).

    The capability holds the lower double word of the 64-bit number first; lspci prints the highest byte first
    (ls-ecaps.c, ``cap_dsn``). Zero is no number (drivers/pci/pci.c, ``pci_get_dsn``), nor is all ones.
    """
    header = read(_EXTENDED, 4)
    if len(header) < 4:
        return Serial(None, readable=len(read(_EXTENDED - 4, 4)) == 4)
    if header == _SILENT:
        return Serial(None, readable=read(0, 4) not in (_SILENT, b""))
    offset = _find_extended(read, header, _ID_SERIAL)
    if offset is None:
        return Serial(None, readable=True)
    data = read(offset + 4, 8)
    if len(data) < 8:
        return Serial(None, readable=False)
    if data in (bytes(8), _SILENT * 2):
        return Serial(None, readable=True)
    return Serial("-".join(f"{byte:02x}" for byte in reversed(data)), readable=True)


def _find_extended(read: Reader, header: bytes, wanted: int) -> int | None:
    """The offset of an extended capability; ``header`` is that of the first one.

    Each header holds a 16-bit id, a 4-bit version and the offset of the next capability (12 bits, the lowest two
    reserved), which ends the list when it is below 0x100. A list that runs in a circle ends as well.
    """
    offset = _EXTENDED
    seen = set()
    while len(header) == 4 and header != _SILENT and offset not in seen:
        seen.add(offset)
        value = int.from_bytes(header, "little")
        if value & 0xFFFF == wanted:
            return offset
        offset = value >> 20 & 0xFFC
        if not _EXTENDED <= offset < _END:
            return None
        header = read(offset, 4)
    return None
