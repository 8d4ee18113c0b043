# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Without interrupt remapping a guest could send interrupts to the host."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Change, Guard, GuardContext, Reason


class NoInterruptRemapping(Guard):
    """VFIO opens no device then, unless it is told to do without (``allow_unsafe_interrupts``).

    Binding is harmless, so it can be forced, for the administrator who sets that option later. Source:
    drivers/vfio/vfio_iommu_type1.c, ``vfio_iommu_type1_attach_group``, and drivers/iommu/iommufd/device.c,
    ``iommufd_device_bind`` (both -EPERM without isolated interrupts).
    """

    code = "no_interrupt_remapping"
    changes = frozenset((Change.BIND, Change.ASSIGN))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.iommu_group is not None and context.unsafe_interrupts is not None:
            yield Reason(
                f"Interrupt remapping is off on this host ({context.unsafe_interrupts}), so that VFIO refuses "
                f"{device.address} when a guest is started with it.",
                "Switch it on in the firmware setup (with x2APIC), and remove intremap=off and nointremap from the "
                "kernel's parameters. Only when all guests are trusted: let VFIO do without it "
                "(vfio_iommu_type1.allow_unsafe_interrupts=1).",
            )
