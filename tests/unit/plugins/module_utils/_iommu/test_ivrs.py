# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from hypothesis import given

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu import ivrs
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.firmware import FirmwareUnit, ReservedMemory
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import acpi_table
from ansible_collections.kvm.passthrough.tests.unit.support.tables import Q35_IVRS, mutilated, number


def ivhd(kind: int, device: int, address: int, segment: int = 0) -> bytes:
    size = 24 if kind == 0x10 else 40
    head = bytes((kind, 0xB0)) + number(size + 4, 2) + number(device, 2) + number(0x40, 2) + number(address, 8)
    return (head + number(segment, 2)).ljust(size, b"\0") + bytes((0x01, 0, 0, 0))


def ivmd(kind: int, first: int, last: int, start: int, length: int) -> bytes:
    head = bytes((kind, 0x01)) + number(32, 2) + number(first, 2) + number(last, 2) + bytes(8)
    return head + number(start, 8) + number(length, 8)


SERVER = acpi_table(
    b"IVRS",
    number(0x00203043, 4)
    + bytes(8)
    + ivhd(0x10, 0x0002, 0xFD200000)
    + ivhd(0x10, 0x4002, 0xFD300000)
    + ivhd(0x11, 0x0002, 0xFD200000)
    + ivhd(0x11, 0x4002, 0xFD300000)
    + ivhd(0x40, 0x0002, 0xFD300000, 1)
    + ivmd(0x20, 0, 0, 0x1000, 0x1000)
    + ivmd(0x21, 0x00A0, 0, 0x9000, 0)
    + ivmd(0x22, 0x0100, 0x01FF, 0x10000, 0x8000),
)


def test_a_server_with_several_units_each_described_several_times() -> None:
    found = ivrs.parse(SERVER)
    assert found is not None
    assert (found.revision, found.info) == (1, 0x00203043)
    assert found.info & ivrs.DMA_REMAP_SUPPORT
    assert found.units == (
        FirmwareUnit("ivhd", 0xFD200000, 0, ("0000:00:00.2",)),
        FirmwareUnit("ivhd", 0xFD300000, 0, ("0000:40:00.2",)),
        FirmwareUnit("ivhd", 0xFD300000, 1, ("0001:00:00.2",)),
    )
    assert found.memory == (
        ReservedMemory(0x1000, 0x1FFF),
        ReservedMemory(0x9000, 0x9000, ("0000:00:14.0",)),
        ReservedMemory(0x10000, 0x17FFF, ("0000:01:00.0-0000:01:1f.7",)),
    )


def test_an_emulated_machine() -> None:
    unit = FirmwareUnit("ivhd", 0xFED80000, 0, ("0000:00:01.0",))
    assert ivrs.parse(Q35_IVRS) == ivrs.Ivrs(1, 0x2801, (unit,), ())


@given(mutilated(SERVER))
def test_no_table_is_too_broken(data: bytes) -> None:
    found = ivrs.parse(data)
    if found is not None:
        assert all(region.start <= region.end for region in found.memory)
