# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IORT table, which describes the SMMUs of an Arm machine with ACPI, and which devices are behind them.

Source: IO Remapping Table, Arm DEN 0049 (3 table, 3.1.1 nodes and their ID mappings); ``struct acpi_iort_node`` and
its data in include/acpi/actbl2.h.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import acpi
from .firmware import FirmwareUnit, ReservedMemory

SIGNATURE = "IORT"

_NODE_OFFSET = 40
_NODE_DATA = 16
_ROOT_COMPLEX, _SMMU, _SMMU_V3, _RESERVED_MEMORY = 2, 3, 4, 6
_SMMUS = {_SMMU: "smmu_v2", _SMMU_V3: "smmu_v3"}
_MAPPING_LENGTH = 20
_REGION_LENGTH = 20


@dataclass(frozen=True)
class Iort:
    """What the table says. ``segments`` are the PCI segments: whether an SMMU translates any of a segment's DMA."""

    units: tuple[FirmwareUnit, ...]
    memory: tuple[ReservedMemory, ...]
    segments: dict[int, bool]


def parse(data: bytes | None) -> Iort | None:
    """Read the table; None when there is none, or it is too short to say where its nodes are."""
    window = acpi.table(data, SIGNATURE)
    if window is None or len(window) < _NODE_OFFSET + 4:
        return None
    start = window.number(_NODE_OFFSET, 4)
    if start < _NODE_OFFSET + 4:
        return None
    nodes = {node.offset: node for node in acpi.structures(window, start, 1, 2) if len(node) >= _NODE_DATA}
    units = []
    memory: list[ReservedMemory] = []
    segments: dict[int, bool] = {}
    for node in nodes.values():
        kind = node.number(0, 1)
        if kind in _SMMUS:
            units.append(FirmwareUnit(_SMMUS[kind], node.number(_NODE_DATA, 8)))
        elif kind == _ROOT_COMPLEX:
            segment = node.number(28, 4)
            segments[segment] = segments.get(segment, False) or _leads_to_smmu(node, nodes)
        elif kind == _RESERVED_MEMORY:
            memory += _regions(node)
    return Iort(tuple(units), tuple(memory), segments)


def _leads_to_smmu(node: acpi.Window, nodes: dict[int, acpi.Window]) -> bool:
    """Whether an ID mapping of a node ends at an SMMU. (Others end at an interrupt translation service.)"""
    start = node.number(12, 4)
    for index in range(min(node.number(8, 4), len(node) // _MAPPING_LENGTH)):
        mapping = node.part(start + index * _MAPPING_LENGTH, _MAPPING_LENGTH)
        target = nodes.get(mapping.number(12, 4))
        if target is not None and target.number(0, 1) in _SMMUS:
            return True
    return False


def _regions(node: acpi.Window) -> list[ReservedMemory]:
    found = []
    start = node.number(24, 4)
    for index in range(min(node.number(20, 4), len(node) // _REGION_LENGTH)):
        region = node.part(start + index * _REGION_LENGTH, _REGION_LENGTH)
        address, length = region.number(0, 8), region.number(8, 8)
        if length:
            found.append(ReservedMemory(address, address + length - 1))
    return found
