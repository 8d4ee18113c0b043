# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The address of a PCI function, in every notation people and programs use for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.errors import PassthroughError

# Linux numbers domains beyond 0xffff where firmware has none to give (Intel VMD starts at 0x10000).
MAX_DOMAIN = 0xFFFFFFFF
MAX_BUS = 0xFF
MAX_SLOT = 0x1F
MAX_FUNCTION = 0x7

FIELDS = ("domain", "bus", "slot", "function")

_LSPCI = re.compile(
    r"(?:(?P<domain>[0-9a-f]{1,8}):)?(?P<bus>[0-9a-f]{1,2}):(?P<slot>[0-9a-f]{1,2})\.(?P<function>[0-9a-f])",
    re.IGNORECASE,
)
_NODEDEV = re.compile(
    r"pci_(?P<domain>[0-9a-f]{1,8})_(?P<bus>[0-9a-f]{1,2})_(?P<slot>[0-9a-f]{1,2})_(?P<function>[0-9a-f])",
    re.IGNORECASE,
)
# drivers/pci/probe.c, pci_setup_device(): "%04x:%02x:%02x.%d".
_SYSFS = re.compile(r"((?:[1-9a-f][0-9a-f]{0,3})?[0-9a-f]{4}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_LIMITS = {"domain": MAX_DOMAIN, "bus": MAX_BUS, "slot": MAX_SLOT, "function": MAX_FUNCTION}

_FORMS = "Write it as 0000:01:10.0, 01:10.0, pci_0000_01_10_0, or a mapping of domain, bus, slot and function."


@dataclass(frozen=True, order=True)
class PciAddress:
    """A PCI function: domain 0-0xffffffff, bus 0-0xff, slot 0-0x1f, function 0-7. Sorts in bus order."""

    domain: int
    bus: int
    slot: int
    function: int

    def __post_init__(self) -> None:
        if (
            0 <= self.function <= MAX_FUNCTION
            and 0 <= self.slot <= MAX_SLOT
            and 0 <= self.bus <= MAX_BUS
            and 0 <= self.domain <= MAX_DOMAIN
        ):
            return
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if not 0 <= value <= limit:
                raise PassthroughError(
                    "address_out_of_range",
                    f"The {name} 0x{value:x} of a PCI address is out of range: it goes from 0x0 to 0x{limit:x}.",
                    field=name,
                    value=value,
                )

    @classmethod
    def from_sysfs(cls, name: str) -> PciAddress | None:
        """The address in the name of a sysfs entry, or None when the entry is not a PCI function."""
        match = _SYSFS.fullmatch(name)
        if match is None or match[3] > "1f":
            return None
        return cls(int(match[1], 16), int(match[2], 16), int(match[3], 16), int(match[4]))

    @property
    def order(self) -> tuple[int, int, int, int]:
        """What addresses sort by; a key of plain numbers sorts thousands of them many times as fast."""
        return self.domain, self.bus, self.slot, self.function

    @classmethod
    def parse(cls, value: Any) -> PciAddress:
        """Read an address as a person writes it.

        Strings are hexadecimal, as lspci prints them, with or without the domain, or libvirt's node device name.
        In a mapping, a string is hexadecimal with or without ``0x`` (``slot: "1a"``); a number above 9 is refused,
        since it is not known in which base it was written; ``domain`` may be left out.

        :raises PassthroughError: ``address_invalid`` or ``address_out_of_range``, with the value
        """
        if isinstance(value, PciAddress):
            return value
        try:
            if isinstance(value, Mapping):
                return cls._from_mapping(value)
            if isinstance(value, str):
                match = _LSPCI.fullmatch(value.strip()) or _NODEDEV.fullmatch(value.strip())
                if match:
                    return cls(*(int(match[name] or "0", 16) for name in FIELDS))
        except PassthroughError as error:
            problem = error.problems[0]
            if problem.code != "address_out_of_range":
                raise
            raise PassthroughError(
                problem.code,
                f"{value!r} is no PCI address: {problem.message}",
                _FORMS,
                **{**problem.details, "value": value},
            ) from None
        raise PassthroughError("address_invalid", f"{value!r} is no PCI address.", _FORMS, value=value)

    @classmethod
    def _from_mapping(cls, value: Mapping[Any, Any]) -> PciAddress:
        unknown = sorted(str(name) for name in value if name not in FIELDS)
        missing = [name for name in FIELDS[1:] if value.get(name) is None]
        if unknown or missing:
            what = [f"unknown {', '.join(unknown)}"] if unknown else []
            what += [f"missing {', '.join(missing)}"] if missing else []
            raise PassthroughError(
                "address_invalid", f"{dict(value)!r} is no PCI address: {'; '.join(what)}.", _FORMS, value=dict(value)
            )
        given = {"domain": 0, **{name: number for name, number in value.items() if number is not None}}
        return cls(*(_number(name, given[name], value) for name in FIELDS))

    @property
    def nodedev_name(self) -> str:
        """libvirt's name of the node device (node_device_udev.c, ``udevGenerateDeviceName``)."""
        return f"pci_{self.domain:04x}_{self.bus:02x}_{self.slot:02x}_{self.function:x}"

    @property
    def xml_attributes(self) -> dict[str, str]:
        """The attributes of libvirt's ``<address>``: always with 0x, since libvirt reads numbers with base 0."""
        return {
            "domain": f"0x{self.domain:04x}",
            "bus": f"0x{self.bus:02x}",
            "slot": f"0x{self.slot:02x}",
            "function": f"0x{self.function:x}",
        }

    def with_function(self, function: int) -> PciAddress:
        """The sibling function of the same slot."""
        return PciAddress(self.domain, self.bus, self.slot, function)

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.slot:02x}.{self.function:x}"


def _number(name: str, value: Any, whole: Mapping[Any, Any]) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        # YAML makes the same 16 of "slot: 16" and of "slot: 0x10", and lspci's 16 is neither: it would be 22.
        if value > 9:
            raise PassthroughError(
                "address_invalid",
                f"{dict(whole)!r} is no PCI address: YAML made the number {value} of {name}, in an unknown base.",
                f'Write it in quotes, in hexadecimal as lspci prints it ({name}: "{value:02x}" if {value} is decimal).',
                field=name,
                value=dict(whole),
            )
        return value
    if isinstance(value, str) and re.fullmatch(r"(0x)?[0-9a-f]{1,8}", value.strip(), re.I):
        return int(value, 16)
    raise PassthroughError(
        "address_invalid",
        f"{dict(whole)!r} is no PCI address: {name} is {value!r}, which is no hexadecimal number.",
        _FORMS,
        field=name,
        value=dict(whole),
    )
