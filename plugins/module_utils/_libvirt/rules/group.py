# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes with a device: its IOMMU group, and the other functions of its slot."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from ..._iommu.groups import leaves_group_free
from ..._pci.device import PciDevice, is_vfio_driver
from .context import Context, Subject


def functions_declared(context: Context) -> Iterator[Problem]:
    """Every function of a multifunction device is declared, one that the guest does not get with ``assigned: false``.

    Functions of one slot that share an IOMMU group can only be given away together; functions in groups of their own
    (such as VFs) are devices of their own. libvirt does not ask for it.

    Source: the RFC of 2019 for partial assignment ("all the functions of the PCI multifunction device must be
    declared …, even if they're not going to be assigned"), so that nobody is surprised by what the host loses.
    """
    for group, subject in _concerned(context):
        siblings = set(_device(context, subject).siblings)
        missing = [mate for mate in _undeclared(context, group) if mate.address in siblings]
        if missing:
            yield subject.problem(
                "functions_undeclared",
                f"the device is one function of several in IOMMU group {group}, and {_listed(missing)} "
                f"{'is' if len(missing) == 1 else 'are'} not declared.",
                _remedy(missing),
                missing=[str(mate.address) for mate in missing],
                iommu_group=group,
            )


def group_complete(context: Context) -> Iterator[Problem]:
    """Every endpoint of the IOMMU group is declared, or bound to a VFIO driver or to none.

    Source: kernel Documentation/driver-api/vfio.rst (a group is viable when no host driver holds a part of it); libvirt
    detaches the declared devices only (``virHostdevPreparePCIDevices``), so that the domain would not start.
    """
    for group, subject in _concerned(context):
        siblings = set(_device(context, subject).siblings)
        others = [mate for mate in _undeclared(context, group) if mate.address not in siblings]
        held = [mate for mate in others if not leaves_group_free(mate.driver)]
        if held:
            yield subject.problem(
                "group_not_viable",
                f"IOMMU group {group} of the device also has {_listed(held)}, held by "
                f"{', '.join(sorted({str(mate.driver) for mate in held}))} of the host; the domain would not start.",
                _remedy(held) + " Or bind them to vfio-pci with kvm.passthrough.vfio_devices.",
                missing=[str(mate.address) for mate in held],
                iommu_group=group,
            )


def unmanaged_is_bound(context: Context) -> Iterator[Problem]:
    """With ``managed: false`` libvirt leaves the driver alone, so it has to be a VFIO driver already.

    Source: libvirt ``virHostdevPreparePCIDevicesImpl`` ("must be manually detached from the host").
    """
    for subject in context.requested:
        device = context.device(subject.source)
        if device is None or subject.hostdev.managed is not False or is_vfio_driver(device.driver):
            continue
        yield subject.problem(
            "device_not_bound",
            f"managed is false, but the device is bound to {device.driver or 'no driver'} and not to a VFIO driver.",
            "Bind it with kvm.passthrough.vfio_devices first, or set managed: true.",
            "managed",
            False,
            driver=device.driver,
        )


def _concerned(context: Context) -> Iterator[tuple[int, Subject]]:
    """Each IOMMU group of which a hostdev is asked for, or taken out while others stay; with a hostdev to speak of."""
    touched = {}
    for address in sorted(context.touched):
        device = context.device(address)
        if device is not None and device.iommu_group is not None:
            touched[device.iommu_group] = device.group_members
    for group, members in touched.items():
        there = [context.declared[address] for address in members if address in context.declared]
        asked = [subject for subject in there if subject.where is not None]
        if there:
            yield group, (asked or there)[0]


def _device(context: Context, subject: Subject) -> PciDevice:
    return context.bus.device(subject.source)


def _undeclared(context: Context, group: int) -> list[PciDevice]:
    return [
        context.bus.device(address)
        for address in context.bus.group_members(group)
        if address not in context.declared
        and address not in context.definition.pooled_sources
        and address in context.bus
        and not context.bus.device(address).is_bridge
    ]


def _listed(devices: list[PciDevice]) -> str:
    names = [str(device.address) for device in devices]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _remedy(devices: list[PciDevice]) -> str:
    which = "if the guest is not to have it" if len(devices) == 1 else "for those that the guest is not to have"
    return f"Add {_listed(devices)} to hostdevs, with assigned: false {which}."
