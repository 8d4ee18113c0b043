# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Firmware tables for tests: some as real firmware made them, and strategies for those that no firmware would make."""

from __future__ import annotations

from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import acpi_table

# IORT and MADT of QEMU's machine "virt" with iommu=smmuv3 and gic-version=3, started with UEFI.
VIRT_IORT = bytes.fromhex(
    "494f5254ec0000000355424f4348532042585043202020200100000042585043"
    "0100000003000000300000000000000000180001000000000000000000000000"
    "0100000000000000045800040100000001000000440000000000050900000000"
    "01000000000000000000000000000000000000006a0000006b0000006d000000"
    "6c000000000000000000000000000000ffff0000000000003000000000000000"
    "024c000302000000020000002400000001000000000000030000000000000000"
    "4000000000000000ff01000000000000480000000000000000020000fffd0000"
    "000200003000000000000000"
)
VIRT_MADT = bytes.fromhex(
    "415049430801000004fa424f4348532042585043202020200100000042585043"
    "0100000000000000000000000c18000000000000000000080000000000000000"
    "030000000b500000000000000000000001000000000000001700000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000"
    "00000000000000000000000000000000000000000b5000000100000001000000"
    "0100000000000000170000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000100000000000000"
    "000000000e10000000000a08000000000000f6000f1400000000000000000808"
    "0000000000000000"
)


def mutilated(table: bytes) -> st.SearchStrategy[bytes]:
    """A table with some bytes changed, cut off or added, as well as bytes that never were a table."""
    changed = st.lists(st.tuples(st.integers(0, len(table) - 1), st.integers(0, 255)), max_size=6).map(
        lambda changes: _with(table, changes)
    )
    cut = st.integers(0, len(table)).map(lambda end: table[:end])
    signature = table[:4]
    garbage = st.binary(max_size=300).map(lambda body: acpi_table(signature, body))
    return st.one_of(changed, cut, garbage, st.binary(max_size=200), changed.map(lambda data: data + data[40:]))


def _with(table: bytes, changes: list[tuple[int, int]]) -> bytes:
    data = bytearray(table)
    for offset, value in changes:
        data[offset] = value
    return bytes(data)
