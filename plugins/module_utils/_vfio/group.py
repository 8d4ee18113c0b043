# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The devices of an IOMMU group go to a guest together or not at all.

To the IOMMU the devices of a group are one. The kernel opens a group to user space only while no driver of the host has
one of its endpoints (drivers/iommu/iommu.c, ``iommu_group_claim_dma_owner``); bridges are left out.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from .._core.errors import PassthroughError, Problem
from .._iommu.groups import leaves_group_free
from .._pci.address import PciAddress
from .._pci.device import Bus, PciDevice
from .guards.system_device import platform_part


def mates(device: PciDevice, bus: Bus) -> list[PciDevice]:
    """The other devices of the group that have to go with a device, in bus order.

    Bridges do not. Nor do parts of the platform that have no driver (the memory controller beside Intel's USB
    controller): nothing uses them, and nothing will.
    """
    others = [bus.device(address) for address in device.group_members if address != device.address and address in bus]
    return [other for other in others if _has_to_go(other)]


def mates_to_take(device: PciDevice, bus: Bus) -> list[PciDevice]:
    """Those of :func:`mates` that have to be taken from the host; the others are with VFIO, or parked on pci-stub."""
    return [mate for mate in mates(device, bus) if mate.driver is None or not leaves_group_free(mate.driver)]


def unlisted_mates(
    devices: Iterable[PciDevice], bus: Bus, returning: Collection[PciAddress] = frozenset()
) -> list[Problem]:
    """One problem (``group_not_viable``) for each group of which some devices are asked for and others are in the way.

    A mate that is bound to a VFIO driver, or to pci-stub, is not in the way, unless it is ``returning`` to the host.
    """
    groups: dict[int, list[PciDevice]] = {}
    for device in devices:
        if device.iommu_group is not None and not device.is_bridge:
            groups.setdefault(device.iommu_group, []).append(device)
    problems = []
    for group, asked in sorted(groups.items()):
        missing = _missing(asked, bus, returning)
        if missing:
            names = ", ".join(str(device.address) for device in asked)
            listed = ", ".join(f"{mate.address} ({mate.ids}, {_kept_by(mate, returning)})" for mate in missing)
            problems.append(
                Problem(
                    "group_not_viable",
                    f"{names} cannot be given away alone: IOMMU group {group} also has {listed}.",
                    "List them too, or set group to include; where that is not wanted, another slot may be in a group "
                    "of its own.",
                    {
                        "device": str(asked[0].address),
                        "iommu_group": group,
                        "mates": [str(mate.address) for mate in missing],
                    },
                )
            )
    return problems


def _has_to_go(mate: PciDevice) -> bool:
    try:
        return not mate.is_bridge and (mate.driver is not None or platform_part(mate) is None)
    except PassthroughError:  # it vanished meanwhile
        return False


def _missing(asked: list[PciDevice], bus: Bus, returning: Collection[PciAddress]) -> list[PciDevice]:
    listed = {device.address for device in asked}
    in_the_way = {mate.address for mate in mates_to_take(asked[0], bus)}.union(returning) - listed
    return [mate for mate in mates(asked[0], bus) if mate.address in in_the_way]


def _kept_by(device: PciDevice, returning: Collection[PciAddress]) -> str:
    if device.address in returning:
        return "given back to the host"
    return f"driver {device.driver}" if device.driver is not None else "no driver"
