# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The devices of a host and their IOMMU groups, each with what it is, who has it and what stands against giving it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ...module_utils._core.errors import PassthroughError
from ...module_utils._pci.address import PciAddress
from ...module_utils._pci.device import is_vfio_driver
from .results import flag, integer, mapping, mappings, text_of, texts

# By the first byte of the class code; PCI Code and ID Assignment Specification, section 1.
_KINDS = {
    0x01: "storage",
    0x02: "network",
    0x03: "display",
    0x04: "audio",
    0x06: "bridge",
    0x0C: "bus",
    0x12: "accelerator",
}
_USB = 0x0C03

INFRASTRUCTURE_CODES = frozenset({"bridge", "system_device"})
"""The codes of guards that say: this is part of the machine itself, nobody would give it away."""

HOST_CODES = frozenset({"no_iommu", "no_interrupt_remapping"})
"""The codes of guards that say something of the whole host, as ``iommu_info`` does."""


def device_entries(described: Sequence[Mapping[str, Any]], owned: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The devices of a host in bus order, those included that a guest has and that are gone.

    :param described: ``devices`` of ``pci_device_info``
    :param owned: ``devices`` of ``hostdev_info``
    """
    claims = {text_of(item.get("address")): item for item in owned}
    found = [_device(item, claims.pop(text_of(item.get("address")), {})) for item in described]
    found += [_lost_device(item) for address, item in claims.items() if address is not None]
    return sorted(found, key=lambda device: _order(device["address"]))


def _device(item: Mapping[str, Any], claim: Mapping[str, Any]) -> dict[str, Any]:
    address = text_of(item.get("address")) or ""
    obstacles = item.get("obstacles")
    return {
        "address": address,
        "present": True,
        "ids": text_of(item.get("ids")),
        "vendor_name": text_of(item.get("vendor_name")),
        "device_name": text_of(item.get("device_name")),
        "class_name": text_of(item.get("class_name")),
        "kind": _kind(text_of(item.get("pci_class")), flag(item.get("is_bridge"))),
        "label": text_of(item.get("name")),
        "driver": text_of(item.get("driver")),
        "vfio": is_vfio_driver(text_of(item.get("driver"))),
        "driver_override": text_of(item.get("driver_override")),
        "iommu_group": integer(mapping(item.get("iommu_group")).get("number")),
        "assignable": flag(item.get("assignable")),
        "guards": [_guard(one) for one in mappings(obstacles) if text_of(one.get("device")) == address],
        "owners": _owners(claim),
        "conflict": flag(claim.get("conflict")) or False,
        "held_by": [_holder(one) for one in mappings(item.get("held_by"))],
        "interfaces": [_used(one) for one in mappings(item.get("interfaces"))],
        "block_devices": [_used(one) for one in mappings(item.get("block_devices"))],
        "pf": text_of(item.get("pf")),
        "vf": integer(item.get("vf")),
        "sriov_numvfs": integer(item.get("sriov_numvfs")),
        "sriov_totalvfs": integer(item.get("sriov_totalvfs")),
        "numa_node": integer(item.get("numa_node")),
        "physical_slot": text_of(item.get("physical_slot")),
        "serial": text_of(item.get("serial")),
        "zpci": {name: text_of(mapping(item.get("zpci")).get(name)) for name in ("uid", "fid")}
        if item.get("zpci")
        else None,
    }


def _lost_device(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A device that somebody has and that was not described: gone, or nothing could be said of the host's devices."""
    nothing = _device({"address": claim.get("address"), "driver": claim.get("driver")}, claim)
    return {
        **nothing,
        "present": flag(claim.get("present")),
        "iommu_group": integer(claim.get("iommu_group")),
        "device_name": text_of(claim.get("description")),
    }


def _kind(pci_class: str | None, is_bridge: bool | None) -> str:
    if is_bridge:
        return "bridge"
    try:
        code = int(pci_class or "", 16) >> 8
    except ValueError:
        return "other"
    return "usb" if code == _USB else _KINDS.get(code >> 8, "other")


def _guard(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: text_of(item.get(name)) or "" for name in ("code", "message", "remedy")},
        "severity": "error" if item.get("severity") == "error" else "warning",
        "forcible": flag(item.get("forcible")),
    }


def _owners(claim: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            **{name: text_of(owner.get(name)) or "" for name in ("kind", "name", "how")},
            **{name: flag(owner.get(name)) or False for name in ("configured", "running")},
        }
        for owner in mappings(claim.get("owners"))
    ]


def _holder(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "pid": integer(item.get("pid")),
        "command": text_of(item.get("command")),
        "domain": text_of(item.get("domain")),
    }


def _used(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": text_of(item.get("name")) or "",
        "detail": text_of(item.get("mac")) or text_of(item.get("model")),
        "uses": None if item.get("uses") is None else texts(item.get("uses")),
    }


def _order(address: str) -> tuple[int, PciAddress | str]:
    try:
        return 0, PciAddress.parse(address)
    except PassthroughError:
        return 1, address


# -- groups -------------------------------------------------------------------------------------------------

STATES = ("in_use", "assigned", "pool", "bound", "free", "kept", "unknown", "infrastructure")
"""What a group is to the host, in the order in which people look for it; see docs/audit_report.md."""


def group_entries(
    devices: Sequence[Mapping[str, Any]],
    described: Sequence[Mapping[str, Any]],
    listed: Sequence[Mapping[str, Any]],
) -> list[dict[str, Any]]:
    """The IOMMU groups by number, and at the end, without a number, the devices that are in none.

    :param devices: as :func:`device_entries` makes them
    :param described: ``devices`` of ``pci_device_info``
    :param listed: ``groups`` of ``iommu_info``
    """
    known: dict[int, Mapping[str, Any]] = {}
    for group in [*(mapping(item.get("iommu_group")) for item in described), *listed]:
        number = integer(group.get("number"))
        if number is not None:
            known[number] = group
    by_address = {device["address"]: device for device in devices}
    found = []
    grouped: set[str] = set()
    for number in sorted(known):
        addresses = texts(known[number].get("devices"))
        grouped.update(addresses)
        found.append(_group(number, known[number], addresses, by_address))
    rest = [device["address"] for device in devices if device["address"] not in grouped]
    return found + ([_group(None, {}, rest, by_address)] if rest else [])


def _group(
    number: int | None,
    group: Mapping[str, Any],
    addresses: Sequence[str],
    by_address: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    members = [by_address[address] for address in addresses if address in by_address]
    return {
        "number": number,
        "type": text_of(group.get("type")),
        "isolated": flag(group.get("isolated")),
        "viable": flag(group.get("viable")),
        "direct_regions": sum(1 for one in mappings(group.get("reserved_regions")) if one.get("type") == "direct"),
        "state": group_state(members),
        "conflict": any(device["conflict"] for device in members),
        "devices": list(addresses),
        "owners": sorted({owner["name"] for device in members for owner in device["owners"]}),
    }


def group_state(members: Sequence[Mapping[str, Any]]) -> str:
    """One of :data:`STATES`, by what is most important to know of these devices."""
    owners = [owner for device in members for owner in device["owners"]]
    guests = [owner for owner in owners if owner["kind"] == "domain"]
    endpoints = [device for device in members if device["kind"] != "bridge"]
    codes = {code for device in endpoints for code in _errors(device["guards"])}
    if any(owner["running"] for owner in guests) or any(device["held_by"] for device in members):
        return "in_use"
    if guests:
        return "assigned"
    if owners:
        return "pool"
    if members and (not endpoints or (codes and codes <= INFRASTRUCTURE_CODES)):
        return "infrastructure"
    if endpoints and all(device["vfio"] for device in endpoints):
        return "bound"
    if any(device["assignable"] for device in endpoints):
        return "free"
    return "kept" if any(device["assignable"] is False for device in endpoints) else "unknown"


def _errors(guards: Iterable[Mapping[str, Any]]) -> list[str]:
    return [guard["code"] for guard in guards if guard["severity"] == "error"]
