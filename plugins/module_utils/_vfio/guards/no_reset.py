# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device that nobody can reset comes to a guest as the last one left it."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import PassthroughError
from ..._pci.address import PciAddress
from ..._pci.device import PciDevice
from .base import Change, Guard, GuardContext, Reason, Severity


class NoReset(Guard):
    """Neither the function alone can be reset, nor its bus as a whole.

    It is a warning, since nothing refuses such a device: vfio-pci only notes that the reset did not work
    (drivers/vfio/pci/vfio_pci_core.c, ``vfio_pci_core_enable``), libvirt leaves resetting to VFIO
    (``virPCIDeviceReset``), and most of these devices start well in a guest all the same.

    A function without a reset of its own (the audio part of a graphics card) is reset with its bus when one guest has
    all that is on it (``VFIO_DEVICE_PCI_HOT_RESET``), which is certain when all of that is in one IOMMU group.
    """

    code = "no_reset"
    forcible = False
    refuses = False
    changes = frozenset((Change.BIND, Change.ASSIGN))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.is_bridge or _resets_alone(device, context) or _resets_with_its_bus(device, context):
            return
        yield Reason(
            f"The kernel knows no way to reset {device.address}: a guest finds it in the state in which the host or "
            "another guest left it, and may not get it to work a second time before the host is rebooted.",
            "Give it to guests that trust each other only, and try whether it survives a restart of the guest.",
            Severity.WARNING,
        )


def _resets_alone(device: PciDevice, context: GuardContext) -> bool:
    """drivers/pci/pci-sysfs.c: a function that cannot be reset has no attribute ``reset``.

    Since 5.15 ``reset_method`` is there beside it, and empty where an administrator switched resetting off.
    """
    methods = device.attribute("reset_method")
    return bool(methods) if methods is not None else context.host.exists(f"{device.path}/reset")


def _resets_with_its_bus(device: PciDevice, context: GuardContext) -> bool:
    """A bus below a bridge is reset by that bridge, with everything on it; the root bus is not."""
    above = context.host.real_path(device.path).rpartition("/")[0]
    if PciAddress.from_sysfs(above.rpartition("/")[2]) is None:
        return False
    names = map(PciAddress.from_sysfs, context.host.list_dir(above))
    on_bus = [address for address in names if address is not None]
    try:
        return all(address in device.group_members and not context.bus.device(address).is_bridge for address in on_bus)
    except PassthroughError:  # one vanished meanwhile, and with it what was known of the bus
        return False
