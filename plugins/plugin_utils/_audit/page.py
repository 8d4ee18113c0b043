# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page about a fleet: one HTML document that needs nothing else, neither a network nor a script to be read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .findings import ERROR, KINDS
from .host_section import host_section
from .html import Markup, tag
from .icons import sprite, stacked_bar
from .report import SCHEMA, VERDICTS, VERSION
from .words import FINDING_KINDS, GROUP_STATES, IOMMU_STATES, SEVERITIES, count
from .words import VERDICTS as VERDICT_WORDS

ASSETS = Path(__file__).parent / "assets"

OPEN_AT_MOST = 3
"""So many hosts are shown with everything at once; of more, a reader opens what they want to see."""

_COLUMNS = (
    ("Host", "text"),
    ("Verdict", "number"),
    ("IOMMU", "text"),
    ("Kernel", "text"),
    ("Groups", "number"),
    ("In use", "number"),
    ("Bound", "number"),
    ("Could be given", "number"),
    ("Errors", "number"),
    ("Warnings", "number"),
)
_CODE_COLUMNS = ("What", "Hosts", "", "For example", "Remedy")


def audit_page(report: Mapping[str, Any]) -> str:
    """The page about a report.

    :raises ValueError: when it is none, or one of another version
    """
    if report.get("schema") != SCHEMA or report.get("version") != VERSION:
        raise ValueError(
            f"this is no report of {SCHEMA} version {VERSION}: schema is {report.get('schema')!r}, "
            f"version is {report.get('version')!r}"
        )
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    hosts = report["hosts"]
    document = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="referrer", content="no-referrer"),
            tag("title", f"PCI passthrough: {_fleet_name(hosts)}"),
            tag("link", rel="icon", href="data:,"),
            tag("style", Markup(style)),
        ),
        tag(
            "body",
            tag("a", "Skip to the hosts", class_="skip", href="#hosts"),
            sprite(),
            _header(report),
            tag(
                "main",
                _codes(report["summary"]["codes"], len(hosts)),
                _overview(hosts),
                tag(
                    "section",
                    tag("h2", "Details", id="details"),
                    [host_section(host, number, len(hosts) <= OPEN_AT_MOST) for number, host in enumerate(hosts)],
                    aria_labelledby="details",
                ),
            ),
            tag("footer", _footer(report)),
            tag("script", Markup(script)),
        ),
        lang="en",
    )
    return f"<!DOCTYPE html>\n{document}\n"


def _policy(style: str, script: str) -> str:
    """Nothing is loaded from anywhere, and only the script of this collection runs, whatever a host is called."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _fleet_name(hosts: Sequence[Mapping[str, Any]]) -> str:
    return str(hosts[0]["name"]) if len(hosts) == 1 else count(len(hosts), "host")


# -- the top ------------------------------------------------------------------------------------------------


def _header(report: Mapping[str, Any]) -> Markup:
    summary = report["summary"]
    verdicts = summary["verdicts"]
    parts = [(verdict, VERDICT_WORDS[verdict][0], verdicts[verdict]) for verdict in VERDICTS]
    return tag(
        "header",
        tag(
            "div",
            tag("p", "kvm.passthrough audit", class_="overline"),
            tag("h1", "PCI passthrough: ", tag("bdi", _fleet_name(report["hosts"]))),
            tag("p", "As of ", tag("time", _readable(report["generated"]), datetime=report["generated"])),
            class_="title",
        ),
        tag(
            "ul",
            [
                tag(
                    "li",
                    tag(
                        "button",
                        tag("span", number, class_="figure"),
                        tag("span", word, class_="label"),
                        type="button",
                        class_=f"tile {verdict}",
                        data_verdict=verdict,
                        aria_pressed="false",
                        title=VERDICT_WORDS[verdict][1],
                    ),
                )
                for verdict, word, number in parts
            ],
            class_="tiles",
            aria_label="Hosts by verdict; press one to see only these",
        ),
        stacked_bar(parts, "Hosts by verdict", "fleet"),
    )


def _readable(generated: str) -> str:
    return generated.replace("T", " ").replace("Z", " UTC")


# -- what is wrong in the fleet ------------------------------------------------------------------------------


def _codes(codes: Sequence[Mapping[str, Any]], hosts: int) -> Markup | None:
    if hosts < 2 or not codes:
        return None
    return tag(
        "section",
        tag("h2", "What is wrong, by frequency", id="codes"),
        tag(
            "div",
            tag(
                "table",
                tag(
                    "thead",
                    tag("tr", [tag("th", name, scope="col") for name in _CODE_COLUMNS]),
                ),
                tag("tbody", [_code_row(one, hosts) for one in codes]),
                class_="codes",
            ),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_labelledby="codes",
        ),
        aria_labelledby="codes",
    )


def _code_row(one: Mapping[str, Any], hosts: int) -> Markup:
    number = len(one["hosts"])
    kind = FINDING_KINDS[one["kind"]].lower() if one["kind"] in KINDS else one["kind"]
    return tag(
        "tr",
        tag(
            "th",
            tag("button", one["code"], type="button", class_="code", data_search=one["code"], title="Show these hosts"),
            tag("span", f"{SEVERITIES[one['severity']]}: {kind}", class_=f"severity {one['severity']}"),
            scope="row",
        ),
        tag("td", number, class_="number"),
        tag(
            "td",
            stacked_bar([(one["severity"], one["code"], number), ("rest", "others", hosts - number)], None, "share"),
        ),
        tag("td", one["message"]),
        tag("td", one["remedy"]),
    )


# -- the table of hosts --------------------------------------------------------------------------------------


def _overview(hosts: Sequence[Mapping[str, Any]]) -> Markup:
    return tag(
        "section",
        tag("h2", "Hosts", id="hosts", tabindex="-1"),
        tag(
            "div",
            tag(
                "label",
                tag("span", "Filter"),
                tag(
                    "input",
                    type="search",
                    id="search",
                    placeholder="host, device, driver, guest, code …",
                    autocomplete="off",
                    spellcheck="false",
                ),
            ),
            tag("button", "Open all", type="button", id="open-all"),
            tag("button", "Close all", type="button", id="close-all"),
            tag("output", count(len(hosts), "host"), id="matches", for_="search"),
            class_="controls",
            role="search",
        ),
        tag(
            "div",
            tag(
                "table",
                tag("caption", "All hosts; the headings sort", class_="unseen"),
                tag(
                    "thead",
                    tag(
                        "tr",
                        [
                            tag(
                                "th",
                                tag("button", name, type="button"),
                                scope="col",
                                data_sort=kind,
                                aria_sort="ascending" if name == "Host" else "none",
                                class_=None if kind == "text" or name == "Verdict" else "number",
                            )
                            for name, kind in _COLUMNS
                        ],
                        tag("th", "Groups by use", scope="col"),
                    ),
                ),
                tag("tbody", [_host_row(host, number) for number, host in enumerate(hosts)]),
                id="overview",
            ),
            class_="scroll",
            tabindex="0",
            role="region",
            aria_labelledby="hosts",
        ),
        tag("p", "No host matches.", id="nothing", hidden=True),
        aria_labelledby="hosts",
    )


def _host_row(host: Mapping[str, Any], number: int) -> Markup:
    iommu = host["iommu"]
    groups = [group for group in host["groups"] if group["number"] is not None]
    states = [group["state"] for group in groups]
    severities = [one["severity"] for one in host["findings"]]
    verdict = host["verdict"]
    known = iommu is not None
    return tag(
        "tr",
        tag("th", tag("a", tag("bdi", host["name"]), href=f"#host-{number}"), scope="row"),
        tag(
            "td",
            tag("span", VERDICT_WORDS[verdict][0], class_=f"badge {verdict}"),
            data_value=VERDICTS.index(verdict),
        ),
        tag("td", _iommu_words(host)),
        tag("td", iommu["kernel"] if known else None, class_="mono"),
        _number(len(groups), known),
        _number(states.count("in_use"), known),
        _number(states.count("bound"), known),
        _number(states.count("free"), known),
        _number(severities.count(ERROR), known, "error"),
        _number(len(severities) - severities.count(ERROR), known, "warning"),
        tag("td", _group_bar(states)),
        id=f"row-{number}",
        data_host=number,
        data_verdict=verdict,
    )


def _iommu_words(host: Mapping[str, Any]) -> str:
    iommu = host["iommu"]
    if iommu is None:
        return ""
    state = IOMMU_STATES.get(iommu["state"], iommu["state"] or "not known")
    return f"{iommu['platform_name']}, {state}" if iommu["platform_name"] else str(state)


def _number(value: int, known: bool, mark: str | None = None) -> Markup:
    text = value if known else "–"
    shown: Any = tag("span", text, class_=f"count {mark}") if known and value and mark else text
    return tag("td", shown, class_="number" if value else "number none", data_value=value if known else -1)


def _group_bar(states: Sequence[str]) -> Markup | None:
    if not states:
        return None
    return stacked_bar(
        [(state, words[0], states.count(state)) for state, words in GROUP_STATES.items()], None, "groups"
    )


def _footer(report: Mapping[str, Any]) -> Iterable[Markup]:
    return [
        tag(
            "p",
            "Made by the role kvm.passthrough.vfio_audit, which changes nothing on a host. The same as JSON: "
            f"{report['schema']}, version {report['version']}.",
        )
    ]
