# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that is wrong on a host, from whatever module found it, as one list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...module_utils._pci.device import is_vfio_driver
from .finding import BLOCKER, CONFLICT, DEFINITION, DRIFT, ERROR, KINDS, WARNING, Finding, device_moved
from .inventory import inventory_findings
from .results import Answer, flag, integer, mapping, mappings, text_of, texts

# What iommu_info says of the next boot: the running system and the boot loader have come apart.
_NEXT_BOOT = frozenset({"reboot_pending", "iommu_off_after_reboot", "boot_entries_outdated"})
_CONFLICTS = frozenset({"in_use_by_domain", "device_in_other_domain", "device_elsewhere"})
_MOVED = frozenset({"device_drifted", "device_not_found", "network_not_found", "portgroup_not_found"})


def findings(
    iommu: Answer,
    hostdevs: Answer,
    inventory: Mapping[str, Sequence[Answer]],
    devices: Sequence[Mapping[str, Any]],
    records: Sequence[Mapping[str, Any]],
) -> list[Finding]:
    """All of them, errors first, each once.

    :param inventory: what the modules of :data:`inventory.INVENTORY` predict in check mode
    :param devices: as :func:`devices.device_entries` makes them
    :param records: those of ``state.json``
    """
    found = [*_of_iommu(iommu.result), *_of_hostdevs(hostdevs.result)]
    known = {(one.code, one.where, one.devices) for one in found}
    found += inventory_findings(inventory, known)
    if devices:
        moved = {address for one in found if one.code == "device_moved" for address in one.devices}
        found += [
            one for one in _of_records(devices, records) if one.code != "device_moved" or one.devices[0] not in moved
        ]
    return sorted(dict.fromkeys(found), key=lambda one: (one.severity != ERROR, KINDS.index(one.kind)))


def _of_iommu(result: Mapping[str, Any]) -> Iterator[Finding]:
    for item in mappings(result.get("blockers")):
        code = text_of(item.get("code")) or ""
        yield Finding(
            DRIFT if code in _NEXT_BOOT else BLOCKER,
            ERROR if item.get("severity") == ERROR else WARNING,
            code,
            text_of(item.get("message")) or "",
            text_of(item.get("remedy")) or "",
            devices=tuple(texts(item.get("devices"))),
        )


def _of_hostdevs(result: Mapping[str, Any]) -> Iterator[Finding]:
    explained = set()
    for item in mappings(result.get("problems")):
        code, device = text_of(item.get("code")) or "", text_of(item.get("device"))
        kind = CONFLICT if code in _CONFLICTS else DRIFT if code in _MOVED else DEFINITION
        if kind == CONFLICT:
            explained.add(device)
        yield Finding(
            kind,
            ERROR,
            code,
            text_of(item.get("message")) or "",
            text_of(item.get("remedy")) or "",
            text_of(item.get("where")),
            (device,) if device else (),
        )
    for item in mappings(result.get("devices")):
        address = text_of(item.get("address")) or ""
        if flag(item.get("conflict")) and address not in explained:
            names = [f"{one.get('kind')} {one.get('name')}" for one in mappings(item.get("owners"))]
            yield Finding(
                CONFLICT,
                ERROR,
                "device_claimed_twice",
                f"{address} belongs to {' and to '.join(names)}; only one of them can have it.",
                "Decide whose it is, and take it from the others.",
                devices=(address,),
            )
    for item in mappings(result.get("domains")):
        if flag(item.get("restart_required")):
            name = text_of(item.get("name")) or ""
            yield Finding(
                DRIFT,
                WARNING,
                "restart_required",
                f"The domain {name} runs with other devices than its definition has.",
                "Shut it down and start it again (a reboot within the guest does not do it).",
                f"domain {name}",
            )


def _of_records(devices: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Devices that are not as this collection left them."""
    there = {device["address"]: device for device in devices if device["present"]}
    for record in records:
        address, _space, ids = (text_of(record.get("key")) or "").partition(" ")
        after, device = mapping(record.get("after")), there.get(address)
        if record.get("kind") == "driver":
            driver = text_of(after.get("driver")) or text_of(after.get("driver_override"))
            if not is_vfio_driver(driver):
                continue
            if device is None or device["ids"] != ids:
                yield device_moved(address, ids, None if device is None else device["ids"])
            elif not device["vfio"] and not device["owners"]:
                yield Finding(
                    DRIFT,
                    WARNING,
                    "binding_drifted",
                    f"{address} was bound to {driver} by this collection and has "
                    f"{'the driver ' + device['driver'] if device['driver'] else 'no driver'} now.",
                    "Run kvm.passthrough.host to bind it again, or release it with kvm.passthrough.vfio_devices.",
                    devices=(address,),
                )
        elif record.get("kind") == "sriov" and device is not None and device["ids"] == ids:
            count, now = integer(after.get("count")), device["sriov_numvfs"]
            if count is not None and now is not None and count != now:
                yield Finding(
                    DRIFT,
                    WARNING,
                    "vfs_drifted",
                    f"{address} was given {count} virtual functions by this collection and has {now} now.",
                    "Set their number with kvm.passthrough.sriov_vfs; shut down the guests that use them before.",
                    devices=(address,),
                )
