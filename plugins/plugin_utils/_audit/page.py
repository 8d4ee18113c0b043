# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page about a fleet: one HTML document that needs nothing else, neither a network nor a script to be read."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .host_section import host_section
from .html import Markup, tag
from .icons import sprite, stacked_bar
from .overview import codes_section, hosts_section
from .report import SCHEMA, VERDICTS, VERSION
from .words import VERDICTS as VERDICT_WORDS
from .words import count

ASSETS = Path(__file__).parent / "assets"

OPEN_AT_MOST = 3
"""So many hosts are shown with everything at once; of more, a reader opens what they want to see."""

Report = Mapping[str, Any]


def audit_page(report: Report) -> str:
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
            tag("a", "Skip to the hosts", class_="skip", href="#details"),
            sprite(),
            _header(report),
            tag("main", *_main(report)),
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


def _header(report: Report) -> Markup:
    hosts = report["hosts"]
    return tag(
        "header",
        tag(
            "div",
            tag("p", "kvm.passthrough audit", class_="overline"),
            tag("h1", "PCI passthrough: ", tag("bdi", _fleet_name(hosts))),
            tag("p", "As of ", tag("time", _readable(report["generated"]), datetime=report["generated"])),
            class_="title",
        ),
        _verdict(hosts[0]) if len(hosts) == 1 else _tiles(report["summary"]["verdicts"]),
    )


def _verdict(host: Mapping[str, Any]) -> Markup:
    """What is to be said of a single host."""
    word, meaning = VERDICT_WORDS[host["verdict"]]
    return tag("p", tag("span", word, class_=f"badge {host['verdict']}"), tag("br"), meaning, class_="verdict")


def _tiles(verdicts: Mapping[str, int]) -> list[Markup]:
    """How many hosts there are of each verdict, as buttons that show only these."""
    parts = [(verdict, VERDICT_WORDS[verdict][0], verdicts[verdict]) for verdict in VERDICTS]
    buttons = [
        tag(
            "button",
            tag("span", number, class_="figure"),
            tag("span", word, class_="label"),
            type="button",
            class_=f"tile {verdict}",
            data_verdict=verdict,
            aria_pressed="false",
            title=VERDICT_WORDS[verdict][1],
        )
        for verdict, word, number in parts
    ]
    return [
        tag(
            "ul",
            [tag("li", button) for button in buttons],
            class_="tiles",
            aria_label="Hosts by verdict; press one to see only these",
        ),
        stacked_bar(parts, "Hosts by verdict", "fleet"),
    ]


def _readable(generated: str) -> str:
    return generated.replace("T", " ").replace("Z", " UTC")


# -- the rest -----------------------------------------------------------------------------------------------


def _main(report: Report) -> list[Markup | None]:
    hosts = report["hosts"]
    sections = [host_section(host, number, len(hosts) <= OPEN_AT_MOST) for number, host in enumerate(hosts)]
    details = tag("section", tag("h2", "Details", id="details", tabindex="-1"), sections, aria_labelledby="details")
    if len(hosts) == 1:
        return [details]
    return [codes_section(report["summary"]["codes"], len(hosts)), hosts_section(hosts), details]


def _footer(report: Report) -> Markup:
    return tag(
        "p",
        "Made by the role kvm.passthrough.vfio_audit, which changes nothing on a host. The same as JSON: "
        f"{report['schema']}, version {report['version']}.",
    )
