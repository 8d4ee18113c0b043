# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bridges carry the devices behind them and are never given away."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Guard, GuardContext, Reason


class Bridge(Guard):
    """VFIO takes endpoints only (drivers/vfio/pci/vfio_pci_core.c refuses every header type but 0)."""

    code = "bridge"
    forcible = False

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.is_bridge:
            yield Reason(
                f"{device.address} is a bridge (class 0x{device.pci_class >> 8:04x}): it carries the devices behind it "
                "and VFIO does not take it.",
                "Name the devices behind it; a bridge does not have to be bound for its IOMMU group to be usable.",
            )
