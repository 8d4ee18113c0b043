# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to be seen of several hosts at once: what is wrong how often, and a table of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .finding import ERROR
from .html import Content, Markup, tag
from .icons import stacked_bar
from .report import VERDICTS
from .tables import scroll, table
from .words import FINDING_KINDS, GROUP_STATES, IOMMU_STATES, SEVERITIES, STATUSES, count
from .words import VERDICTS as VERDICT_WORDS

SHOWN_CODES = 6
"""So many of the codes are in sight; more would push the hosts out of it."""

Code = Mapping[str, Any]
Host = Mapping[str, Any]


# -- what is wrong how often ---------------------------------------------------------------------------------


def codes_section(codes: Sequence[Code], hosts: int) -> Markup | None:
    """The codes of everything that is wrong, most frequent first; None when nothing is."""
    if not codes:
        return None
    shown, more = codes[:SHOWN_CODES], codes[SHOWN_CODES:]
    return tag(
        "section",
        tag("h2", "What is wrong, by frequency", id="codes"),
        _codes_table(shown, hosts),
        tag("details", tag("summary", f"{len(more)} more"), _codes_table(more, hosts), class_="fold") if more else None,
        aria_labelledby="codes",
    )


def _codes_table(codes: Sequence[Code], hosts: int) -> Markup:
    columns = ("Code", "Hosts", "Share", "For example, and what to do")
    return table(columns, [_code_row(one, hosts) for one in codes], "What is wrong, by frequency", "codes")


def _code_row(one: Code, hosts: int) -> Markup:
    number = len(one["hosts"])
    severity = one["severity"]
    kind = FINDING_KINDS[one["kind"]].lower()
    share = [(severity, one["code"], number), ("rest", "other hosts", hosts - number)]
    return tag(
        "tr",
        tag(
            "th",
            tag("button", one["code"], type="button", class_="code", data_search=one["code"], title="Show these hosts"),
            tag("span", f"{SEVERITIES[severity]} · {kind}", class_=f"severity {severity}"),
            scope="row",
        ),
        tag("td", number, class_="number"),
        tag("td", stacked_bar(share, None, "share")),
        tag("td", tag("p", one["message"]), tag("p", one["remedy"], class_="remedy") if one["remedy"] else None),
    )


# -- the table of hosts --------------------------------------------------------------------------------------

_COLUMNS = (
    ("Host", "text", None),
    ("Verdict", "order", None),
    ("IOMMU", "text", None),
    ("Kernel", "text", None),
    ("Groups", "number", "IOMMU groups"),
    ("In use", "number", "IOMMU groups of which a running guest has a device"),
    ("Bound", "number", "IOMMU groups that are bound to VFIO and that no guest has"),
    ("Free", "number", "IOMMU groups that could be given to a guest"),
    ("Errors", "number", None),
    ("Warnings", "number", None),
)


def hosts_section(hosts: Sequence[Host]) -> Markup:
    """All hosts in a table that can be filtered and sorted; every row leads to the details."""
    return tag(
        "section",
        tag("h2", "Hosts", id="hosts"),
        _controls(len(hosts)),
        scroll(
            tag(
                "table",
                tag("caption", "All hosts; the headings sort", class_="unseen"),
                tag("thead", tag("tr", [_heading(*column) for column in _COLUMNS], tag("th", "By use", scope="col"))),
                tag("tbody", [_host_row(host, number) for number, host in enumerate(hosts)]),
                id="overview",
            ),
            aria_labelledby="hosts",
        ),
        tag("p", "No host matches.", id="nothing", hidden=True),
        aria_labelledby="hosts",
    )


def _controls(hosts: int) -> Markup:
    box = tag(
        "input",
        type="search",
        id="search",
        placeholder="host, device, driver, guest, code …",
        autocomplete="off",
        spellcheck="false",
    )
    return tag(
        "div",
        tag("label", tag("span", "Filter"), box),
        tag("button", "Open all", type="button", id="open-all"),
        tag("button", "Close all", type="button", id="close-all"),
        tag("output", count(hosts, "host"), id="matches", for_="search"),
        class_="controls",
        role="search",
    )


def _heading(name: str, sort: str, meaning: str | None) -> Markup:
    return tag(
        "th",
        tag("button", name, type="button", title=meaning),
        scope="col",
        data_sort=sort,
        aria_sort="ascending" if name == "Host" else "none",
        class_="number" if sort == "number" else None,
    )


def _host_row(host: Host, number: int) -> Markup:
    iommu = host["iommu"]
    states = [group["state"] for group in host["groups"] if group["number"] is not None]
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
        tag("td", iommu_words(host), class_="iommu"),
        tag("td", iommu["kernel"] if known else None, class_="mono"),
        _number(len(states), known),
        _number(states.count("in_use"), known),
        _number(states.count("bound"), known),
        _number(states.count("free"), known),
        _number(severities.count(ERROR), known, "error"),
        _number(len(severities) - severities.count(ERROR), known, "warning"),
        tag("td", _group_bar(states)),
        data_host=number,
        data_verdict=verdict,
    )


def iommu_words(host: Host) -> str:
    """The state of the IOMMU in a few words, or why it is not known."""
    iommu = host["iommu"]
    if iommu is None:
        return STATUSES[host["status"]]
    state = IOMMU_STATES.get(iommu["state"], iommu["state"] or "not known")
    return f"{iommu['platform_name'] or 'IOMMU'} {state}"


def _number(value: int, known: bool, mark: str | None = None) -> Markup:
    text = str(value) if known else "–"
    shown: Content = tag("span", text, class_=f"count {mark}") if known and value and mark else text
    return tag("td", shown, class_="number" if known and value else "number none", data_value=value if known else -1)


def _group_bar(states: Sequence[str]) -> Markup | None:
    if not states:
        return None
    parts = [(state, words[0], states.count(state)) for state, words in GROUP_STATES.items()]
    return stacked_bar(parts, None, "groups")
