# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report about a fleet: JSON values that docs/audit_report.md describes, made of what modules answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .devices import STATES, device_entries, group_entries
from .finding import BLOCKER, ERROR, Finding
from .findings import findings
from .inventory import INVENTORY
from .results import (
    FAILED,
    UNREACHABLE,
    Answer,
    flag,
    integer,
    mapping,
    mappings,
    read_answer,
    read_answers,
    read_records,
    text_of,
    texts,
)

SCHEMA = "kvm.passthrough.audit"
VERSION = 1
"""Becomes another one when a field goes away or means something else; new fields do not change it."""

AUDITED = "audited"
PARTIAL = "partial"
NOT_AUDITED = "not_audited"

READY = "ready"
ATTENTION = "attention"
BLOCKED = "blocked"
NOT_KNOWN = "unknown"
VERDICTS = (BLOCKED, ATTENTION, NOT_KNOWN, READY)

# A field that every answer of the module has.
_FIELDS = {"iommu_info": "state", "pci_device_info": "devices", "hostdev_info": "domains"}
_SWITCHED_OFF = frozenset({"disabled_by_parameter", "disabled_by_default", "disabled_in_firmware", "unsupported"})


def fleet_report(results: Mapping[str, Any], generated: str) -> dict[str, Any]:
    """The report.

    :param results: host -> name of a module -> what it returned there, failures included; ``state`` is the file
        ``state.json`` as ``ansible.builtin.slurp`` returns it. A host without results is one that was not asked.
    :param generated: the time, as ISO 8601 writes it
    """
    hosts = [host_entry(str(name), mapping(results[name])) for name in results]
    hosts.sort(key=lambda host: _natural(host["name"]))
    return {
        "schema": SCHEMA,
        "version": VERSION,
        "generated": generated,
        "summary": _summary(hosts),
        "hosts": hosts,
    }


def host_entry(name: str, results: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of one host."""
    answers = {module: read_answer(results.get(module), field) for module, field in _FIELDS.items()}
    # In check mode, modules always tell their actions.
    inventory = {module: read_answers(results.get(module), "actions") for module in INVENTORY}
    iommu, pci, hostdevs = answers["iommu_info"], answers["pci_device_info"], answers["hostdev_info"]
    records = read_records(results.get("state"))
    failures = _failures([*answers.items(), *((module, one) for module, many in inventory.items() for one in many)])
    status, reason = _status(answers, failures)
    described = mappings(pci.result.get("devices")) if pci.answered else []
    devices = device_entries(described, mappings(hostdevs.result.get("devices")))
    wrong = findings(iommu, hostdevs, inventory, devices, records or [])
    return {
        "name": text_of(name) or "",
        "status": status,
        "verdict": _verdict(status, iommu, wrong),
        "reason": reason,
        "failures": failures,
        "iommu": _iommu(iommu.result) if iommu.answered else None,
        "libvirt": _libvirt(hostdevs),
        "findings": [one.as_json() for one in wrong],
        "groups": group_entries(devices, described, mappings(iommu.result.get("groups"))),
        "devices": devices,
        "domains": [_domain(item) for item in mappings(hostdevs.result.get("domains"))],
        "networks": [_network(item) for item in mappings(hostdevs.result.get("networks"))],
        "records": None if records is None else [_record(record) for record in records],
        "unreadable": _unreadable(answers),
    }


def _natural(name: str) -> tuple[Any, ...]:
    """A key that puts ``kvm2`` before ``kvm10``."""
    parts: list[tuple[int, int, str]] = []
    digits = ""
    for letter in f"{name}\0":
        if letter in "0123456789":
            digits += letter
            continue
        if digits:
            parts.append((0, int(digits), ""))
            digits = ""
        parts.append((1, 0, letter))
    return tuple(parts)


# -- how it went --------------------------------------------------------------------------------------------


def _status(answers: Mapping[str, Answer], failures: Sequence[Any]) -> tuple[str, str | None]:
    iommu, pci = answers["iommu_info"], answers["pci_device_info"]
    outcomes = (iommu.outcome, pci.outcome)
    if not (iommu.answered or pci.answered):
        for outcome in (UNREACHABLE, FAILED):
            if outcome in outcomes:
                return outcome, (iommu, pci)[outcomes.index(outcome)].reason
        return NOT_AUDITED, "The run did not get to this host: it failed before, or was left out."
    complete = iommu.answered and pci.answered and not failures
    return (AUDITED if complete else PARTIAL), None


def _is_broken(hostdevs: Answer) -> bool:
    """Whether libvirt could not be asked where there is one. A host need not have it."""
    return hostdevs.outcome in (FAILED, UNREACHABLE) and hostdevs.code != "python_module_missing"


def _failures(answers: Iterable[tuple[str, Answer]]) -> list[dict[str, Any]]:
    return [
        {
            "module": module,
            "code": answer.code,
            "message": f"{answer.about}: {answer.reason}" if answer.about else answer.reason,
        }
        for module, answer in answers
        if answer.outcome in (FAILED, UNREACHABLE)
        and not (module == "hostdev_info" and not _is_broken(answer))
        and not (module in INVENTORY and answer.result.get("problems"))  # these are findings
    ]


def _verdict(status: str, iommu: Answer, wrong: Sequence[Finding]) -> str:
    if not iommu.answered:
        return NOT_KNOWN
    if any(one.kind == BLOCKER and one.severity == ERROR for one in wrong):
        return BLOCKED
    if text_of(iommu.result.get("state")) in _SWITCHED_OFF:
        return BLOCKED
    return ATTENTION if wrong or status == PARTIAL else READY


def _unreadable(answers: Mapping[str, Answer]) -> list[str]:
    found = [text for answer in answers.values() if answer.answered for text in texts(answer.result.get("unreadable"))]
    return list(dict.fromkeys(found))


# -- the parts ----------------------------------------------------------------------------------------------


def _iommu(result: Mapping[str, Any]) -> dict[str, Any]:
    remapping, cpu = mapping(result.get("interrupt_remapping")), mapping(result.get("cpu"))
    configured = result.get("configured_parameters")
    return {
        "state": text_of(result.get("state")),
        "message": text_of(result.get("msg")),
        "platform": text_of(result.get("platform")),
        "platform_name": text_of(result.get("platform_name")),
        "evidence": texts(result.get("evidence")),
        "units": [text for unit in mappings(result.get("units")) if (text := text_of(unit.get("name"))) is not None],
        "interrupt_remapping": flag(remapping.get("enabled")),
        "group_count": integer(result.get("group_count")),
        "default_domain_type": text_of(result.get("default_domain_type")),
        "architecture": text_of(result.get("architecture")),
        "kernel": text_of(result.get("kernel")),
        "cpu_vendor": text_of(cpu.get("vendor")),
        "virtual_machine": flag(cpu.get("is_virtual_machine")),
        "bootloader": text_of(mapping(result.get("bootloader")).get("name")),
        "running_parameters": texts(result.get("running_parameters")),
        "configured_parameters": None if configured is None else texts(configured),
        "recommended_parameters": texts(result.get("recommended_parameters")),
        "parameters_to_remove": texts(result.get("parameters_to_remove")),
    }


def _libvirt(hostdevs: Answer) -> dict[str, Any]:
    asked = hostdevs.answered
    reason = hostdevs.reason if hostdevs.outcome in (FAILED, UNREACHABLE) else None
    return {"asked": asked, "reason": None if asked else reason or "It was not asked."}


def _domain(item: Mapping[str, Any]) -> dict[str, Any]:
    configured = [text_of(one.get("address")) for one in mappings(item.get("hostdevs"))]
    return {
        "name": text_of(item.get("name")) or "",
        "uuid": text_of(item.get("uuid")),
        "active": flag(item.get("active")),
        "hostdevs": [address for address in configured if address is not None],
        "running_with": texts(item.get("running_with")),
        "restart_required": flag(item.get("restart_required")),
        "networks": texts(item.get("networks")),
        "codes": texts(item.get("codes")),
    }


def _network(item: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": text_of(item.get("name")) or "",
        "active": flag(item.get("active")),
        "autostart": flag(item.get("autostart")),
        "pf": text_of(item.get("pf")),
        "vfs": texts(item.get("vfs")),
        "used_by": texts(item.get("used_by")),
        "codes": texts(item.get("codes")),
    }


def _record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was there before and after: definitions of domains may be among it."""
    return {
        **{name: text_of(record.get(name)) or "" for name in ("kind", "key", "module", "time")},
        "diverged": record.get("diverged") is True,
    }


def _summary(hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    verdicts = Counter(host["verdict"] for host in hosts)
    codes: dict[tuple[str, str, str], dict[str, Any]] = {}
    for host in hosts:
        for one in host["findings"]:
            entry = codes.setdefault(
                (one["code"], one["kind"], one["severity"]),
                {
                    **{name: one[name] for name in ("code", "kind", "severity", "message", "remedy")},
                    "hosts": [],
                },
            )
            if host["name"] not in entry["hosts"][-1:]:
                entry["hosts"].append(host["name"])
    states = Counter(group["state"] for host in hosts for group in host["groups"] if group["number"] is not None)
    return {
        "hosts": len(hosts),
        "verdicts": {verdict: verdicts[verdict] for verdict in VERDICTS},
        "groups": {state: states[state] for state in STATES},
        "codes": sorted(codes.values(), key=lambda one: (one["severity"] != ERROR, -len(one["hosts"]), one["code"])),
    }
