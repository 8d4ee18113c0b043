# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was asked for beside what the guest says itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.lab import PciFunction


@dataclass(frozen=True)
class Asked:
    """One hostdev of the inventory: the host's device, and where in the guest it has to appear, if it has to."""

    host: str
    ids: str
    name: str
    assigned: bool
    guest: str | None
    """The guest address that was asked for (``0000:05:00.3``), None when libvirt may choose."""

    @property
    def text(self) -> str:
        """What was asked for, in words."""
        if not self.assigned:
            return "not in the guest"
        if self.guest is None:
            return "in the guest"
        return f"in the guest as {self.guest.removeprefix('0000:')}"


@dataclass
class Row:
    """One line of the comparison."""

    asked: Asked
    seen: PciFunction | None = None
    problems: list[str] = field(default_factory=list)


def read_inventory(variables: Mapping[str, Any], domain: str) -> list[Asked]:
    """What a host's variables (``vfio_host_devices``, ``vfio_guest_domains``) ask for one domain.

    Addresses are taken as the demonstration's inventory writes them (the guest's without the domain), ids from
    ``expect``.
    """
    devices = {device["name"]: device for device in variables["vfio_host_devices"]}
    hostdevs = next(each["hostdevs"] for each in variables["vfio_guest_domains"] if each["name"] == domain)
    asked = []
    for hostdev in hostdevs:
        device = devices[hostdev["device"]]
        expect, address = device["expect"], hostdev.get("guest_address")
        guest = f"0000:{address}" if address is not None else None
        ids = f"{expect['vendor_id']}:{expect['device_id']}"
        asked.append(Asked(device["address"], ids, device["name"], hostdev.get("assigned", True), guest))
    return asked


def compare(asked: Sequence[Asked], functions: Sequence[PciFunction]) -> list[Row]:
    """Find what was asked for in the guest's own list, and everything that is different.

    Devices that were asked to share a guest slot have to share one, at just the functions that were asked for.
    The slot's bus may have another number in the guest: libvirt names the port, and the guest's firmware counts buses.
    """
    rows = [Row(each) for each in asked]
    free = list(functions)
    for row in rows:
        if row.asked.assigned and row.asked.guest is not None and row.seen is None:
            _settle_slot([other for other in rows if _same_slot(other.asked, row.asked)], free)
    for row in rows:
        if row.asked.assigned and row.asked.guest is None:
            row.seen = next((function for function in free if function.ids == row.asked.ids), None)
            if row.seen is not None:
                free.remove(row.seen)
    for row in rows:
        leftover = [function for function in free if function.ids == row.asked.ids]
        if row.asked.assigned and row.seen is None:
            row.problems.append("it is missing in the guest")
        elif leftover:
            row.problems.append(f"the guest has {', '.join(each.address for each in leftover)}, which nobody asked for")
    return rows


def _settle_slot(rows: Sequence[Row], free: list[PciFunction]) -> None:
    """Find the guest's slot that has the wanted functions with the wanted ids, and take them from it."""
    wanted = {_function(row.asked.guest): row for row in rows if row.asked.guest is not None}
    for slot in sorted({_slot(function.address) for function in free}):
        there = {_function(function.address): function for function in free if _slot(function.address) == slot}
        if all(number in there and there[number].ids == row.asked.ids for number, row in wanted.items()):
            for number, row in wanted.items():
                row.seen = there[number]
                free.remove(there[number])
            extra = sorted(set(there) - set(wanted))
            if extra:
                rows[0].problems.append(f"its slot also has function {', '.join(map(str, extra))}")
            return


def _same_slot(one: Asked, other: Asked) -> bool:
    return one.assigned and one.guest is not None and other.guest is not None and _slot(one.guest) == _slot(other.guest)


def _slot(address: str) -> str:
    return address.rsplit(".", 1)[0].removeprefix("0000:")


def _function(address: str) -> int:
    return int(address.rsplit(".", 1)[1], 16)


def table(rows: Sequence[Row], drivers: Mapping[str, str | None], driver: str) -> str:
    """The comparison for a person, with the driver each device has on the host after the last reboot."""
    head = ("host device", "ids", "name", "asked for", "the guest says", "after a reboot", "")
    lines = [head]
    for row in rows:
        seen = f"{row.seen.address} [{row.seen.ids}]" if row.seen else "not there"
        bound = drivers.get(row.asked.host) or "no driver"
        good = not row.problems and bound == driver
        lines.append(
            (row.asked.host, row.asked.ids, row.asked.name, row.asked.text, seen, bound, "ok" if good else "DIFFERS")
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = "  ".join("-" * width for width in widths).rstrip()
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([text[0], rule, *text[1:]])
