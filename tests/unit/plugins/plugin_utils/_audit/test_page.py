# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page says, and what it cannot be made to say. How it behaves in a browser is in tests/browser."""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.page import ASSETS, audit_page
from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.report import fleet_report
from ansible_collections.kvm.passthrough.tests.unit.support import fleet
from ansible_collections.kvm.passthrough.tests.unit.support.html import Element, parse

from .conftest import TIME

Kinds = dict[str, dict[str, Any]]


def page(results: dict[str, Any]) -> Element:
    text = audit_page(fleet_report(results, TIME))
    assert text.startswith("<!DOCTYPE html>\n<html")
    [root] = parse(text)
    return root


def section(root: Element, host: str) -> Element:
    """The details of a host."""
    [found] = [one for one in root.all("details", "host") if next(one.all("h3")).text == host]
    return found


def texts(element: Element, name: str | None = None, class_: str | None = None) -> list[str]:
    return [one.text for one in element.all(name, class_)]


def test_every_host_has_a_row_and_a_section_and_those_that_failed_their_reason(kinds: Kinds) -> None:
    root = page(kinds)
    rows = [one for one in root.all("tr") if "data-host" in one.attributes]
    assert sorted(next(row.all("th")).text for row in rows) == sorted(kinds)
    for row in rows:
        link = next(row.all("a")).attributes["href"] or ""
        [target] = [one for one in root.all("details", "host") if f"#{one.attributes['id']}" == link]
        assert next(target.all("h3")).text == next(row.all("th")).text
    assert "No route to host" in section(root, "unreachable").text
    assert "/usr/bin/python3.13: not found" in section(root, "no-python").text
    assert "did not get to this host" in section(root, "never-asked").text
    assert texts(root, "button", "tile") == ["2Blocked", "3Needs attention", "3Not known", "3Ready"]


def test_ids_are_unique_and_what_refers_to_them_finds_them(kinds: Kinds) -> None:
    root = page(kinds)
    ids = [one.attributes["id"] for one in root.all() if "id" in one.attributes]
    assert len(ids) == len(set(ids))
    for element in root.all():
        for name in ("href", "aria-labelledby", "for"):
            value = element.attributes.get(name)
            if value is not None and value != "data:,":
                assert value.lstrip("#") in ids


def test_the_picture_of_a_server(kinds: Kinds) -> None:
    root = page({"server": kinds["server"]})
    groups = {texts(group, "b")[0]: group for group in root.all("li", "group")}
    assert next(iter(groups)) == "Group 23"
    assert groups["Group 23"].classes == ["group", "assigned", "conflict"]
    assert texts(groups["Group 23"], "li", "owner") == [
        "web01defined",
        "web02defined",
    ]
    assert texts(groups["Group 21"], "li", "guard") == ["boot_disk"]
    assert "The host uses the disk nvme0n1" in next(groups["Group 21"].all("details", "why")).text
    assert "VF 0 of 0000:01:00.0" in groups["Group 15"].text
    assert "vf-pool" in groups["Group 15"].text
    assert "4 devices that can only go to one guest together" in groups["Group 20"].text
    assert "No such device on this host" in groups["In no group"].text
    assert texts(root, "h4") == [
        "Conflicts",
        "Drift",
        "Definitions that do not hold",
        "IOMMU",
        "IOMMU groups",
        "Who has what",
    ]
    table = next(root.all("table", "owners"))
    assert "0000:05:00.0Intel Corporation 82574L Gigabit Network Connectione1000edomain web02" in table.text
    assert texts(table, "span", "severity") == ["conflict", "conflict"]


def test_the_picture_of_a_desktop(kinds: Kinds) -> None:
    root = page({"gaming": kinds["gaming"]})
    group = next(one for one in root.all("li", "group") if "in_use" in one.classes)
    assert texts(group, "span", "driver") == ["pcieport", "vfio-pci", "vfio-pci", "vfio-pci"]
    assert texts(group, "li", "owner") == ["win11runs with it"] * 3
    assert texts(root, "summary")[-2] == "3 groups with nothing but parts of the machine itself"


def test_guests_that_are_not_as_the_inventory_asks_for_them(guests: dict[str, Any]) -> None:
    root = page({"hv1": guests})
    assert texts(root, "h4")[0] == "Drift"
    assert texts(root, "span", "where") == [f"domain {name}" for name in ("db02", "web09")] + [
        "network vf-pool",
        "domain web02",
        "domain db01",
    ]
    assert "remove 0000:06:00.0 from the domain web02" in next(root.all("ul", "findings")).text
    assert "There is no domain 'web09'" in root.text


def test_what_stands_against_the_whole_host_is_not_said_of_each_device(kinds: Kinds) -> None:
    off = section(page(kinds), "switched-off")
    assert texts(off, "li", "guard") == ["console_display", "usb_in_use", "boot_disk", "management_network"]
    assert "no_iommu" not in off.text
    assert "set intel_iommu=on" in off.text


def test_a_single_host_is_shown_without_what_only_a_fleet_needs(kinds: Kinds) -> None:
    alone, three = page({"gaming": kinds["gaming"]}), page(dict.fromkeys("abc", kinds["gaming"]))
    assert [*alone.all("input"), *alone.all("button")] == []
    assert ["open" in one.attributes for one in alone.all("details", "host")] == [True]
    assert ["open" in one.attributes for one in three.all("details", "host")] == [True] * 3
    assert not any("open" in one.attributes for one in page(kinds).all("details", "host"))
    assert page({}).text.count("0 hosts") > 1


# -- what hosts cannot do to it -------------------------------------------------------------------------------


def test_whatever_a_host_says_is_text(hostile: dict[str, Any], kinds: Kinds) -> None:
    name = f"host{fleet.HOSTILE}"
    text = audit_page(fleet_report({name: hostile, "b": kinds["gaming"]}, TIME))
    [root] = parse(text)
    assert "{{" not in text.replace(next(root.all("script")).text, "").replace(next(root.all("style")).text, "")
    scripts = list(root.all("script"))
    assert [script.text for script in scripts] == [(ASSETS / "page.js").read_text(encoding="utf-8")]
    assert texts(root, "style") == [(ASSETS / "page.css").read_text(encoding="utf-8")]
    allowed = {
        "html",
        "head",
        "meta",
        "title",
        "link",
        "style",
        "body",
        "script",
        "header",
        "main",
        "footer",
        "section",
    }
    allowed |= {"a", "svg", "symbol", "path", "use", "rect", "div", "p", "h1", "h2", "h3", "h4", "bdi", "time", "b"}
    allowed |= {
        "ul",
        "li",
        "button",
        "span",
        "label",
        "input",
        "output",
        "details",
        "summary",
        "code",
        "dl",
        "dt",
        "dd",
    }
    allowed |= {"table", "caption", "thead", "tbody", "tr", "th", "td", "br"}
    for element in root.all():
        assert element.name in allowed
        assert not [one for one in element.attributes if one.startswith("on") or one in ("style", "src", "srcset")]
        assert re.fullmatch(r"#[a-z0-9-]+|data:,", element.attributes.get("href") or "#a")
        assert not re.search("[<>&{]", element.attributes.get("class") or "")
    assert next(section(root, name).all("h3")).text == name
    assert root.text.count("<script>alert('x')</script>") > 50


def test_the_policy_allows_the_own_script_and_style_and_nothing_else(kinds: Kinds) -> None:
    root = page({"gaming": kinds["gaming"]})
    [policy] = [one.attributes["content"] for one in root.all("meta") if "http-equiv" in one.attributes]
    hashes = {
        name: base64.b64encode(hashlib.sha256(next(root.all(name)).text.encode()).digest()).decode()
        for name in ("style", "script")
    }
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


@pytest.mark.parametrize("name", ["page.css", "page.js"])
def test_what_is_put_into_the_page_as_it_is_loads_nothing_and_ends_nothing(name: str) -> None:
    text = (ASSETS / name).read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|https?:|//[a-z]+\.|fetch|XMLHttp|</|<!--|\{\{|\{%|\{#", text)


@pytest.mark.parametrize("report", [{}, {"schema": "kvm.passthrough.audit", "version": 2}, {"schema": 1, "version": 1}])
def test_a_report_of_another_version_is_refused(report: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"no report of kvm\.passthrough\.audit version 1"):
        audit_page(report)


def test_two_hundred_hosts_are_a_page_that_can_be_sent(kinds: Kinds) -> None:
    names = list(kinds)
    results = {f"kvm{number}": kinds[names[number % len(names)]] for number in range(200)}
    assert len(audit_page(fleet_report(results, TIME)).encode()) < 3_000_000
