# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device that a running virtual machine uses."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Change, Guard, GuardContext, Reason


class InUseByDomain(Guard):
    """Open VFIO files say who uses a device or its group, whatever started the process. A PF answers for its VFs."""

    code = "in_use_by_domain"
    changes = frozenset(Change)

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        vfs = [context.bus.device(address) for address in device.vfs if address in context.bus]
        for function in (device, *vfs):
            what = str(device.address)
            if function is not device:
                what = f"{function.address}, a virtual function of {device.address},"
            for holder in context.holders.of(function):
                yield Reason(
                    f"{what} or another device of its IOMMU group {function.iommu_group} is in use by {holder}.",
                    "Shut that virtual machine down or detach the device from it first.",
                )
