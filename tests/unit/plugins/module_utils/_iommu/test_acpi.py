# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu import acpi
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import acpi_table
from ansible_collections.kvm.passthrough.tests.unit.support.tables import VIRT_MADT, mutilated


@given(st.binary(max_size=120), st.integers(0, 130), st.integers(0, 4), st.sampled_from([1, 2]))
def test_structures_lie_within_the_window_one_after_the_other(data: bytes, start: int, offset: int, size: int) -> None:
    window = acpi.Window(data)
    position = start
    for structure in acpi.structures(window, start, offset, size):
        assert structure.offset == position
        assert len(structure) == structure.number(offset, size) >= offset + size
        position += len(structure)
    assert position <= max(len(data), start)


def test_what_lies_outside_reads_as_zero() -> None:
    window = acpi.Window(b"\x01\x02\x03")
    assert (window.number(0, 2), window.number(1, 2), window.number(2, 2), window.number(9, 1)) == (0x201, 0x302, 0, 0)


@pytest.mark.parametrize("data", [None, b"", b"DMAR", acpi_table(b"IVRS", b"")])
def test_no_table(data: bytes | None) -> None:
    assert acpi.table(data, "DMAR") is None


def test_what_follows_a_table_is_not_part_of_it() -> None:
    table = acpi.table(acpi_table(b"DMAR", b"1234") + b"5678", "DMAR")
    assert table is not None
    assert table.data.endswith(b"1234")


def test_interrupt_controllers() -> None:
    types = acpi.madt_types(VIRT_MADT)
    assert types == frozenset((0x0C, 0x0B, 0x0E, 0x0F))
    assert acpi.MADT_GIC_ITS == 0x0F
    assert acpi.madt_types(None) is None


@given(mutilated(VIRT_MADT))
def test_no_madt_is_too_broken(data: bytes) -> None:
    acpi.madt_types(data)
