# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The grammar of device selectors: how a person says which PCI devices are meant. One grammar for every module.

For people it is described in the documentation fragment ``kvm.passthrough.selector``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Callable

from .._core.errors import PassthroughError, Problem
from .address import PciAddress
from .classes import ClassPrefix
from .selector import ALL, ID_DIGITS, IDENTITY_KEYS, Count, Selector

CRITERIA = ("address", *ID_DIGITS, "pci_class", "slot", "interface", "mac", "pf", "serial")
SELECTOR_KEYS = (*CRITERIA, "vf", "expect", "index", "count", "name")
"""Every key a selector may have."""

_COUNTED = {4: "four", 8: "eight"}

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

    The elements are raw: a selector is a mapping or a string, and :func:`parse_selector` names what is wrong with one.
    """
    return {"type": "list", "elements": "raw", "required": required}


def parse_selector(value: Any, where: str = "selector") -> Selector:
    """Read one selector, a mapping or a string.

    :raises PassthroughError: with every problem of the selector at once (``selector_invalid``, ``address_invalid``,
        ``address_out_of_range``, ``pci_class_invalid``)
    """
    problems: list[Problem] = []
    selector = _read(value, where, problems)
    if problems or selector is None:
        raise PassthroughError.of(problems)
    return selector


def parse_selectors(values: Any, where: str = "devices") -> list[Selector]:
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
            problems.append(selector.problem("duplicate_name", f"{other} already has the name {selector.name!r}."))
        first.setdefault(selector.name, selector)
    if problems:
        raise PassthroughError.of(problems)
    return [selector for selector in selectors if selector is not None]


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
