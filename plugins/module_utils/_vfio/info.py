# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything worth knowing about PCI devices before one is given to a guest: what pci_device_info returns."""

from __future__ import annotations

from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.state import STATE_PATH
from .._pci.address import PciAddress
from .._pci.device import DEVICES, Bus, PciDevice
from .._pci.grammar import parse_selectors, read_count, read_index
from .._pci.selector import Selector, select_all
from .._pci.tree import as_result, bus_tree, draw
from .describe import Describer
from .memory import RecallingBus, recalling_bus


def devices_report(
    host: Host, devices: Any, count: Any = None, index: Any = None, *, obstacles: bool = True, tree: bool = False
) -> dict[str, Any]:
    """The devices that selectors mean, in the selectors' order and each once; or every device in bus order.

    :param devices: selectors, or None for every device
    :param count: for selectors that name neither ``count`` nor ``index`` themselves; ``index`` likewise
    :param obstacles: whether to find out what stands against giving the devices away, and what the host uses them for
    :param tree: whether to show the devices as the hierarchy of buses, too
    :raises PassthroughError: for bad selectors and for what they do not find, all of it at once
    """
    bus = recalling_bus(host)
    describer = Describer(host, bus, with_uses=obstacles)
    labels = _choose(bus, devices, count, index)
    bus.read_locked_attributes(bus.device(address) for address in labels if address in bus)
    described, undescribed, summary = [], [], []
    for address, label in labels.items():
        try:
            device = bus.device(address)
            info = describer.describe(device)
        except PassthroughError as error:
            undescribed.append({"address": str(address), "code": error.code, "message": str(error)})
            continue
        described.append({"name": label, **info})
        summary.append(_line(device, info))
    result: dict[str, Any] = {
        "msg": _message(host, described, undescribed),
        "devices": described,
        "summary": summary,
        "undescribed": undescribed,
        "unreadable": [*_forgotten(bus), *describer.unknown],
    }
    if tree:
        roots = bus_tree(host, labels)
        result["tree"] = as_result(roots, lambda address: _node(bus, address))
        result["tree_lines"] = draw(roots, lambda address: _short_line(bus, address))
    return result


def _choose(bus: Bus, devices: Any, count: Any, index: Any) -> dict[PciAddress, str | None]:
    """The addresses that are meant, each with the name its selector gives it."""
    if devices is None:
        return dict.fromkeys(bus.addresses)
    labels: dict[PciAddress, str | None] = {}
    for selector, found in select_all(_with_defaults(parse_selectors(devices), count, index), bus):
        for device in found:
            labels[device.address] = labels.get(device.address) or selector.name
    return labels


def _with_defaults(selectors: list[Selector], count: Any, index: Any) -> list[Selector]:
    try:
        default_count = None if count is None else read_count(count)
        default_index = None if index is None else read_index(index)
    except ValueError as error:
        name = "index" if count is None else "count"
        raise PassthroughError("option_invalid", f"{name}: {error}", field=name) from error
    return [selector.with_defaults(default_count, default_index) for selector in selectors]


def _forgotten(bus: Bus) -> list[str]:
    if isinstance(bus, RecallingBus):
        return []
    return [f"the interfaces that devices had before they were bound to VFIO: {STATE_PATH} cannot be read"]


# -- words --------------------------------------------------------------------------------------------------


def _line(device: PciDevice, info: dict[str, Any]) -> str:
    text = f"{device.line}, {_group(device)}"
    if info["obstacles"] is None:
        return text
    codes = list(dict.fromkeys(found["code"] for found in info["obstacles"] if found["severity"] == "error"))
    verdicts = {True: "assignable", False: f"not assignable ({', '.join(codes)})", None: "assignable is not known"}
    return f"{text}, {verdicts[info['assignable']]}"


def _short_line(bus: Bus, address: PciAddress) -> str:
    """A device in the tree: what it is, its driver and its group; only the address of one that is gone meanwhile."""
    try:
        device = bus.device(address)
        _unused = device.ids
    except PassthroughError:
        return str(address)
    return f"{device.line}, {_group(device)}"


def _node(bus: Bus, address: PciAddress) -> dict[str, Any]:
    group = bus.device(address).iommu_group if address in bus else None
    return {"address": str(address), "line": _short_line(bus, address), "iommu_group": group}


def _group(device: PciDevice) -> str:
    return "no IOMMU group" if device.iommu_group is None else f"group {device.iommu_group}"


def _message(host: Host, described: list[dict[str, Any]], undescribed: list[dict[str, Any]]) -> str:
    if not described and not undescribed:
        if not host.is_dir(DEVICES):
            return f"No PCI device can be seen: there is no {DEVICES}, as in a container or with a kernel without PCI."
        return "No PCI device was asked for." if host.list_dir(DEVICES) else "This host has no PCI device."
    text = f"{len(described)} PCI device{'' if len(described) == 1 else 's'}"
    verdicts = [device["assignable"] for device in described if device["obstacles"] is not None]
    if verdicts:
        parts = [f"{verdicts.count(True)} assignable", f"{verdicts.count(False)} not"]
        parts += [f"of {verdicts.count(None)} it is not known"] if None in verdicts else []
        text += f": {', '.join(parts)}"
    if undescribed:
        text += f"; {len(undescribed)} more could not be described"
    return f"{text}."
