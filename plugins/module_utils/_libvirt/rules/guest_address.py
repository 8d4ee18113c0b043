# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the guest sees the device."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from ..._core.errors import Problem
from ..._pci.address import PciAddress
from .context import Context, Subject, unique

# virDomainPCIAddressBusSetModel: the slots of each kind of bus.
_SLOTS = {
    "pci-root": (1, 31),
    "pcie-root": (1, 31),
    "pci-bridge": (1, 31),
    "pcie-to-pci-bridge": (1, 31),
    "pcie-root-port": (0, 0),
    "pcie-switch-downstream-port": (0, 0),
}

# virDomainPCIAddressSetGrow: what libvirt makes a bus of that does not exist, by the kind of bus 0.
_ADDED = {"pci-root": "pci-bridge", "pcie-root": "pcie-root-port"}

# qemuDomainValidateDevicePCISlotsPIIX3, …Q35: what the chipset has there, whether or not the definition says so.
_CHIPSETS = (
    (re.compile(r"pc|pc-(0|1|i440fx-).*"), {(1, 0): "the PIIX3's ISA bridge"}),
    (re.compile(r"q35|pc-q35-.*"), {(31, 0): "the ICH9's ISA bridge", (31, 3): "the ICH9's SMBus"}),
)


def possible(context: Context) -> Iterator[Problem]:
    """The address exists on the guest's buses.

    Source: libvirt ``virDomainPCIAddressValidate``, ``virDomainPCIAddressBusSetModel`` and what the tables above name.
    An address of zeros means "choose one" to libvirt (``virDeviceInfoPCIAddressIsWanted``), so it cannot be asked for.
    """
    for subject in context.requested:
        address = subject.hostdev.guest_address
        if address is None:
            continue
        if address.domain != 0:
            why, remedy = "libvirt gives every guest one PCI domain, 0000", "Write it with domain 0000, or without."
        elif address == PciAddress(0, 0, 0, 0):
            why, remedy = "it belongs to the host bridge of the guest", "Choose another, or leave it to libvirt."
        elif (chip := _chipset(context.definition.machine, address)) is not None:
            why, remedy = f"it belongs to {chip} in this guest", "Choose another, or leave it to libvirt."
        else:
            buses = context.definition.pci_controllers
            model = buses.get(address.bus) or _ADDED.get(buses.get(0, ""), "")
            low, high = _SLOTS.get(model, (0, 31))
            if low <= address.slot <= high:
                continue
            slots = "slot 0 only" if high == 0 else f"slots 0x{low:02x} to 0x{high:02x}"
            why, remedy = f"bus 0x{address.bus:02x} of the guest is a {model}, which has {slots}", "Choose such a slot."
        yield subject.problem(
            "guest_address_impossible",
            f"guest_address {address} is not possible: {why}.",
            remedy,
            "guest_address",
            str(address),
        )


def _chipset(machine: str, address: PciAddress) -> str | None:
    """What the guest's chipset has at an address, or None."""
    if address.bus:
        return None
    found = (places for pattern, places in _CHIPSETS if pattern.fullmatch(machine))
    return next(found, {}).get((address.slot, address.function))


def free(context: Context) -> Iterator[Problem]:
    """No two devices of the guest have one address.

    Source: libvirt ``virDomainPCIAddressReserveAddrInternal``.
    """
    remedy = "Choose another, or leave guest_address out: libvirt finds a free one."
    return unique(context, "guest_address", "guest_address_in_use", remedy)


def multifunction(context: Context) -> Iterator[Problem]:
    """Functions 1 to 7 of a guest slot are seen only when there is a function 0 that says multifunction='on'.

    Source: PCI Local Bus Specification 3.0, 6.2.1 (header type); libvirt "Domain XML format", address elements.
    """
    taken: dict[PciAddress, dict[int, Subject | None]] = defaultdict(dict)
    for occupant in context.occupants:
        if occupant.guest_address is not None:
            taken[occupant.guest_address.with_function(0)][occupant.guest_address.function] = None
    for subject in context.subjects:
        address = subject.hostdev.guest_address
        if address is not None:
            taken[address.with_function(0)][address.function] = subject
    for slot, functions in sorted(taken.items()):
        subjects = [subject for subject in functions.values() if subject is not None]
        concerned = [subject for subject in subjects if subject.where is not None]
        if not concerned:
            before = [one.value.guest_address for one in context.definition.hostdevs if one.source in context.removed]
            concerned = subjects if any(address and address.with_function(0) == slot for address in before) else []
        if not concerned:
            continue
        if 0 not in functions:
            first = concerned[0]
            yield first.problem(
                "guest_function_0_missing",
                f"guest_address {first.hostdev.guest_address} is a function of the guest's slot {slot}, of which "
                "function 0 would be empty; a guest that finds no function 0 looks for no other.",
                f"Give one hostdev guest_address {slot}, or move these to a slot of their own.",
                "guest_address",
                str(first.hostdev.guest_address),
            )
        zero = functions.get(0)
        if len(functions) > 1 and zero is not None and zero.hostdev.multifunction is False and zero in concerned:
            yield zero.problem(
                "guest_multifunction_off",
                f"guest_address.multifunction is false, but the guest's slot {slot} has other functions too.",
                "Leave it out: it is set where it is needed.",
                "multifunction",
                False,
            )
