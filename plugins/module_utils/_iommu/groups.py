# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""IOMMU groups: what can only be given to a guest as a whole.

Sources: Documentation/driver-api/vfio.rst, Documentation/ABI/testing/sysfs-kernel-iommu_groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._core.errors import PassthroughError
from .._pci.address import PciAddress
from .._pci.device import Bus, PciDevice, ReservedRegion, is_vfio_driver
from .machine import Machine

# The drivers besides VFIO's that leave a device's DMA alone: ``driver_managed_dma`` in drivers/pci/pci-stub.c and
# drivers/pci/pcie/portdrv.c.
HARMLESS_DRIVERS = frozenset(("pci-stub", "pcieport"))

# drivers/iommu/iommu.c: a device with a region that has to stay mapped one to one cannot be assigned. The kernel
# shows regions that it may give up for assignment as "direct-relaxable".
BLOCKING_REGION = "direct"


@dataclass(frozen=True)
class Group:
    """An IOMMU group at one moment.

    ``bound`` are the endpoints that drivers of the host hold, with the driver. ``isolated`` says whether all endpoints
    are of one device, so that no other device has to go where one of them goes.
    """

    number: int
    type: str | None
    members: tuple[PciAddress, ...]
    regions: tuple[ReservedRegion, ...]
    bound: tuple[tuple[PciAddress, str], ...]
    isolated: bool = True

    @property
    def is_viable(self) -> bool:
        """Whether VFIO can use the group now: every endpoint has a VFIO driver or none; bridges do not count."""
        return not self.bound

    @property
    def blocking_regions(self) -> tuple[ReservedRegion, ...]:
        """The regions that stand against assigning any device of the group."""
        return tuple(region for region in self.regions if region.type == BLOCKING_REGION)

    def as_result(self) -> dict[str, Any]:
        """The group as JSON values."""
        return {
            "number": self.number,
            "type": self.type,
            "devices": [str(address) for address in self.members],
            "viable": self.is_viable,
            "isolated": self.isolated,
            "bound_to_host": [{"address": str(address), "driver": driver} for address, driver in self.bound],
            "reserved_regions": [
                {"start": f"0x{region.start:x}", "end": f"0x{region.end:x}", "type": region.type}
                for region in self.regions
            ],
        }


# What the kernel calls units whose devices it knows without asking the firmware about each: VT-d, AMD-Vi, IBM Z, POWER.
_UNITS_THAT_KNOW_THEIR_DEVICES = ("dmar", "ivhd", "s390-iommu", "iommu-phb")


def may_join_group_later(device: PciDevice, machine: Machine) -> bool:
    """Whether a device is in no IOMMU group only because no driver has probed it yet.

    Which unit (an Arm SMMU, a virtio IOMMU) a device is behind stands in the device tree, IORT or VIOT, and until Linux
    6.15 the kernel looked there only when a driver probed the device: drivers/base/dd.c, ``really_probe``, through
    ``of_dma_configure_id`` or ``acpi_dma_configure_id`` (changed by commit bcb81ac6ae3c). Seen with Linux 6.12.
    """
    if device.iommu_group is not None or device.driver is not None:
        return False
    return any(not unit.name.startswith(_UNITS_THAT_KNOW_THEIR_DEVICES) for unit in machine.units)


def leaves_group_free(driver: str | None) -> bool:
    """Whether VFIO can use the group of a device that has this driver (None: no driver).

    Source: drivers/pci/pci-driver.c, ``pci_dma_configure`` (a driver without ``driver_managed_dma`` claims the group).
    """
    return driver is None or is_vfio_driver(driver) or driver in HARMLESS_DRIVERS


def read_group(bus: Bus, number: int) -> Group:
    """The IOMMU group of this number."""
    members = bus.group_members(number)
    bound = []
    for address in members:
        driver = _host_driver(bus.device(address)) if address in bus else None
        if driver is not None:
            bound.append((address, driver))
    return Group(
        number,
        bus.group_type(number),
        tuple(members),
        tuple(bus.reserved_regions(number)),
        tuple(bound),
        _isolated(bus, members),
    )


def read_groups(bus: Bus) -> list[Group]:
    """Every IOMMU group, by number."""
    return [read_group(bus, number) for number in bus.groups()]


def _isolated(bus: Bus, members: list[PciAddress]) -> bool:
    """Whether the endpoints of a group belong to one device: functions of one slot, or VFs of a function there.

    Others are in a group with it when nothing between them keeps their transactions apart (PCIe ACS;
    ``pci_device_group`` in drivers/iommu/iommu.c).
    """
    if len(members) < 2:
        return True
    slots = set()
    for address in members:
        if address not in bus:
            continue
        device = bus.device(address)
        try:
            if device.is_bridge:
                continue
        except PassthroughError:  # it vanished meanwhile
            continue
        owner = device.pf or address
        slots.add((owner.domain, owner.bus, owner.slot))
    return len(slots) < 2


def _host_driver(device: PciDevice) -> str | None:
    """The driver of the host that holds an endpoint; None when nothing stands against VFIO."""
    driver = device.driver
    if leaves_group_free(driver):
        return None
    try:
        return None if device.is_bridge else driver
    except PassthroughError:  # it vanished meanwhile
        return None
