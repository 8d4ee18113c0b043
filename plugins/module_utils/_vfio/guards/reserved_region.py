# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Memory that the firmware wants mapped for a device as long as the host runs."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Change, Guard, GuardContext, Reason


class ReservedRegion(Guard):
    """A region of type ``direct`` (Intel: RMRR, AMD: IVMD, Arm: RMR) keeps the whole IOMMU group with the host.

    Binding is harmless, and the kernel is who refuses when a guest is started: for VT-d since Linux 3.17, for all
    IOMMUs since 6.6 (drivers/iommu/iommu.c, ``require_direct``). So it can be forced, for kernels that do not. Regions
    the kernel may give up (``direct-relaxable``: USB, graphics) and those of interrupts (``msi``) do not count.
    """

    code = "reserved_region"
    changes = frozenset((Change.BIND, Change.ASSIGN))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.iommu_group is None:
            return
        regions = context.group(device.iommu_group).blocking_regions
        if regions:
            ranges = ", ".join(f"0x{region.start:x}-0x{region.end:x}" for region in regions)
            yield Reason(
                f"The firmware keeps memory ({ranges}) mapped for {device.address} or another device of its IOMMU "
                f"group {device.iommu_group}, and the kernel therefore gives none of them to a guest.",
                "Switch off in the firmware what uses it (often the shared management of a network or storage "
                "controller), or choose another device.",
            )
