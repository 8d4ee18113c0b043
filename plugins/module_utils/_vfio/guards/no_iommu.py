# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Without an IOMMU a guest could write all of the host's memory."""

from __future__ import annotations

from collections.abc import Iterator

from ..._iommu.groups import may_join_group_later
from ..._pci.device import IOMMU_GROUPS, PciDevice, is_vfio_driver
from .base import Change, Guard, GuardContext, Reason, Severity

# drivers/vfio/group.c, vfio_noiommu_group_alloc(): the group of a device that is in none.
_NO_GROUP = "vfio-noiommu"


class NoIommu(Guard):
    """A device that is in no IOMMU group cannot be assigned (Documentation/driver-api/vfio.rst)."""

    code = "no_iommu"
    forcible = False
    changes = frozenset((Change.BIND, Change.ASSIGN))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.iommu_group is not None:
            if is_vfio_driver(device.driver) and _is_made_up(device.iommu_group, context):
                yield Reason(
                    f"{device.address} is bound to {device.driver} without an IOMMU (VFIO's enable_unsafe_noiommu_mode "
                    "is on): a guest cannot be given it, and a process that has it can write all of the host's memory.",
                    "kvm.passthrough.iommu_info says why no IOMMU covers it.",
                )
        elif may_join_group_later(device, context.machine):
            yield Reason(
                f"The IOMMU group of {device.address} is not known before a driver has probed the device.",
                "Binding it with kvm.passthrough.vfio_devices shows the group; the module takes the binding back when "
                "the device turns out to have no group, or one that it shares with devices of the host.",
                Severity.WARNING,
                certain=False,
            )
        elif context.bus.groups():
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


def _is_made_up(group: int, context: GuardContext) -> bool:
    return context.host.attribute(f"{IOMMU_GROUPS}/{group}/name") == _NO_GROUP
