# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked for: how many virtual functions each physical function has, and how they are set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._core.errors import PassthroughError, Problem
from .._core.options import time_limit_problems
from .._pci.grammar import parse_selectors, read_mac, read_vf
from .._pci.selector import ALL, Selector
from .settings import LINK_STATES, VLAN_PROTOCOLS, VfSettings

# Documentation/PCI/pci-iov-howto.rst: NumVFs is a field of 16 bits.
MAX_COUNT = 0xFFFF
MAX_VLAN = 4094  # IEEE 802.1Q; 4095 is reserved, and some drivers take it all the same
MAX_QOS = 7
MAX_RESOURCES = 0xFFFF  # fields of 16 bits in the list of secondary controllers
MAX_RATE = 0xFFFFFFFF  # Mbit/s, 32 bits in the kernel's message (struct ifla_vf_rate)

NO_MAC = "00:00:00:00:00:00"
"""What the kernel shows for a VF to which the host gave none."""


@dataclass(frozen=True)
class PfRequest:
    """What is asked of the physical functions a selector means."""

    selector: Selector
    where: str
    count: int
    drivers_autoprobe: bool | None
    vfs: Mapping[int, VfSettings]


@dataclass(frozen=True)
class Request:
    """What is asked for. See the options of the module sriov_vfs."""

    pfs: tuple[PfRequest, ...]
    persistent: bool = True
    force: frozenset[str] = frozenset()
    timeout: float = 120.0

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Request:
        """Read the module's options.

        :raises PassthroughError: with every problem of every option
        """
        problems: list[Problem] = []
        selectors: list[Selector] = []
        try:
            selectors = parse_selectors([item["pf"] for item in params["pfs"]], "pfs")
        except PassthroughError as error:
            problems += error.problems
        read = [_PfReader(f"pfs[{number}]", item, problems) for number, item in enumerate(params["pfs"])]
        problems += time_limit_problems(params["timeout"])
        problems += _repeated_macs(read)
        if problems:
            raise PassthroughError.of(problems)
        pfs = [
            PfRequest(selector, one.where, one.count, one.drivers_autoprobe, one.vfs)
            for selector, one in zip(selectors, read)
        ]
        return cls(tuple(pfs), params["persistent"], frozenset(params["force"]), float(params["timeout"]))


class _PfReader:
    """One element of the option ``pfs``, read as far as it can be understood."""

    def __init__(self, where: str, item: Mapping[str, Any], problems: list[Problem]) -> None:
        self.where = where
        self._problems = problems
        self.count: int = item["count"]
        self.drivers_autoprobe: bool | None = item.get("drivers_autoprobe")
        self.vfs: dict[int, VfSettings] = {}
        if not 0 <= self.count <= MAX_COUNT:
            self._wrong(where, "count", self.count, f"has to be 0 (no virtual functions) to {MAX_COUNT}")
            self.count = 0
        for number, entry in enumerate(item.get("vfs") or ()):
            self._read_entry(f"{where}.vfs[{number}]", entry)

    def _wrong(self, where: str, field: str, value: Any, why: str, code: str = "vf_settings_invalid") -> None:
        self._problems.append(
            Problem(code, f"{where}: {field} {value!r} {why}.", details={"field": f"{where}.{field}", "value": value})
        )

    def _read_entry(self, where: str, entry: Mapping[str, Any]) -> None:
        indices = self._indices(where, entry["vf"])
        settings = self._settings(where, entry)
        if settings.mac is not None and len(indices) > 1:
            self._wrong(where, "mac", settings.mac, "can be the MAC address of one virtual function only")
        for index in indices:
            self._set(where, index, settings)

    def _indices(self, where: str, value: Any) -> list[int]:
        try:
            found = read_vf(value)
        except ValueError as error:
            self._problems.append(
                Problem("vf_settings_invalid", f"{where}: vf: {error}", details={"field": f"{where}.vf"})
            )
            return []
        if found == ALL:
            return list(range(self.count))
        beyond = [index for index in found if isinstance(index, int) and index >= self.count]
        if beyond:
            last = f"the last one is {self.count - 1}" if self.count else "there are to be none"
            self._wrong(
                where, "vf", value, f"names virtual functions beyond count: {last}, since the first has index 0"
            )
        return [index for index in found if isinstance(index, int) and index < self.count]

    def _set(self, where: str, index: int, settings: VfSettings) -> None:
        present = self.vfs.get(index, VfSettings())
        twice = present.restricted_to(settings)
        for name, value in twice.to_json().items():
            if value != getattr(settings, name):
                self._wrong(
                    where,
                    name,
                    getattr(settings, name),
                    f"contradicts {value!r}, which another entry has for VF {index}",
                )
        self.vfs[index] = settings.over(present)

    def _settings(self, where: str, entry: Mapping[str, Any]) -> VfSettings:
        settings = VfSettings(
            mac=self._mac(where, entry.get("mac")),
            vlan=self._number(where, entry, "vlan", MAX_VLAN),
            vlan_qos=self._number(where, entry, "vlan_qos", MAX_QOS),
            vlan_protocol=self._choice(where, entry, "vlan_protocol", VLAN_PROTOCOLS),
            spoof_check=entry.get("spoof_check"),
            trust=entry.get("trust"),
            min_tx_rate=self._number(where, entry, "min_tx_rate", MAX_RATE),
            max_tx_rate=self._number(where, entry, "max_tx_rate", MAX_RATE),
            link_state=self._choice(where, entry, "link_state", LINK_STATES),
            queues=self._number(where, entry, "queues", MAX_RESOURCES),
            interrupts=self._number(where, entry, "interrupts", MAX_RESOURCES),
        )
        if not settings.vlan:
            for name in ("vlan_qos", "vlan_protocol"):
                if getattr(settings, name) not in (None, 0, VLAN_PROTOCOLS[0]):
                    self._wrong(where, name, getattr(settings, name), "needs a vlan from 1 on in the same entry")
        if settings.vlan is not None:
            # The kernel takes all three together, and these are what it takes for those that are not given.
            settings = settings.over(VfSettings(vlan_qos=0, vlan_protocol=VLAN_PROTOCOLS[0]))
        else:
            settings = replace(settings, vlan_qos=None, vlan_protocol=None)
        low, high = settings.min_tx_rate, settings.max_tx_rate
        if low and high and low > high:
            self._wrong(where, "min_tx_rate", low, f"is more than max_tx_rate {high}")
        self._check_controller(where, settings)
        return settings

    def _check_controller(self, where: str, settings: VfSettings) -> None:
        """Online, a controller has an admin queue, another one, and an interrupt (NVM Express 2.0, 8.26)."""
        queues, interrupts = settings.queues, settings.interrupts
        if (queues is None) != (interrupts is None):
            given, missing = ("interrupts", "queues") if queues is None else ("queues", "interrupts")
            self._wrong(where, given, getattr(settings, given), f"has no {missing} beside it, and the two go together")
        elif queues == 1:
            self._wrong(where, "queues", queues, "is too few: one is for administration, so it takes 2 or more, or 0")
        elif queues is not None and bool(queues) != bool(interrupts):
            self._wrong(where, "interrupts", interrupts, f"does not go with {queues} queues: both are 0, or neither is")

    def _mac(self, where: str, value: Any) -> str | None:
        if value is None:
            return None
        try:
            mac = read_mac(value)
        except ValueError as error:
            self._problems.append(
                Problem("mac_invalid", f"{where}: mac: {error}", details={"field": f"{where}.mac", "value": value})
            )
            return None
        if mac == NO_MAC:
            why = "means that the host sets none; leave mac out for that"
        elif int(mac[:2], 16) & 1:
            why = "is the address of a group (its first byte is odd), and no device may have it"
        else:
            return mac
        self._wrong(where, "mac", value, why, code="mac_invalid")
        return None

    def _number(self, where: str, entry: Mapping[str, Any], field: str, limit: int) -> int | None:
        value = entry.get(field)
        if value is not None and not 0 <= value <= limit:
            self._wrong(where, field, value, f"has to be 0 to {limit}")
            return None
        return None if value is None else int(value)

    def _choice(self, where: str, entry: Mapping[str, Any], field: str, choices: Iterable[str]) -> str | None:
        value = entry.get(field)
        if value is not None and value not in choices:
            self._wrong(where, field, value, f"is none of {', '.join(choices)}")
            return None
        return None if value is None else str(value)


def _repeated_macs(read: Iterable[_PfReader]) -> list[Problem]:
    """One problem for each MAC address that several virtual functions would have."""
    places: dict[str, list[str]] = {}
    for one in read:
        for index, settings in one.vfs.items():
            if settings.mac is not None:
                places.setdefault(settings.mac, []).append(f"VF {index} of {one.where}")
    return [
        Problem(
            "mac_duplicate",
            f"The MAC address {mac} is asked for {' and for '.join(found)}.",
            "Give each virtual function an address of its own.",
            {"value": mac},
        )
        for mac, found in places.items()
        if len(found) > 1
    ]
