# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Device selectors: how a person says which PCI devices are meant. One grammar for every module.

For people it is described in the documentation fragment ``kvm.passthrough.selector``.
"""

from __future__ import annotations

import re
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

CRITERIA = ("address", *ID_DIGITS, "pci_class", "slot", "interface", "mac", "pf", "serial")
SELECTOR_KEYS = (*CRITERIA, "vf", "expect", "index", "count", "name")
"""Every key a selector may have. A module whose list items hold more than a selector splits them by this."""

_COUNTED = {4: "four", 8: "eight"}

MAX_LISTED = 16  # candidates that a message lists

Count = Union[int, str, None]
"""A number of devices, :data:`ALL`, or None for the default (exactly one)."""

_ID = re.compile(r"(?:0x)?([0-9a-f]{1,8})", re.IGNORECASE)
_IDS = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})", re.IGNORECASE)
_MAC = re.compile(r"[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}", re.IGNORECASE)
_SERIAL = re.compile(r"[0-9a-f]{2}([:-]?)(?:[0-9a-f]{2}\1){6}[0-9a-f]{2}", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]{1,9}")
# net/core/dev.c, dev_valid_name(): up to 15 bytes, no slash, colon or white space, neither "." nor "..".
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^/:\s]{1,15}")

_SHORTHAND = (
    "A selector is a mapping, or one of these strings: an address (0000:01:10.0, 01:10.0, pci_0000_01_10_0), "
    "vendor and device id (8086:10ca), or the name of a network interface (enp1s0)."
)


def selector_argument(required: bool = True) -> dict[str, Any]:
    """The argument spec of an option that takes a list of selectors; documented by ``kvm.passthrough.selector``.

    The elements are raw: a selector is a mapping or a string, and :meth:`Selector.parse` names what is wrong with one.
    """
    return {"type": "list", "elements": "raw", "required": required}


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

    # -- reading ----------------------------------------------------------------------------------------

    @classmethod
    def parse(cls, value: Any, where: str = "selector") -> Selector:
        """Read one selector, a mapping or a string.

        :raises PassthroughError: with every problem of the selector at once (``selector_invalid``, ``address_invalid``,
            ``address_out_of_range``, ``pci_class_invalid``)
        """
        problems: list[Problem] = []
        selector = _read(value, where, problems)
        if problems or selector is None:
            raise PassthroughError.of(problems)
        return selector

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

    def _problem(self, code: str, message: str, remedy: str = "", **details: Any) -> Problem:
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
        return self._problem(code, message, remedy, candidates=_candidates(candidates))

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
                    self._problem(
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
                    self._problem(
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
                        self._problem(
                            "vf_not_found",
                            f"the PF {pf.address} has no VF {', '.join(map(str, missing))}: it has {have}.",
                            f"Enable more VFs (/sys/bus/pci/devices/{pf.address}/sriov_numvfs).",
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
            remedy = "The PF has no VFs enabled."
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


def parse_all(values: Any, where: str = "devices") -> list[Selector]:
    """Read a list of selectors (a single one counts as a list of one).

    :raises PassthroughError: with every problem of every selector; ``duplicate_name`` for a name given twice
    """
    if isinstance(values, (str, Mapping)):
        values = [values]
    if not isinstance(values, (list, tuple)):
        raise PassthroughError(
            "selector_invalid", f"{where}: {_shown(values)} is no list of selectors.", _SHORTHAND, selector=where
        )
    problems: list[Problem] = []
    selectors = [_read(value, f"{where}[{number}]", problems) for number, value in enumerate(values)]
    first: dict[str, Selector] = {}
    for selector in selectors:
        if selector is None or selector.name is None:
            continue
        if selector.name in first:
            other = first[selector.name].where
            problems.append(selector._problem("duplicate_name", f"{other} already has the name {selector.name!r}."))
        first.setdefault(selector.name, selector)
    if problems:
        raise PassthroughError.of(problems)
    return [selector for selector in selectors if selector is not None]


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
                    selector._problem(
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


# -- reading ------------------------------------------------------------------------------------------------


class _Reader:
    """Reads the values of one mapping and collects what is wrong with them."""

    def __init__(self, value: Mapping[Any, Any], where: str, name: str | None, problems: list[Problem]) -> None:
        # Ansible's convention: an option that is null was not given.
        self._values = {key: one for key, one in value.items() if one is not None}
        self.where = where
        self._label = f"{where} ({name})" if name else where
        self._details = {"selector": where, "name": name} if name else {"selector": where}
        self.problems = problems

    def wrong(self, message: str, remedy: str = "", code: str = "selector_invalid", **details: Any) -> None:
        self.problems.append(Problem(code, f"{self._label}: {message}", remedy, {**self._details, **details}))

    def unknown(self, known: Sequence[str], what: str) -> None:
        strange = sorted(_shown(key) for key in self._values if key not in known)
        if strange:
            self.wrong(f"{what} has no {' and no '.join(strange)}.", f"It may have {', '.join(known)}.")

    def convert(self, key: str, read: Callable[[Any], Any]) -> Any:
        """The value of ``key`` as ``read`` makes it; None when it is not there or is wrong."""
        value = self._values.get(key)
        if value is None:
            return None
        try:
            return read(value)
        except PassthroughError as error:
            for problem in error.problems:
                details = {**problem.details, "field": key}
                self.wrong(f"{key}: {problem.message}", problem.remedy, problem.code, **details)
        except ValueError as error:
            self.wrong(f"{key}: {error}", field=key, value=_json(value))
        return None


def _read(value: Any, where: str, problems: list[Problem], within_pf: bool = False) -> Selector | None:
    if isinstance(value, str):
        value = value.strip()
        try:
            return Selector(where=where, text=value, **_shorthand(value))
        except PassthroughError as error:
            for problem in error.problems:
                details = {"selector": where, **problem.details}
                problems.append(Problem(problem.code, f"{where}: {problem.message}", problem.remedy, details))
            return None
    if not isinstance(value, Mapping):
        message = f"{where}: {_shown(value)} is no selector.{_unquoted(value)}"
        problems.append(Problem("selector_invalid", message, _SHORTHAND, {"selector": where}))
        return None

    raw_name = value.get("name")
    name = raw_name.strip() if isinstance(raw_name, str) and raw_name.strip() else None
    known = tuple(key for key in SELECTOR_KEYS if not (within_pf and key in ("pf", "vf", "count", "name")))
    before = len(problems)
    reader = _Reader(value, where, name, problems)
    reader.unknown(known, "the selector of a PF" if within_pf else "a selector")
    reader.convert("name", _name)
    pf_value = value.get("pf")
    pf = None
    if pf_value is not None and not within_pf:
        pf = _read(pf_value, f"{where}.pf", problems, within_pf=True)
    ids = {key: reader.convert(key, _id_reader(digits)) for key, digits in ID_DIGITS.items()}
    selector = Selector(
        where=where,
        name=name,
        address=reader.convert("address", _address),
        ids={key: number for key, number in ids.items() if number is not None},
        pci_class=reader.convert("pci_class", _pci_class),
        slot=reader.convert("slot", _slot),
        serial=reader.convert("serial", _serial),
        interface=reader.convert("interface", _interface),
        mac=reader.convert("mac", read_mac),
        pf=pf,
        vf=None if within_pf else reader.convert("vf", read_vf),
        expect=_expect(value.get("expect"), where, name, problems),
        index=reader.convert("index", read_index),
        count=None if within_pf else reader.convert("count", read_count),
    )
    if value.get("vf") is not None and value.get("pf") is None and not within_pf:
        reader.wrong("vf is given without pf.", "vf counts the VFs of the PF that pf selects.", field="vf")
    criteria = [key for key in CRITERIA if key in known]
    if len(problems) == before and all(value.get(key) is None for key in criteria):
        reader.wrong("nothing says which device is meant.", f"Give at least one of {', '.join(criteria)}.")
    if selector.index is not None and selector.count is not None:
        reader.wrong("index and count exclude each other.", "index picks one device, count says how many there are.")
    return selector if len(problems) == before else None


def _shorthand(text: str) -> dict[str, Any]:
    ids = _IDS.fullmatch(text)
    if ids:
        return {"ids": {"vendor_id": int(ids[1], 16), "device_id": int(ids[2], 16)}}
    try:
        return {"address": PciAddress.parse(text)}
    except PassthroughError as error:
        if error.code == "address_out_of_range":
            raise
    if _INTERFACE.fullmatch(text):
        return {"interface": text}
    raise PassthroughError("selector_invalid", f"{_shown(text)} is no selector.", _SHORTHAND, value=text)


def _expect(value: Any, where: str, name: str | None, problems: list[Problem]) -> dict[str, int | str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping) or all(one is None for one in value.values()):
        reader = _Reader({}, where, name, problems)
        reader.wrong(f"expect: {_shown(value)} names nothing.", f"Give {', '.join(IDENTITY_KEYS)}.", field="expect")
        return {}
    reader = _Reader(value, f"{where}.expect", name, problems)
    reader.unknown(IDENTITY_KEYS, "expect")
    found = {key: reader.convert(key, _id_reader(digits)) for key, digits in ID_DIGITS.items()}
    found["serial"] = reader.convert("serial", _serial)
    return {key: one for key, one in found.items() if one is not None}


def _name(value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise ValueError(f"{_shown(value)} is no name; a name is text that is not empty.")


def _address(value: Any) -> PciAddress:
    if isinstance(value, (int, float)):
        raise ValueError(f"{_shown(value)} is no PCI address.{_unquoted(value)}")
    return PciAddress.parse(value)


def _id_reader(digits: int) -> Callable[[Any], int]:
    """Reads an id of at most so many hexadecimal digits.

    Numbers are refused: YAML reads 8086 as a decimal, 0x1002 as 4098 and 0010 as 8, and does not tell which of them it
    was, so that a number could be taken for another device's id.
    """

    def read(value: Any) -> int:
        match = _ID.fullmatch(value.strip()) if isinstance(value, str) else None
        if match and len(match[1]) <= digits:
            return int(match[1], 16)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 16**digits:
            spelled = (f"{value:0{digits}{base}}" for base in ("d", "x", "o"))
            readings = [f"'{text}'" for text in dict.fromkeys(spelled) if len(text) <= digits]
            raise ValueError(
                f"{value} is a number, and it is not known how it was written: the id may be "
                f"{' or '.join(readings)}. Write it in quotes."
            )
        example = "'8086' or '0x8086'" if digits == 4 else "'00000008' or '0x8'"
        raise ValueError(
            f"{_shown(value)} is no id; an id is one to {_COUNTED[digits]} hexadecimal digits in quotes, "
            f"like {example}."
        )

    return read


def _slot(value: Any) -> str:
    if isinstance(value, str) and value.strip() and "/" not in value:
        return value.strip()
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} is a number; the name of a slot is text: write it in quotes.")
    raise ValueError(
        f"{_shown(value)} is no name of a physical slot; the names are those in /sys/bus/pci/slots, PhySlot of lspci."
    )


def _serial(value: Any) -> str:
    """A device serial number as lspci prints it, from any usual way to write its eight bytes."""
    if isinstance(value, str) and _SERIAL.fullmatch(value.strip()):
        digits = re.sub("[:-]", "", value.strip().lower())
        return "-".join(digits[at : at + 2] for at in range(0, 16, 2))
    quotes = " Write it in quotes." if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
    raise ValueError(
        f"{_shown(value)} is no PCI Express device serial number like '00-1b-21-ff-ff-aa-bb-cc': eight bytes of two "
        f"hexadecimal digits, with - or : between all of them or none.{quotes}"
    )


def _pci_class(value: Any) -> ClassPrefix:
    if isinstance(value, (int, float)):
        raise ValueError(f"{_shown(value)} is a number; write the class code in quotes, like '0200'.")
    return ClassPrefix.parse(value)


def _interface(value: Any) -> str:
    if isinstance(value, str) and _INTERFACE.fullmatch(value.strip()):
        return value.strip()
    raise ValueError(
        f"{_shown(value)} is no name of a network interface: 1 to 15 characters without slash, colon or space."
    )


def read_mac(value: Any) -> str:
    """A MAC address in lower case with colons.

    :raises ValueError: for anything else
    """
    if isinstance(value, str) and _MAC.fullmatch(value.strip()):
        return value.strip().lower().replace("-", ":")
    raise ValueError(f"{_shown(value)} is no MAC address like '52:54:00:12:34:56'.{_unquoted(value)}")


def read_vf(value: Any) -> tuple[int, ...] | str:
    """The VFs that are meant: their indices, or ``all``.

    :raises ValueError: for anything else
    """
    if isinstance(value, str) and value.strip().lower() == ALL:
        return ALL
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    numbers = tuple(_whole(item) for item in items)
    if not numbers or None in numbers:
        raise ValueError(f"{_shown(value)} is no VF index, list of indices, or {ALL}; the first VF has index 0.")
    found = tuple(number for number in numbers if number is not None)
    if len(set(found)) != len(found):
        raise ValueError(f"{_shown(value)} names a VF twice.")
    return found


def read_count(value: Any) -> Count:
    """The value of an option ``count``: a number from 1 on, as a number or as digits, or ``all``.

    :raises ValueError: for anything else
    """
    if isinstance(value, str) and value.strip().lower() == ALL:
        return ALL
    number = _whole(value)
    if number:
        return number
    raise ValueError(f"{_shown(value)} is neither a number of devices (from 1 on) nor {ALL}.")


def read_index(value: Any) -> int:
    """The value of an option ``index``: a number from 0 on, as a number or as digits.

    :raises ValueError: for anything else
    """
    number = _whole(value)
    if number is None:
        raise ValueError(f"{_shown(value)} is no index; the first device, in bus order, has index 0.")
    return number


def _whole(value: Any) -> int | None:
    """A number from 0 on, as a number or as decimal digits (all that ad-hoc use can hand in); else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and 0 <= value <= 999999999:
        return value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value)
    return None


def _unquoted(value: Any) -> str:
    """A sentence for values that YAML made numbers of: it reads ``01:10.0`` and ``52:54:00:12:34:56`` as base 60."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return " YAML takes some addresses that stand without quotes for numbers: put it in quotes."
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _json(value: Any) -> Any:
    return value if isinstance(value, (str, int, bool)) else _shown(value)


# -- choosing and showing -----------------------------------------------------------------------------------


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
