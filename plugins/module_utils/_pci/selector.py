# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Device selectors: which PCI devices are meant, and which those are on a host.

How a person writes one, :mod:`.grammar` reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Union

from .._core.errors import PassthroughError, Problem
from .address import PciAddress
from .classes import ClassPrefix
from .device import UNREADABLE_DEVICE, Bus, PciDevice

ALL = "all"

ID_DIGITS = {
    "vendor_id": 4,
    "device_id": 4,
    "subsystem_vendor_id": 4,
    "subsystem_device_id": 4,
    "uid": 4,
    "fid": 8,
}
"""The hexadecimal ids, and how many digits they have."""

IDENTITY_KEYS = (*ID_DIGITS, "serial")
"""What ``expect`` may hold."""

MAX_LISTED = 16  # candidates that a message lists

Count = Union[int, str, None]
"""A number of devices, :data:`ALL`, or None for the default (exactly one)."""


@dataclass(frozen=True)
class Difference:
    """One thing about a device that is not as ``expect`` says: hexadecimal ids, a serial number, or ``none``."""

    field: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.field}: expected {self.expected}, found {self.found}"


@dataclass(frozen=True)
class Selector:
    """Which devices are meant. All criteria have to hold.

    ``where`` says where the selector stands in the input (``devices[0]``), for messages. ``ids`` maps names of
    :data:`ID_DIGITS` to numbers, criteria to find devices by. ``expect`` maps names of :data:`IDENTITY_KEYS` to what
    the found devices have to be, a serial number in lspci's notation.
    """

    where: str
    name: str | None = None
    address: PciAddress | None = None
    ids: Mapping[str, int] = field(default_factory=dict)
    pci_class: ClassPrefix | None = None
    slot: str | None = None
    serial: str | None = None
    interface: str | None = None
    mac: str | None = None
    pf: Selector | None = None
    vf: tuple[int, ...] | str | None = None
    expect: Mapping[str, int | str] = field(default_factory=dict)
    index: int | None = None
    count: Count = None
    text: str | None = None
    """The string shorthand this selector was written as, if it was."""

    def with_defaults(self, count: Count = None, index: int | None = None) -> Selector:
        """This selector, with ``count`` or ``index`` where it names neither (and is no list of VFs)."""
        if self.count is not None or self.index is not None or self.vf is not None:
            return self
        return replace(self, count=count, index=index)

    # -- words ------------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """What messages call this selector: where it stands, and its name."""
        return f"{self.where} ({self.name})" if self.name else self.where

    def describe(self) -> str:
        """The criteria in words: ``vendor_id 8086, device_id 10ca``."""
        return ", ".join(criterion.text for criterion in self._criteria()) or "any device"

    def problem(self, code: str, message: str, remedy: str = "", **details: Any) -> Problem:
        """A problem of this selector."""
        if self.name:
            details["name"] = self.name
        return Problem(code, f"{self.label}: {message}", remedy, {"selector": self.where, **details})

    def _listing(self, code: str, message: str, remedy: str, heading: str, candidates: Sequence[PciDevice]) -> Problem:
        """A problem that lists candidates: at its end, one indented line for each, and structured beside it."""
        listed = "".join(f"\n  {device.line}" for device in candidates[:MAX_LISTED])
        if len(candidates) > MAX_LISTED:
            listed += f"\n  and {len(candidates) - MAX_LISTED} more"
        if listed and remedy:
            remedy += f" {heading}:{listed}"
        elif listed:
            message += f" {heading}:{listed}"
        return self.problem(code, message, remedy, candidates=_candidates(candidates))

    # -- choosing ---------------------------------------------------------------------------------------

    def select(self, bus: Bus) -> list[PciDevice]:
        """The devices that are meant, in bus order (for a list of VFs in the order of the list).

        :raises PassthroughError: ``no_match``, ``too_many_matches``, ``count_mismatch``, ``index_out_of_range``,
            ``not_a_pf``, ``vf_not_found``, ``serial_unreadable``; ``identity_mismatch`` when a found device is not
            what ``expect`` says
        """
        found = self.find(bus)
        problems = []
        for device in found:
            if "serial" in self.expect and not device.serial_readable:
                problems.append(self._serial_unreadable([device]))
                continue
            differences = self.mismatches(device)
            if differences:
                problems.append(
                    self.problem(
                        "identity_mismatch",
                        f"the device at {device.address} is not the one that is meant: "
                        f"{'; '.join(str(difference) for difference in differences)}.",
                        "The hardware was changed or moved: find the device with kvm.passthrough.pci_device_info "
                        "and correct the selector, or what it expects.",
                        device=str(device.address),
                        differences=[vars(difference) for difference in differences],
                    )
                )
        if problems:
            raise PassthroughError.of(problems)
        return found

    def mismatches(self, device: PciDevice) -> list[Difference]:
        """Every difference between a device and what ``expect`` says; empty when it is the one that is meant."""
        return [
            Difference(name, _id_text(name, wanted), _id_text(name, getattr(device, name)))
            for name, wanted in self.expect.items()
            if getattr(device, name) != wanted
        ]

    def find(self, bus: Bus) -> list[PciDevice]:
        """Like :meth:`select`, but ``expect`` is not looked at."""
        pool, count = self._pool(bus)
        found, unreadable = self._matching(pool)
        enough = len(found) > self.index if self.index is not None else len(found) == count
        if unreadable and not enough:
            raise PassthroughError.of([self._serial_unreadable(unreadable)])
        if not found:
            raise PassthroughError.of([self._no_match(bus, pool)])
        if self.index is not None:
            if self.index < len(found):
                return [found[self.index]]
            matching = "match" if len(found) > 1 else "matches"
            raise PassthroughError.of(
                [
                    self._listing(
                        "index_out_of_range",
                        f"index {self.index} asks for device number {self.index + 1}, but only {len(found)} "
                        f"{matching} {self.describe()}.",
                        "",
                        "Matching",
                        found,
                    )
                ]
            )
        if count == ALL or count == len(found):
            return found
        exact = self.count is not None or self.vf is not None
        matching = f"{len(found)} PCI devices match" if len(found) > 1 else "1 PCI device matches"
        raise PassthroughError.of(
            [
                self._listing(
                    "count_mismatch" if exact else "too_many_matches",
                    f"{matching} {self.describe()}, but exactly {count} {'is' if count == 1 else 'are'} wanted.",
                    "Correct the count, or the criteria."
                    if exact
                    else "Add a criterion that tells them apart (address, interface, serial, slot, pf and vf), or say "
                    f"which: index (0 to {len(found) - 1}), count: {len(found)}, or count: all.",
                    "Matching",
                    found,
                )
            ]
        )

    def _matching(self, pool: Iterable[PciDevice]) -> tuple[list[PciDevice], list[PciDevice]]:
        """The devices that all criteria hold for, and those of which only the serial number is not known."""
        criteria = self._criteria()
        found = [device for device in pool if all(_holds(device, criterion.test) for criterion in criteria)]
        if self.serial is None or found == pool:
            return found, []
        others = [criterion for criterion in criteria if criterion.key != "serial"]
        unreadable = [
            device
            for device in pool
            if all(_holds(device, criterion.test) for criterion in others) and not device.serial_readable
        ]
        return found, unreadable

    def _serial_unreadable(self, devices: Sequence[PciDevice]) -> Problem:
        only = len(devices) == 1
        return self._listing(
            "serial_unreadable",
            f"the serial number of {devices[0].address if only else f'{len(devices)} PCI devices'} cannot be read: it "
            "is in the extended configuration space, which the kernel shows to root only.",
            "Run the module as root (become: true). A device that keeps silent to root, too, has fallen off the bus or "
            "cannot be woken up: look at dmesg, or leave it out by further criteria (vendor_id, pci_class).",
            "Not known",
            [] if only else devices,
        )

    def _criteria(self) -> list[_Criterion]:
        """Each criterion, from those that cost nothing to those that cost most: a device that fails an early one is
        not read any further. ``pf`` is here in words only, since it gives the pool."""
        criteria: list[_Criterion] = []
        if self.address is not None:
            criteria.append(
                _Criterion("address", f"address {self.address}", lambda device: device.address == self.address)
            )
        for name, wanted in self.ids.items():
            criteria.append(_Criterion(name, f"{name} {_id_text(name, wanted)}", _has(name, wanted)))
        prefix = self.pci_class
        if prefix is not None:
            criteria.append(
                _Criterion("pci_class", f"pci_class {prefix}", lambda device: prefix.matches(device.pci_class))
            )
        if self.slot is not None:
            criteria.append(_Criterion("slot", f"slot {self.slot}", _has("physical_slot", self.slot)))
        if self.pf is not None:
            what = "a VF" if self.vf is None else f"vf {self.vf if self.vf == ALL else ', '.join(map(str, self.vf))}"
            words = f"{what} of the PF with {self.pf.describe()}"
            criteria.append(_Criterion("pf", words, lambda device: device.pf is not None))
        if self.interface is not None:
            criteria.append(
                _Criterion(
                    "interface", f"interface {self.interface}", lambda device: self.interface in device.interfaces
                )
            )
        if self.mac is not None:
            criteria.append(
                _Criterion("mac", f"mac {self.mac}", lambda device: self.mac in device.mac_addresses().values())
            )
        if self.serial is not None:
            criteria.append(_Criterion("serial", f"serial {self.serial}", _has("serial", self.serial)))
        return criteria

    def _pool(self, bus: Bus) -> tuple[list[PciDevice], Count]:
        """The devices to choose from, and how many are wanted."""
        count = 1 if self.count is None else self.count
        if self.pf is None:
            if self.address is not None:
                return ([bus.device(self.address)] if self.address in bus else []), count
            return bus.devices(), count
        pf = self.pf.select(bus)[0]
        vfs = pf.vfs_by_index
        if pf.sriov_totalvfs is None:
            raise PassthroughError.of(
                [
                    self.problem(
                        "not_a_pf",
                        f"{pf.line} is meant to be a PF, but has no SR-IOV capability that the kernel can use.",
                        device=str(pf.address),
                    )
                ]
            )
        if isinstance(self.vf, tuple):
            missing = [index for index in self.vf if index not in vfs]
            if missing:
                have = (
                    f"{len(vfs)} of {pf.sriov_totalvfs} possible VFs enabled, with index 0 to {max(vfs)}"
                    if vfs
                    else f"none of its {pf.sriov_totalvfs} possible VFs enabled"
                )
                raise PassthroughError.of(
                    [
                        self.problem(
                            "vf_not_found",
                            f"the PF {pf.address} has no VF {', '.join(map(str, missing))}: it has {have}.",
                            "Make more VFs, with kvm.passthrough.sriov_vfs.",
                            device=str(pf.address),
                        )
                    ]
                )
            return [bus.device(vfs[index]) for index in self.vf], len(self.vf) if self.count is None else self.count
        every = self.vf == ALL and self.count is None
        return [bus.device(address) for _unused, address in sorted(vfs.items())], ALL if every else count

    def _no_match(self, bus: Bus, pool: Sequence[PciDevice]) -> Problem:
        if self.text is not None and self.interface is not None:
            read_as = f" ({self.text!r} was read as the name of a network interface)"
        else:
            read_as = ""
        near = self._nearest(bus, pool)
        remedy = ""
        if self.interface is not None or self.mac is not None:
            remedy = (
                "A device has its network interface only while the host's driver is bound to it: "
                "select one that may be bound to vfio-pci by address, ids, or pf and vf."
            )
        elif self.serial is not None and pool:
            remedy = "lspci -v, as root, shows the serial numbers there are."
        elif self.address is not None and not pool:
            remedy = "Addresses move when hardware is added or removed."
        elif self.pf is not None and not pool:
            remedy = "The PF has no VFs enabled: make them, with kvm.passthrough.sriov_vfs."
        message = f"no PCI device matches {self.describe()}{read_as}."
        return self._listing("no_match", message, remedy, "What comes nearest", near)

    def _nearest(self, bus: Bus, pool: Sequence[PciDevice]) -> list[PciDevice]:
        """What may have been meant: the devices for which most criteria hold; else what is of the same kind."""
        criteria = self._criteria()
        if self.address is not None:
            if pool:
                return list(pool)
            slot = bus.slot(self.address)
            if slot:
                return [bus.device(address) for address in slot]
        everything = list(pool) if self.pf is not None else bus.devices()
        scored = [(sum(_holds(device, one.test) for one in criteria), device) for device in everything]
        best = max((score for score, _unused in scored), default=0)
        if best:
            return [device for score, device in scored if score == best]
        if self.interface is not None or self.mac is not None:
            return [device for device in everything if device.interfaces]
        return [device for device in everything if _holds(device, lambda one: not one.is_bridge)]


Selection = list[tuple[Selector, list[PciDevice]]]


def select_all(selectors: Iterable[Selector], bus: Bus, distinct: bool = False) -> Selection:
    """What each selector means, in their order. Two selectors may mean the same device; see :func:`merged`.

    :param distinct: whether a device that two selectors mean is a problem (``selected_twice``)
    :raises PassthroughError: with every problem of every selector
    """
    problems: list[Problem] = []
    selection: Selection = []
    owner: dict[PciAddress, Selector] = {}
    for selector in selectors:
        try:
            devices = selector.select(bus)
        except PassthroughError as error:
            problems += error.problems
            continue
        selection.append((selector, devices))
        for device in devices:
            if distinct and device.address in owner:
                problems.append(
                    selector.problem(
                        "selected_twice",
                        f"the device {device.address} is already meant by {owner[device.address].label}.",
                        "Name each device once.",
                        device=str(device.address),
                    )
                )
            owner.setdefault(device.address, selector)
    if problems:
        raise PassthroughError.of(problems)
    return selection


def merged(selection: Selection) -> list[PciDevice]:
    """Every device of a selection once, in bus order: to do the same to a device twice is to do it once."""
    devices = {device.address: device for _unused, found in selection for device in found}
    return [devices[address] for address in sorted(devices)]


@dataclass(frozen=True)
class _Criterion:
    """One thing a selector asks for: its key, in words, and as a test of a device."""

    key: str
    text: str
    test: Callable[[PciDevice], bool]


def _has(name: str, wanted: int | str) -> Callable[[PciDevice], bool]:
    return lambda device: bool(getattr(device, name) == wanted)


def _id_text(name: str, value: int | str | None) -> str:
    """The value of a key of :data:`IDENTITY_KEYS` for people."""
    if value is None:
        return "none"
    return f"{value:0{ID_DIGITS[name]}x}" if isinstance(value, int) else value


def _holds(device: PciDevice, test: Callable[[PciDevice], bool]) -> bool:
    """Whether a test holds; it does not for a device that was removed meanwhile, or tells nonsense of itself."""
    try:
        return test(device)
    except PassthroughError as error:
        if error.code not in UNREADABLE_DEVICE:
            raise
        return False


def _candidates(devices: Sequence[PciDevice]) -> list[dict[str, Any]]:
    found = []
    for device in devices[:MAX_LISTED]:
        try:
            found.append(
                {
                    "address": str(device.address),
                    "ids": device.ids,
                    "class": device.class_name,
                    "driver": device.driver,
                    "device_name": device.device_name,
                    "interfaces": device.interfaces,
                }
            )
        except PassthroughError:
            continue
    return found
