# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The DMAR table, which describes Intel VT-d.

Source: Intel Virtualization Technology for Directed I/O, architecture specification, chapter 8 (8.1 table, 8.3 DRHD
with 8.3.1 device scopes, 8.4 RMRR).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

from .._pci.address import PciAddress
from . import acpi
from .firmware import FirmwareUnit, ReservedMemory

SIGNATURE = "DMAR"

INTERRUPT_REMAPPING = 1 << 0
X2APIC_OPT_OUT = 1 << 1
DMA_CONTROL_OPT_IN = 1 << 2

_FLAGS = 37
_STRUCTURES = 48
_DRHD, _RMRR = 0, 1
_DRHD_SCOPES, _RMRR_SCOPES = 16, 24
_INCLUDE_PCI_ALL = 1 << 0

# Device scope types that name PCI functions (8.3.1); the others are I/O APICs, timers and ACPI devices.
_ENDPOINT, _SUB_HIERARCHY = 1, 2
_SCOPE_PATH = 6

SecondaryBus = Callable[[PciAddress], Optional[int]]
"""The number of the bus behind a bridge; None when that is not known."""


@dataclass(frozen=True)
class Dmar:
    """What the table says. ``flags`` are those of the whole table (the constants of this module)."""

    flags: int
    units: tuple[FirmwareUnit, ...]
    memory: tuple[ReservedMemory, ...]


def parse(data: bytes | None, secondary_bus: SecondaryBus) -> Dmar | None:
    """Read the table; None when there is none, or it is too short to have flags.

    :param secondary_bus: asked for the bridges on a device's path. A device behind one of which it knows nothing is
        given as the path itself: ``0000:00:1c.0/00.0``
    """
    window = acpi.table(data, SIGNATURE)
    if window is None or len(window) <= _FLAGS:
        return None
    units = []
    memory = []
    for structure in acpi.structures(window, _STRUCTURES, 2, 2):
        kind, segment = structure.number(0, 2), structure.number(6, 2)
        if kind == _DRHD and len(structure) >= _DRHD_SCOPES:
            units.append(
                FirmwareUnit(
                    "drhd",
                    structure.number(8, 8),
                    segment,
                    tuple(_devices(structure, _DRHD_SCOPES, segment, secondary_bus)),
                    bool(structure.number(4, 1) & _INCLUDE_PCI_ALL),
                )
            )
        elif kind == _RMRR and len(structure) >= _RMRR_SCOPES:
            memory.append(
                ReservedMemory(
                    structure.number(8, 8),
                    structure.number(16, 8),
                    tuple(_devices(structure, _RMRR_SCOPES, segment, secondary_bus)),
                )
            )
    return Dmar(window.number(_FLAGS, 1), tuple(units), tuple(memory))


def _devices(structure: acpi.Window, start: int, segment: int, secondary_bus: SecondaryBus) -> Iterator[str]:
    """The PCI functions among the device scopes of a structure."""
    for scope in acpi.structures(structure, start, 1, 1):
        if scope.number(0, 1) in (_ENDPOINT, _SUB_HIERARCHY) and len(scope) >= _SCOPE_PATH + 2:
            yield _resolved(scope, segment, secondary_bus)


def _resolved(scope: acpi.Window, segment: int, secondary_bus: SecondaryBus) -> str:
    """The address at the end of a path of (device, function) pairs that starts on a bus."""
    pairs = list(zip(scope.data[_SCOPE_PATH::2], scope.data[_SCOPE_PATH + 1 :: 2]))
    bus: int | None = scope.number(5, 1)
    for position, (slot, function) in enumerate(pairs):
        if bus is None or slot > 0x1F or function > 7:
            break
        address = PciAddress(segment, bus, slot, function)
        if position == len(pairs) - 1:
            return str(address)
        bus = secondary_bus(address)
    first, *rest = (f"{slot:02x}.{function:x}" for slot, function in pairs)
    return "/".join([f"{segment:04x}:{scope.number(5, 1):02x}:{first}", *rest])
