# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can be given to a guest that runs, and taken from it."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from ..._iommu.groups import leaves_group_free
from ..._pci.address import PciAddress
from ..definition import Definition
from .context import Context, Subject

_PORTS = ("pcie-root-port", "pcie-switch-downstream-port")
# virDomainPCIAddressBusSetModel: the buses without VIR_PCI_CONNECT_HOTPLUGGABLE that a device may be on.
_COLD = ("pcie-root", "dmi-to-pci-bridge")


def free_ports(definition: Definition) -> list[int]:
    """The guest's buses into which a PCI Express device can be plugged."""
    return [
        index
        for index, model in sorted(definition.pci_controllers.items())
        if model in _PORTS and index not in definition.used_buses
    ]


def function_0(context: Context) -> Iterator[Problem]:
    """libvirt plugs in function 0 of a guest slot only.

    Source: libvirt ``virDomainPCIAddressEnsureAddr`` ("Only PCI device addresses with function=0 are supported").
    """
    for subject in _plugged(context):
        address = subject.hostdev.guest_address
        if address is not None and address.function:
            yield subject.problem(
                "hotplug_function",
                f"guest_address {address} is a function other than 0, which libvirt cannot plug into a guest that "
                "runs.",
                "Give it a slot of its own, or use scope: config and start the domain anew.",
                "guest_address",
                str(address),
            )


def bus_takes_it(context: Context) -> Iterator[Problem]:
    """A guest address asked for is on a bus that exists and into which something can be plugged.

    Source: libvirt ``virDomainPCIAddressEnsureAddr`` (VIR_PCI_CONNECT_HOTPLUGGABLE); buses are added to a definition,
    and not to a guest that runs.
    """
    for subject in _plugged(context):
        address = subject.hostdev.guest_address
        if address is None:
            continue
        model = context.definition.pci_controllers.get(address.bus)
        if model is not None and model not in _COLD:
            continue
        what = f"is a {model}, into which nothing can be plugged" if model else "does not exist while the guest runs"
        yield subject.problem(
            "hotplug_bus",
            f"guest_address {address} is on bus 0x{address.bus:02x} of the guest, which {what}.",
            "Leave guest_address out, or use scope: config and start the domain anew.",
            "guest_address",
            str(address),
        )


def ports_left(context: Context) -> Iterator[Problem]:
    """A guest of PCI Express has a free port for each device.

    Source: libvirt "PCI topology and hotplug" (pci-hotplug.rst): ports are there from the start of the guest.
    """
    if not context.definition.starts_by_port:
        return
    needing = [subject for subject in _plugged(context) if subject.hostdev.guest_address is None]
    taken = {subject.hostdev.guest_address.bus for subject in _plugged(context) if subject.hostdev.guest_address}
    free = [bus for bus in free_ports(context.definition) if bus not in taken]
    leaving = [
        address.bus
        for one in context.definition.hostdevs
        if one.source in context.removed and (address := one.value.guest_address) is not None
    ]
    room = len(free) + len([bus for bus in leaving if bus not in taken])
    for subject in needing[room:]:
        yield subject.problem(
            "no_free_port",
            f"the guest that runs has {room} free PCI Express {'port' if room == 1 else 'ports'}, and "
            f"{len(needing)} {'device is' if len(needing) == 1 else 'devices are'} to be plugged in.",
            "Add <controller type='pci' model='pcie-root-port'/> elements to the definition (virsh edit) and start the "
            "domain anew.",
            free_ports=room,
            needed=len(needing),
        )


def whole_slot(context: Context) -> Iterator[Problem]:
    """What is unplugged is alone in its slot of the guest.

    Source: libvirt ``qemuDomainDetachDeviceLive`` ("cannot hot unplug multifunction PCI device").
    """
    if not context.live:
        return
    changed = {subject.source for subject in _plugged(context)}
    for one in context.definition.hostdevs:
        address = one.value.guest_address
        if address is None or one.source not in context.removed | changed:
            continue
        others = [occupant.label for occupant in context.occupants if _share_slot(occupant.guest_address, address)] + [
            f"{other.value.kind} {other.source}"
            for other in context.definition.hostdevs
            if other is not one and _share_slot(other.value.guest_address, address)
        ]
        if others or one.value.multifunction:
            what = f"with {', '.join(others)}" if others else "that says multifunction='on'"
            subject = context.declared.get(one.source, Subject(one.value))
            yield subject.problem(
                "hotplug_multifunction",
                f"the guest has it at {address}, in a slot {what}, and libvirt unplugs nothing from such a slot.",
                "Use scope: config and start the domain anew.",
                guest_address=str(address),
            )


def _share_slot(one: PciAddress | None, other: PciAddress) -> bool:
    return one is not None and one.with_function(0) == other.with_function(0)


def group_is_free(context: Context) -> Iterator[Problem]:
    """The other devices of the group are off the host's drivers before one is plugged in.

    libvirt binds a device when it plugs it in, one after the other, and QEMU opens the whole group with the first.

    Source: libvirt ``qemuHostdevPreparePCIDevices``; kernel Documentation/driver-api/vfio.rst.
    """
    there = {one.source for one in context.definition.hostdevs}
    plugged = [one for one in _plugged(context) if one.hostdev.assigned is not False]
    bound: set[PciAddress] = {one.source for one in _plugged(context) if one.hostdev.assigned is False}
    for subject in plugged:
        device = context.device(subject.source)
        if device is None:
            continue
        held = [
            mate.source
            for mate in plugged
            if mate.source != subject.source
            and mate.source not in there | bound
            and mate.source in device.group_members
            and not leaves_group_free(context.bus.device(mate.source).driver)
        ]
        if held:
            yield subject.problem(
                "hotplug_group_held",
                f"{', '.join(str(address) for address in held)} of the same IOMMU group would still be held by the "
                "host when this device is plugged in, since libvirt takes one after the other.",
                "Bind them all with kvm.passthrough.vfio_devices first.",
                held=[str(address) for address in held],
            )
            return


def _plugged(context: Context) -> list[Subject]:
    """What would be plugged into the guest; nothing when it is a definition that is changed."""
    if not context.live:
        return []
    present = {one.source: one.value for one in context.definition.hostdevs}
    return [subject for subject in context.requested if present.get(subject.source) != subject.hostdev]
