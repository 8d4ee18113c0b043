# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from hypothesis import given

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu import iort
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.firmware import FirmwareUnit, ReservedMemory
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import acpi_table
from ansible_collections.kvm.passthrough.tests.unit.support.tables import VIRT_IORT, mutilated, number


def node(kind: int, data: bytes, mappings: int = 0, mapping_offset: int = 0) -> bytes:
    return (
        bytes((kind,)) + number(16 + len(data), 2) + bytes(5) + number(mappings, 4) + number(mapping_offset, 4) + data
    )


def table(*nodes: bytes) -> bytes:
    return acpi_table(b"IORT", number(len(nodes), 4) + number(48, 4) + bytes(4) + b"".join(nodes))


def test_a_machine_with_smmuv3() -> None:
    found = iort.parse(VIRT_IORT)
    assert found == iort.Iort((FirmwareUnit("smmu_v3", 0x9050000),), (), {0: True})


def test_root_complexes_without_an_smmu() -> None:
    its_group = node(0, number(1, 4) + number(0, 4))
    mapping = number(0, 4) + number(0xFFFF, 4) + number(0, 4) + number(48, 4) + number(0, 4)
    root_complex = node(2, bytes(12) + number(3, 4) + bytes(4) + mapping, 1, 36)
    smmu = node(3, number(0xE0000000, 8) + bytes(52))
    found = iort.parse(table(its_group, root_complex, smmu))
    assert found is not None
    assert found.units == (FirmwareUnit("smmu_v2", 0xE0000000),)
    assert found.segments == {3: False}


def test_reserved_memory() -> None:
    regions = b"".join(number(start, 8) + number(size, 8) + bytes(4) for start, size in ((0x8000, 0x1000), (0, 0)))
    found = iort.parse(table(node(6, bytes(4) + number(2, 4) + number(28, 4) + regions)))
    assert found is not None
    assert found.memory == (ReservedMemory(0x8000, 0x8FFF),)


@pytest.mark.parametrize("offset", [0, 35, 43, 48 + 8, 0xFFFFFFFF])
def test_nodes_at_an_impossible_place(offset: int) -> None:
    data = bytearray(VIRT_IORT)
    data[40:44] = number(offset, 4)
    found = iort.parse(bytes(data))
    assert found is None or found.units == ()


@given(mutilated(VIRT_IORT))
def test_no_table_is_too_broken(data: bytes) -> None:
    found = iort.parse(data)
    if found is not None:
        assert all(region.start <= region.end for region in found.memory)


@pytest.mark.parametrize("count", [0, 3, 0xFFFFFFFF])
def test_a_node_that_claims_countless_mappings(count: int) -> None:
    data = bytearray(VIRT_IORT)
    data[0xA8:0xAC] = number(count, 4)
    found = iort.parse(bytes(data))
    assert found is not None
    assert found.segments == {0: count > 0}
