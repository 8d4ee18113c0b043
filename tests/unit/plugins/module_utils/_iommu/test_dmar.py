# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from hypothesis import given

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu import dmar
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.firmware import FirmwareUnit, ReservedMemory
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import acpi_table
from ansible_collections.kvm.passthrough.tests.unit.support.tables import Q35_DMAR, mutilated, number


def scope(kind: int, bus: int, *path: tuple[int, int]) -> bytes:
    pairs = b"".join(bytes(pair) for pair in path)
    return bytes((kind, 6 + len(pairs), 0, 0, 0, bus)) + pairs


def structure(kind: int, body: bytes) -> bytes:
    return number(kind, 2) + number(4 + len(body), 2) + body


def drhd(flags: int, segment: int, address: int, *scopes: bytes) -> bytes:
    return structure(0, bytes((flags, 0)) + number(segment, 2) + number(address, 8) + b"".join(scopes))


def rmrr(segment: int, start: int, end: int, *scopes: bytes) -> bytes:
    return structure(1, bytes(2) + number(segment, 2) + number(start, 8) + number(end, 8) + b"".join(scopes))


def table(flags: int, *structures: bytes) -> bytes:
    return acpi_table(b"DMAR", bytes((38, flags)) + bytes(10) + b"".join(structures))


# A desktop machine: a unit for the integrated GPU, one for all else, memory for USB and GPU, and some that have no
# PCI function (an I/O APIC, a timer, an ACPI device) or are of no interest (ATSR).
DESKTOP = table(
    0x05,
    drhd(0, 0, 0xFED90000, scope(1, 0, (2, 0))),
    drhd(1, 0, 0xFED91000, scope(3, 0xF0, (0x1F, 0)), scope(4, 0, (0x1F, 0))),
    rmrr(0, 0x7B800000, 0x7FFFFFFF, scope(1, 0, (2, 0))),
    structure(2, bytes(4)),
    rmrr(0, 0x79ABC000, 0x79ADBFFF, scope(1, 0, (0x14, 0)), scope(1, 0, (0x1A, 7))),
)


def nothing_behind(address: PciAddress) -> None:
    return None


def test_a_desktop_machine() -> None:
    found = dmar.parse(DESKTOP, nothing_behind)
    assert found is not None
    assert found.flags == dmar.INTERRUPT_REMAPPING | dmar.DMA_CONTROL_OPT_IN
    assert found.units == (
        FirmwareUnit("drhd", 0xFED90000, 0, ("0000:00:02.0",), False),
        FirmwareUnit("drhd", 0xFED91000, 0, (), True),
    )
    assert found.memory == (
        ReservedMemory(0x7B800000, 0x7FFFFFFF, ("0000:00:02.0",)),
        ReservedMemory(0x79ABC000, 0x79ADBFFF, ("0000:00:14.0", "0000:00:1a.7")),
    )


def test_an_emulated_machine() -> None:
    found = dmar.parse(Q35_DMAR, nothing_behind)
    assert found is not None
    devices = tuple(f"0000:00:{name}" for name in ("00.0", "02.0", "03.0", "04.0", "05.0", "1f.0", "1f.2", "1f.3"))
    assert found == dmar.Dmar(0, (FirmwareUnit("drhd", 0xFED90000, 0, devices, False),), ())


def test_devices_behind_bridges() -> None:
    behind = {"0002:00:1c.0": 5, "0002:05:00.0": 9}
    data = table(0, rmrr(2, 1, 2, scope(2, 0, (0x1C, 0), (0, 0), (3, 1)), scope(1, 0, (0x1D, 0), (0, 2))))
    found = dmar.parse(data, lambda address: behind.get(str(address)))
    assert found is not None
    assert found.memory[0].devices == ("0002:09:03.1", "0002:00:1d.0/00.2")


def test_an_impossible_path_is_shown_as_it_is() -> None:
    found = dmar.parse(table(0, rmrr(0, 1, 2, scope(1, 3, (0x20, 0)), scope(1, 3, (1, 9)))), nothing_behind)
    assert found is not None
    assert found.memory[0].devices == ("0000:03:20.0", "0000:03:01.9")


def test_a_structure_that_is_cut_off_ends_the_table() -> None:
    found = dmar.parse(table(0, drhd(1, 0, 0x1000), drhd(1, 0, 0x2000)[:-3]), nothing_behind)
    assert found is not None
    assert [unit.address for unit in found.units] == [0x1000]


@given(mutilated(DESKTOP))
def test_no_table_is_too_broken(data: bytes) -> None:
    found = dmar.parse(data, lambda address: address.bus + 1 if address.bus < 0xFF else None)
    if found is not None:
        assert 0 <= found.flags <= 0xFF
        assert len(found.units) + len(found.memory) <= len(data) / 4
        for region in found.memory:
            assert all(len(device) >= len("0000:00:00.0") for device in region.devices)
