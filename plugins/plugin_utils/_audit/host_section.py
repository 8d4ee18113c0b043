# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything about one host, folded behind a line that says the most important of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .finding import ERROR, KINDS
from .html import Content, Markup, join, tag
from .overview import iommu_words
from .picture import device_name, picture
from .tables import table
from .words import FINDING_KINDS, SEVERITIES, STATUSES, VERDICTS, count

Host = Mapping[str, Any]


def host_section(host: Host, number: int, is_open: bool) -> Markup:
    """A host as a section that can be opened; ``number`` is what the table of hosts refers to it by."""
    return tag(
        "details",
        tag("summary", _line(host)),
        tag(
            "div",
            _why_not(host),
            _findings(host["findings"]),
            _facts(host["iommu"]),
            _groups(host),
            _owners(host),
            _records(host["records"]),
            _unreadable(host["unreadable"]),
            class_="body",
        ),
        id=f"host-{number}",
        class_=f"host {host['verdict']}",
        open=is_open,
        data_host=number,
    )


def _line(host: Host) -> Markup:
    errors = sum(1 for one in host["findings"] if one["severity"] == ERROR)
    warnings = len(host["findings"]) - errors
    return join(
        tag("h3", tag("bdi", host["name"])),
        tag("span", VERDICTS[host["verdict"]][0], class_=f"badge {host['verdict']}"),
        tag("span", iommu_words(host), class_="aside"),
        tag("span", count(errors, "error"), class_="count error") if errors else None,
        tag("span", count(warnings, "warning"), class_="count warning") if warnings else None,
    )


def _block(heading: str, *content: Content) -> Markup:
    return tag("section", tag("h4", heading), *content)


def _fold(heading: str, content: Content) -> Markup:
    return tag("details", tag("summary", heading), content, class_="fold")


def _why_not(host: Host) -> Markup | None:
    """How the audit itself went, where it did not go well."""
    if host["status"] == "audited":
        return None
    told = [one for one in host["failures"] if one["message"] != host["reason"]]
    lines = [tag("li", tag("code", one["module"]), " ", one["message"]) for one in told]
    return tag(
        "div",
        tag("p", tag("b", STATUSES[host["status"]]), f": {host['reason']}" if host["reason"] else None),
        tag("ul", lines) if lines else None,
        class_="note",
    )


# -- what is wrong -------------------------------------------------------------------------------------------


def _findings(findings: Sequence[Mapping[str, Any]]) -> list[Markup]:
    blocks = []
    for kind in KINDS:
        found = [one for one in findings if one["kind"] == kind]
        if found:
            blocks.append(_block(FINDING_KINDS[kind], tag("ul", [_finding(one) for one in found], class_="findings")))
    return blocks


def _finding(one: Mapping[str, Any]) -> Markup:
    return tag(
        "li",
        tag(
            "p",
            tag("span", SEVERITIES[one["severity"]], class_=f"severity {one['severity']}"),
            " ",
            tag("code", one["code"]),
            tag("span", one["where"], class_="where") if one["where"] else None,
        ),
        tag("p", one["message"]),
        tag("p", tag("b", "Remedy: "), one["remedy"], class_="remedy") if one["remedy"] else None,
        class_=one["severity"],
    )


# -- the IOMMU -----------------------------------------------------------------------------------------------


def _facts(iommu: Mapping[str, Any] | None) -> Markup | None:
    if iommu is None:
        return None
    remapping = {True: "on", False: "off", None: "not known"}[iommu["interrupt_remapping"]]
    configured = iommu["configured_parameters"]
    rows: list[tuple[str, Content]] = [
        ("Evidence", "; ".join(iommu["evidence"])),
        ("Interrupt remapping", remapping),
        ("Default domain", iommu["default_domain_type"]),
        ("Kernel", " ".join(filter(None, (iommu["kernel"], iommu["architecture"])))),
        ("Processor", _processor(iommu)),
        ("Boot loader", iommu["bootloader"] or "not known"),
        ("Runs with", _parameters(iommu["running_parameters"])),
        ("Next boot with", "not known" if configured is None else _parameters(configured)),
        ("To be set", _parameters(iommu["recommended_parameters"]) if iommu["recommended_parameters"] else None),
        ("To be removed", _parameters(iommu["parameters_to_remove"]) if iommu["parameters_to_remove"] else None),
    ]
    return _block(
        "IOMMU",
        tag("p", iommu["message"], class_="lead"),
        tag("dl", [tag("div", tag("dt", name), tag("dd", value)) for name, value in rows if value]),
    )


def _processor(iommu: Mapping[str, Any]) -> str | None:
    vendor = iommu["cpu_vendor"]
    return f"{vendor or 'not known'}, in a virtual machine" if iommu["virtual_machine"] else vendor


def _parameters(parameters: Sequence[str]) -> Content:
    if not parameters:
        return "no parameters that matter here"
    return [join(tag("code", parameter), " ") for parameter in parameters]


# -- devices -------------------------------------------------------------------------------------------------


def _groups(host: Host) -> Markup | None:
    if not host["devices"] and not host["groups"]:
        return None
    return _block("IOMMU groups", picture(host["groups"], host["devices"]))


def _owners(host: Host) -> Markup | None:
    owned = [device for device in host["devices"] if device["owners"]]
    if not host["libvirt"]["asked"]:
        if host["iommu"] is None and not host["devices"]:
            return None
        return _block("Who has what", tag("p", f"libvirt was not asked. {host['libvirt']['reason']}", class_="lead"))
    if not owned:
        guests = count(len(host["domains"]), "domain")
        return _block("Who has what", tag("p", f"No guest has a PCI device ({guests}).", class_="lead"))
    columns = ("Device", "What it is", "Driver", "Owner", "How", "Now", "Note")
    rows = [_owner_row(device, owner) for device in owned for owner in device["owners"]]
    return _block("Who has what", table(columns, rows, "Who has what", "owners"))


def _owner_row(device: Mapping[str, Any], owner: Mapping[str, Any]) -> Markup:
    lost = device["present"] is False
    return tag(
        "tr",
        tag("th", tag("code", device["address"]), scope="row"),
        tag("td", "No such device" if lost else device_name(device)),
        tag("td", device["driver"] or "none", class_="mono"),
        tag("td", f"{owner['kind']} ", tag("bdi", owner["name"])),
        tag("td", owner["how"] if owner["configured"] else f"{owner['how']}, in no definition"),
        tag("td", "active" if owner["running"] else "inactive"),
        tag("td", tag("span", "conflict", class_="severity error") if device["conflict"] else None),
    )


# -- the rest ------------------------------------------------------------------------------------------------


def _records(records: Sequence[Mapping[str, Any]] | None) -> Markup | None:
    if not records:
        return None
    rows = [
        tag(
            "tr",
            tag("td", record["kind"]),
            tag("th", tag("code", record["key"]), scope="row"),
            tag("td", record["module"]),
            tag("td", record["time"]),
            tag("td", "somebody else changed it, too" if record["diverged"] else None),
        )
        for record in records
    ]
    columns = ("What", "Which", "By", "When", "Note")
    label = f"What this collection changed here ({count(len(records), 'record')})"
    return _fold(label, table(columns, rows, label))


def _unreadable(unreadable: Sequence[str]) -> Markup | None:
    if not unreadable:
        return None
    return _fold(
        f"What could not be found out ({len(unreadable)})", tag("ul", [tag("li", text) for text in unreadable])
    )
