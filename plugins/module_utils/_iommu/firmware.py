# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What any firmware says of IOMMUs, in one form: units, and memory that has to stay mapped for some devices."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FirmwareUnit:
    """An IOMMU that the firmware describes, whether the kernel drives it or not.

    ``kind`` is the structure's own name (``drhd``, ``ivhd``, ``smmu_v3`` …), ``address`` the physical address of its
    registers. ``devices`` are the PCI addresses it names (the IOMMU's own one of an ``ivhd``); ``all_other_devices``
    tells that it covers whatever the segment's other units do not name. ``enabled`` is False when the firmware
    describes it and says that it is not to be used.
    """

    kind: str
    address: int
    segment: int | None = None
    devices: tuple[str, ...] = ()
    all_other_devices: bool | None = None
    enabled: bool = True
    node: str | None = None

    def as_result(self) -> dict[str, Any]:
        """The unit as JSON values; what its kind does not have is left out."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "address": f"0x{self.address:x}",
            "devices": list(self.devices),
            "enabled": self.enabled,
        }
        optional = {"segment": self.segment, "all_other_devices": self.all_other_devices, "node": self.node}
        found.update({name: value for name, value in optional.items() if value is not None})
        return found


@dataclass(frozen=True)
class ReservedMemory:
    """Memory that the firmware wants mapped one to one for devices: first and last address, both inclusive.

    ``devices`` are PCI addresses; none when the firmware does not name them one by one.
    """

    start: int
    end: int
    devices: tuple[str, ...] = ()

    def as_result(self) -> dict[str, Any]:
        """The region as JSON values."""
        return {"start": f"0x{self.start:x}", "end": f"0x{self.end:x}", "devices": list(self.devices)}


def as_result(units: Iterable[FirmwareUnit], memory: Iterable[ReservedMemory]) -> dict[str, Any]:
    """Both as the keys of the module's result."""
    return {
        "units": [unit.as_result() for unit in units],
        "reserved_memory": [region.as_result() for region in memory],
    }
