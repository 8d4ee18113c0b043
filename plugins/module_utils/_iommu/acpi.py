# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading ACPI tables: bytes from the firmware, which may be cut off, wrong or malicious, and never raise anything.

Sources: ACPI specification, 5.2.6 (header of a table) and 5.2.12 (MADT, whose signature is "APIC").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

HEADER_LENGTH = 36

# Subtable types of the MADT (ACPI specification, 5.2.12): where message-signalled interrupts of an Arm machine go.
MADT_GIC_MSI_FRAME = 0x0D
MADT_GIC_ITS = 0x0F
_MADT_SUBTABLES = 44


@dataclass(frozen=True)
class Window:
    """Part of a table, with offsets of its own. Numbers are little endian; what lies outside reads as 0."""

    data: bytes
    offset: int = 0

    def __len__(self) -> int:
        return len(self.data)

    def number(self, offset: int, size: int) -> int:
        """The unsigned number of so many bytes at an offset; 0 where the window is too short for it."""
        field = self.data[offset : offset + size]
        return int.from_bytes(field, "little") if len(field) == size else 0

    def part(self, start: int, length: int) -> Window:
        """The bytes from an offset on, as many as there are of ``length``."""
        return Window(self.data[start : start + length], self.offset + start)


def table(data: bytes | None, signature: str) -> Window | None:
    """A table without what follows its length; None when it is none of this signature, or has not even a header."""
    if data is None or len(data) < HEADER_LENGTH or data[:4] != signature.encode():
        return None
    return Window(data[: int.from_bytes(data[4:8], "little")])


def structures(window: Window, start: int, length_offset: int, length_size: int) -> Iterator[Window]:
    """The structures that follow each other from ``start`` on, each of which says how long it is.

    Where a length is impossible (too short to hold itself, or beyond the end) nothing that follows can be trusted.

    :param length_offset: where in a structure its length stands, which counts the whole structure
    """
    while start + length_offset + length_size <= len(window):
        length = window.number(start + length_offset, length_size)
        if length < length_offset + length_size or start + length > len(window):
            return
        yield window.part(start, length)
        start += length


def madt_types(data: bytes | None) -> frozenset[int] | None:
    """The types of the interrupt controllers that the MADT lists; None when there is no such table to read."""
    window = table(data, "APIC")
    if window is None:
        return None
    return frozenset(entry.number(0, 1) for entry in structures(window, _MADT_SUBTABLES, 1, 1))
