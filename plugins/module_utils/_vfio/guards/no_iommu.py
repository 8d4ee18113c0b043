# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Without an IOMMU a guest could write all of the host's memory."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Guard, GuardContext, Reason


class NoIommu(Guard):
    """A device that is in no IOMMU group cannot be assigned (Documentation/driver-api/vfio.rst)."""

    code = "no_iommu"
    forcible = False

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.iommu_group is not None:
            return
        if context.bus.groups():
            yield Reason(
                f"{device.address} is in no IOMMU group, though other devices of this host are: no IOMMU covers it.",
                "Choose another device or another slot; kvm.passthrough.iommu_info shows all groups.",
            )
        else:
            yield Reason(
                f"{device.address} is in no IOMMU group: this host has no active IOMMU.",
                "kvm.passthrough.iommu_info says whether firmware or kernel has it switched off; "
                "kvm.passthrough.kernel_parameters switches it on in the kernel.",
            )
