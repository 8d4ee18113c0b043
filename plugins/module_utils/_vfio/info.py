# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything worth knowing about PCI devices before one is given to a guest: what pci_device_info returns."""

from __future__ import annotations

from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._pci.address import PciAddress
from .._pci.device import PciDevice
from .._pci.selector import Selector, parse_all, read_count, read_index, select_all
from .guards.base import GuardContext
from .memory import recalling_bus
from .verdict import is_assignable, obstacles


def devices_report(host: Host, devices: Any, count: Any = None, index: Any = None) -> dict[str, Any]:
    """The devices that selectors mean, in the selectors' order and each once; or every device in bus order.

    :param devices: selectors, or None for every device
    :param count: for selectors that name neither ``count`` nor ``index`` themselves; ``index`` likewise
    :raises PassthroughError: for bad selectors and for what they do not find, all of it at once
    """
    bus = recalling_bus(host)
    labels: dict[PciAddress, str | None] = {}
    if devices is None:
        labels = dict.fromkeys(bus.addresses)
    else:
        for selector, found in select_all(_with_defaults(parse_all(devices), count, index), bus):
            for device in found:
                labels[device.address] = labels.get(device.address) or selector.name
    context = GuardContext(host, bus)
    described = []
    summary = []
    for address, label in labels.items():
        try:
            info = describe(bus.device(address), context)
        except PassthroughError as error:
            if error.code in ("device_vanished", "device_not_found"):
                continue
            raise
        described.append({"name": label, **info})
        summary.append(_line(bus.device(address), info))
    return {"devices": described, "summary": summary}


def describe(device: PciDevice, context: GuardContext) -> dict[str, Any]:
    """What there is to know about one device, as JSON values.

    :raises PassthroughError: ``device_vanished`` when it is removed meanwhile
    """
    findings = obstacles(device, context)
    siblings = [address for address in device.siblings if address != device.address]
    return {
        "address": str(device.address),
        "nodedev_name": device.address.nodedev_name,
        "ids": device.ids,
        "vendor_id": f"{device.vendor_id:04x}",
        "device_id": f"{device.device_id:04x}",
        "subsystem_vendor_id": f"{device.subsystem_vendor_id:04x}",
        "subsystem_device_id": f"{device.subsystem_device_id:04x}",
        "vendor_name": device.vendor_name,
        "device_name": device.device_name,
        "pci_class": f"{device.pci_class:06x}",
        "class_name": device.class_name,
        "driver": device.driver,
        "driver_override": device.driver_override,
        "assignable": is_assignable(findings),
        "obstacles": [finding.as_result() for finding in findings],
        "iommu_group": None if device.iommu_group is None else context.group(device.iommu_group).as_result(),
        "numa_node": device.numa_node,
        "is_bridge": device.is_bridge,
        "boot_vga": device.boot_vga,
        "multifunction": bool(siblings),
        "siblings": [str(address) for address in siblings],
        "pf": None if device.pf is None else str(device.pf),
        "vf": device.vf_index,
        "vfs": [str(address) for address in device.vfs],
        "sriov_numvfs": device.sriov_numvfs,
        "sriov_totalvfs": device.sriov_totalvfs,
        "reset_methods": device.reset_methods,
        "interfaces": [
            {"name": name, "mac": context.host.attribute(f"/sys/class/net/{name}/address")}
            for name in context.topology.interfaces(device)
        ],
        "block_devices": [
            name for name in context.topology.block_devices(device) if not context.storage.is_partition(name)
        ],
        "xml": device.address.xml_attributes,
    }


def _with_defaults(selectors: list[Selector], count: Any, index: Any) -> list[Selector]:
    try:
        default_count = None if count is None else read_count(count)
        default_index = None if index is None else read_index(index)
    except ValueError as error:
        name = "index" if count is None else "count"
        raise PassthroughError("option_invalid", f"{name}: {error}", field=name) from error
    return [selector.with_defaults(default_count, default_index) for selector in selectors]


def _line(device: PciDevice, info: dict[str, Any]) -> str:
    group = "no IOMMU group" if device.iommu_group is None else f"group {device.iommu_group}"
    codes = list(dict.fromkeys(found["code"] for found in info["obstacles"] if found["severity"] == "error"))
    verdicts = {True: "assignable", False: f"not assignable ({', '.join(codes)})", None: "assignable is not known"}
    return f"{device.line}, {group}, {verdicts[info['assignable']]}"
