# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The IOMMU groups of a host as a picture: fences around devices, with who drives them and who has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .devices import HOST_CODES, INFRASTRUCTURE_CODES
from .html import Content, Markup, tag
from .icons import icon
from .words import DEVICE_KINDS, GROUP_STATES, count

# What stands against every device of a host is said once, above the picture, and a bridge is seen to be one.
_NOT_SHOWN = HOST_CODES | INFRASTRUCTURE_CODES

Device = Mapping[str, Any]
Group = Mapping[str, Any]


def picture(groups: Sequence[Group], devices: Sequence[Device]) -> Markup:
    """All groups; those with nothing that could ever be given are folded away."""
    by_address = {device["address"]: device for device in devices}
    places = sorted((group for group in groups if group["state"] != "infrastructure"), key=_by_importance)
    machine = [group for group in groups if group["state"] == "infrastructure"]
    states = [group["state"] for group in places]
    return tag(
        "div",
        tag(
            "ul",
            [
                tag("li", tag("b", states.count(state)), f" {words[0].lower()}", class_=state, title=words[1])
                for state, words in GROUP_STATES.items()
                if state in states
            ],
            class_="legend",
            aria_label="Groups by use",
        ),
        tag("ul", [_group(group, by_address) for group in places], class_="groups"),
        _folded(machine, by_address),
        class_="picture",
    )


def _by_importance(group: Group) -> tuple[bool, int, bool, int]:
    """Conflicts first, then by use; groups without a number last."""
    number = group["number"]
    return not group["conflict"], list(GROUP_STATES).index(group["state"]), number is None, number or 0


def _folded(machine: Sequence[Group], by_address: Mapping[str, Device]) -> Markup | None:
    if not machine:
        return None
    return tag(
        "details",
        tag("summary", f"{count(len(machine), 'group')} with nothing but parts of the machine itself"),
        tag("ul", [_group(group, by_address) for group in machine], class_="groups"),
        class_="fold",
    )


def _group(group: Group, by_address: Mapping[str, Device]) -> Markup:
    members = [by_address.get(address, {"address": address}) for address in group["devices"]]
    state = group["state"]
    number = group["number"]
    return tag(
        "li",
        tag(
            "div",
            tag("b", "In no group" if number is None else f"Group {number}"),
            tag("span", GROUP_STATES[state][0], class_="state"),
            class_="head",
        ),
        tag("ul", [_device(device) for device in members], class_="devices"),
        _notes(group, members),
        _why(members),
        class_=" ".join(["group", state, *_sizes(members), *(["conflict"] if group["conflict"] else [])]),
    )


def _sizes(members: Sequence[Device]) -> list[str]:
    """Many devices stand beside each other, so that the picture has no holes."""
    return ["large"] if len(members) > 6 else ["wide"] if len(members) > 2 else []


def _notes(group: Group, members: Sequence[Device]) -> Markup | None:
    endpoints = [device for device in members if device.get("kind") != "bridge"]
    notes = []
    if group["conflict"]:
        notes.append("several owners that cannot all have it")
    if group["number"] is not None and len(endpoints) > 1:
        notes.append(f"{len(endpoints)} devices that can only go to one guest together")
    if group["direct_regions"]:
        notes.append("firmware keeps memory for it")
    if group["type"] and group["state"] != "infrastructure":
        notes.append(group["type"])
    return tag("p", " · ".join(notes), class_="notes") if notes else None


def _why(members: Iterable[Device]) -> Markup | None:
    """The reasons in full, each once; the codes alone stand at the devices."""
    reasons: dict[tuple[str, str, str], None] = {}
    for device in members:
        for guard in device.get("guards", ()):
            if guard["code"] not in _NOT_SHOWN:
                reasons[(guard["code"], guard["message"], guard["remedy"])] = None
    if not reasons:
        return None
    return tag(
        "details",
        tag("summary", "Reasons"),
        tag("ul", [tag("li", tag("code", code), " ", message, " ", remedy) for code, message, remedy in reasons]),
        class_="why",
    )


# -- one device ---------------------------------------------------------------------------------------------


def _device(device: Device) -> Markup:
    if "kind" not in device:
        return tag("li", tag("code", device["address"]), class_="device")
    lost = device["present"] is False
    return tag(
        "li",
        icon("lost" if lost else device["kind"]),
        tag(
            "div",
            tag(
                "span",
                tag("code", device["address"]),
                " ",
                _driver(device),
                class_="line",
            ),
            tag("span", "No such device on this host" if lost else device_name(device), class_="name"),
            [tag("span", fact, class_="fact") for fact in _facts(device)],
            _chips(device),
        ),
        class_=f"device{' lost' if lost else ''}",
    )


def _driver(device: Device) -> Markup:
    if device["driver"] is None:
        return tag("span", "no driver", class_="driver none")
    return tag("span", device["driver"], class_="driver vfio" if device["vfio"] else "driver")


def device_name(device: Device) -> str:
    """What a device is called: by the host's pci.ids, or by its class and numbers."""
    named = " ".join(name for name in (device["vendor_name"], device["device_name"]) if name)
    if named:
        return named
    class_name = device["class_name"] or DEVICE_KINDS[device["kind"]]
    return f"{class_name} {device['ids']}" if device["ids"] else class_name


def _facts(device: Device) -> list[Content]:
    facts: list[Content] = []
    if device["pf"] is not None:
        facts.append(f"VF {device['vf']} of {device['pf']}")
    if device["sriov_totalvfs"]:
        facts.append(f"{device['sriov_numvfs'] or 0} of {device['sriov_totalvfs']} VFs")
    for used in (*device["interfaces"], *device["block_devices"]):
        facts.append(f"{used['name']}: {', '.join(used['uses'])}" if used["uses"] else used["name"])
    if device["zpci"] is not None:
        facts.append(f"uid {device['zpci']['uid'] or '–'}, fid {device['zpci']['fid'] or '–'}")
    return facts


def _chips(device: Device) -> Markup | None:
    owners = [
        tag(
            "li",
            icon("guest" if _is_guest(owner) else "pool"),
            tag("bdi", owner["name"]),
            tag("span", _how(owner), class_="how"),
            class_=f"owner {'domain' if _is_guest(owner) else 'network'}{' running' if owner['running'] else ''}",
        )
        for owner in device["owners"]
    ]
    named = {owner["name"] for owner in device["owners"]}
    holders = [
        tag(
            "li",
            icon("guest"),
            tag("bdi", holder["domain"] or holder["command"] or ""),
            tag("span", f"process {holder['pid']}", class_="how"),
            class_="owner domain running",
        )
        for holder in device["held_by"]
        if holder["domain"] not in named
    ]
    codes = dict.fromkeys((guard["code"], guard["severity"]) for guard in device["guards"])
    guards = [
        tag("li", icon("shield"), code, class_=f"guard {severity}")
        for code, severity in codes
        if code not in _NOT_SHOWN
    ]
    chips = owners + holders + guards
    return tag("ul", chips, class_="chips") if chips else None


def _is_guest(owner: Mapping[str, Any]) -> bool:
    return bool(owner["kind"] == "domain")


def _how(owner: Mapping[str, Any]) -> str:
    if not _is_guest(owner):
        return "pool"
    return "runs with it" if owner["running"] else "defined"
