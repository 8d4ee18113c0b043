# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IVRS table, which describes AMD-Vi.

Sources: AMD I/O Virtualization Technology (IOMMU) specification, 5.2 (5.2.1 header and IVinfo, 5.2.2 IVHD, 5.2.3
IVMD); ``struct ivhd_header`` and ``struct ivmd_header`` in drivers/iommu/amd/init.c.
"""

from __future__ import annotations

from dataclasses import dataclass

from .._pci.address import PciAddress
from . import acpi
from .firmware import FirmwareUnit, ReservedMemory

SIGNATURE = "IVRS"

DMA_REMAP_SUPPORT = 1 << 1
"""IVinfo: the firmware supports protection against DMA before the kernel runs (IOMMU_IVINFO_DMA_REMAP)."""

_IVINFO = 36
_BLOCKS = 48
_IVHD_TYPES = (0x10, 0x11, 0x40)
_IVMD_ALL, _IVMD_ONE, _IVMD_RANGE = 0x20, 0x21, 0x22
_IVMD_LENGTH = 32


@dataclass(frozen=True)
class Ivrs:
    """What the table says. ``revision`` is the table's, ``info`` its IVinfo field."""

    revision: int
    info: int
    units: tuple[FirmwareUnit, ...]
    memory: tuple[ReservedMemory, ...]


def parse(data: bytes | None) -> Ivrs | None:
    """Read the table; None when there is none, or it is too short for its IVinfo field."""
    window = acpi.table(data, SIGNATURE)
    if window is None or len(window) < _IVINFO + 4:
        return None
    # Firmware describes each unit once in every type of block it knows, for kernels that know fewer.
    units: dict[tuple[int, int], FirmwareUnit] = {}
    memory = []
    for block in acpi.structures(window, _BLOCKS, 2, 2):
        kind = block.number(0, 1)
        if kind in _IVHD_TYPES and len(block) >= 24:
            segment, device = block.number(16, 2), block.number(4, 2)
            address = _address(segment, device)
            units[segment, device] = FirmwareUnit("ivhd", block.number(8, 8), segment, (address,))
        elif kind in (_IVMD_ALL, _IVMD_ONE, _IVMD_RANGE) and len(block) >= _IVMD_LENGTH:
            memory.append(_memory(block, kind))
    return Ivrs(window.number(8, 1), window.number(_IVINFO, 4), tuple(units.values()), tuple(memory))


def _memory(block: acpi.Window, kind: int) -> ReservedMemory:
    segment, first, last = block.number(8, 2), block.number(4, 2), block.number(6, 2)
    devices: tuple[str, ...] = ()
    if kind == _IVMD_ONE:
        devices = (_address(segment, first),)
    elif kind == _IVMD_RANGE:
        devices = (f"{_address(segment, first)}-{_address(segment, last)}",)
    start, length = block.number(16, 8), block.number(24, 8)
    return ReservedMemory(start, start + max(length, 1) - 1, devices)


def _address(segment: int, device: int) -> str:
    return str(PciAddress(segment, device >> 8, device >> 3 & 0x1F, device & 7))
