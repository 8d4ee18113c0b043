# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit's page as a person meets it: one host and two hundred, light and dark, on paper, by mouse and keyboard."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.page import audit_page
from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.report import fleet_report
from ansible_collections.kvm.passthrough.tests.unit.support import fleet

from .chromium import Chromium, Page, find_chromium

TIME = "2026-11-26T03:30:00Z"
SIZE = 200
RENDER_LIMIT = 5.0
"""Seconds from the start of the load to a page that is laid out, on a machine with other things to do."""

VISIBLE = "[...document.querySelectorAll('#overview tbody tr')].filter(row => !row.hidden)"
NAMES = f"{VISIBLE}.map(row => row.cells[0].textContent)"
SCHEMES = ("light", "dark")
OPEN = "document.querySelectorAll('details').forEach(one => { one.open ||= !one.matches('.host ~ .host') })"
"""Opens everything, but of the hosts the first one only."""

# WCAG 2, contrast (minimum): 4.5 to 1, for large text 3 to 1. Colours come as rgb(…) or color(srgb …).
CONTRAST = """(() => {
  const parse = text => {
    const numbers = text.match(/[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = text.startsWith('color(') ? 1 : 255;
    return {rgb: numbers.slice(0, 3).map(one => one / scale), alpha: numbers[3] ?? 1};
  };
  const over = (top, bottom) => top.rgb.map((one, i) => one * top.alpha + bottom[i] * (1 - top.alpha));
  const background = element => {
    const layers = [];
    for (let one = element; one; one = one.parentElement) layers.unshift(parse(getComputedStyle(one).backgroundColor));
    return layers.reduce((below, layer) => over(layer, below), [1, 1, 1]);
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(one => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Map();
  let looked = 0;
  for (const element of document.querySelectorAll('body *')) {
    const text = [...element.childNodes].filter(one => one.nodeType === 3).map(one => one.data.trim()).join('');
    if (!text || element.closest('script, style, .unseen, .skip') || !element.checkVisibility()) continue;
    looked++;
    const style = getComputedStyle(element), below = background(element);
    const levels = [luminance(over(parse(style.color), below)), luminance(below)].sort((a, b) => b - a);
    const ratio = (levels[0] + 0.05) / (levels[1] + 0.05);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.set(`${element.className} "${text.slice(0, 30)}" ${ratio.toFixed(2)}`, 0);
  }
  return {looked, found: [...found.keys()]};
})()"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    program = find_chromium()
    assert program is not None, "Chromium is not installed"
    with Chromium(tmp_path_factory.mktemp("chromium"), program) as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    kinds = fleet.kinds(folder / "kinds")
    hostile = fleet.hostile(folder / "hostile")
    fleets = {
        "one": {"gaming1.example.com": kinds["gaming"]},
        "server": {"server1.example.com": kinds["server"]},
        "guests": {"hv1.example.com": fleet.guests(folder / "guests")},
        "many": fleet.fleet(folder / "fleet", SIZE),
        "hostile": {f"kvm{fleet.HOSTILE}": hostile, "kvm2": kinds["gaming"]},
    }
    paths = {}
    for name, results in fleets.items():
        paths[name] = folder / f"{name}.html"
        paths[name].write_text(audit_page(fleet_report(results, TIME)), encoding="utf-8")
    return paths


@pytest.fixture
def show(chromium: Chromium, pages: dict[str, Path]) -> Iterator[Callable[..., Page]]:
    """Opens pages, and at the end makes sure that nothing went wrong on any of them, and that nothing was loaded."""
    opened: list[tuple[str, Page]] = []

    def show_page(name: str, scheme: str = "light", **options: Any) -> Page:
        page = chromium.open(pages[name], {"prefers-color-scheme": scheme}, **options)
        opened.append((name, page))
        return page

    yield show_page
    for name, page in opened:
        page.command("Page.getFrameTree")  # what happened until now is told before this is answered
        requests = [one["request"]["url"] for one in page.events("Network.requestWillBeSent")]
        assert requests == [pages[name].resolve().as_uri()]
        for event in (
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
            "Log.entryAdded",
            "Page.javascriptDialogOpening",
            "Page.windowOpen",
        ):
            assert page.events(event) == []
        page.close()


def keep(page: Page, name: str) -> None:
    """Keep a picture for a person, where the environment says so (``AUDIT_PICTURES=folder``)."""
    folder = os.environ.get("AUDIT_PICTURES")
    if folder:
        page.screenshot(Path(folder) / f"{name}.png")


# -- how it looks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["one", "server", "guests", "many"])
def test_it_can_be_read_in_light_and_in_dark(show: Callable[..., Page], name: str, scheme: str) -> None:
    page = show(name, scheme)
    page.evaluate(OPEN)
    keep(page, f"{name}-{scheme}")
    red, green, blue = map(int, re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (red + green + blue > 600) is (scheme == "light")
    answer = page.evaluate(CONTRAST)
    assert answer["looked"] > 50
    assert answer["found"] == []


@pytest.mark.parametrize("width", [360, 800, 1300])
@pytest.mark.parametrize("name", ["server", "guests", "many"])
def test_nothing_sticks_out_of_any_window(show: Callable[..., Page], name: str, width: int) -> None:
    page = show(name, width=width)
    page.evaluate(OPEN)
    keep(page, f"{name}-{width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_on_paper_it_is_light_and_without_controls(show: Callable[..., Page]) -> None:
    for name, pages_at_least in (("server", 2), ("many", 8)):
        page = show(name, "dark")
        pdf = page.pdf()
        assert pdf.startswith(b"%PDF-")
        assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= pages_at_least
        if os.environ.get("AUDIT_PICTURES"):
            Path(os.environ["AUDIT_PICTURES"], f"{name}.pdf").write_bytes(pdf)
        page.set_media("print", {"prefers-color-scheme": "dark"})
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert page.evaluate("[...document.querySelectorAll('.controls')].some(one => one.checkVisibility())") is False
        assert page.evaluate(CONTRAST)["found"] == []


def test_two_hundred_hosts_are_there_at_once(show: Callable[..., Page]) -> None:
    page = show("many")
    times = page.evaluate(
        "new Promise(done => requestAnimationFrame(() => setTimeout(() => {"
        "const [one] = performance.getEntriesByType('navigation');"
        "done([one.domContentLoadedEventEnd, one.loadEventEnd, performance.now()]) })))"
    )
    print(f"\n{SIZE} hosts: parsed {times[0]:.0f} ms, loaded {times[1]:.0f} ms, drawn {times[2]:.0f} ms")
    assert times[1] < RENDER_LIMIT * 1000
    assert page.evaluate(f"{VISIBLE}.length") == SIZE
    assert page.evaluate("document.querySelectorAll('details.host').length") == SIZE
    assert page.evaluate("document.querySelectorAll('details.host[open]').length") == 0


def test_without_scripts_everything_is_there(show: Callable[..., Page]) -> None:
    page = show("server", scripts=False)
    document = page.command("DOM.getDocument", depth=0)["root"]["nodeId"]
    found = page.command("DOM.querySelectorAll", nodeId=document, selector="details.host[open] li.group")["nodeIds"]
    assert len(found) == 11


# -- what one can do with it --------------------------------------------------------------------------------


def test_the_filter(show: Callable[..., Page]) -> None:
    page = show("many")
    page.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.type("vfs_DRIFTED ")
    names = page.evaluate(NAMES)
    assert len(names) == 19
    assert all(name.startswith("server") for name in names)
    shown = "[...document.querySelectorAll('details.host')].filter(one => one.checkVisibility()).length"
    assert page.evaluate(shown) == 19
    assert page.evaluate("matches.value") == f"19 of {SIZE} hosts"
    page.type("server7.")
    assert page.evaluate(NAMES) == ["server7.example.com"]
    page.type("nobody")
    assert page.evaluate(NAMES) == []
    assert page.evaluate("nothing.checkVisibility()") is True
    page.press("Escape")
    assert page.evaluate(f"{VISIBLE}.length") == SIZE
    assert page.evaluate("nothing.checkVisibility()") is False


def test_the_filter_is_quick(show: Callable[..., Page]) -> None:
    page = show("many")
    milliseconds = page.evaluate(
        "(() => { const start = performance.now(); search.value = 'igb';"
        "search.dispatchEvent(new Event('input')); document.body.offsetHeight; return performance.now() - start })()"
    )
    print(f"\nthe filter's first run over {SIZE} hosts: {milliseconds:.0f} ms")
    assert milliseconds < 1000


def test_tiles_and_codes_filter_too(show: Callable[..., Page]) -> None:
    page = show("many")
    page.click("button.tile.blocked")
    assert page.evaluate(f"[...new Set({VISIBLE}.map(row => row.dataset.verdict))]") == ["blocked"]
    assert page.evaluate("document.querySelector('.tile.blocked').getAttribute('aria-pressed')") == "true"
    page.click("button.tile.ready")
    assert page.evaluate(f"[...new Set({VISIBLE}.map(row => row.dataset.verdict))].sort()") == ["blocked", "ready"]
    page.click("button.tile.ready")
    page.click("button.tile.blocked")
    assert page.evaluate(f"{VISIBLE}.length") == SIZE
    page.click("button.code")
    code = page.evaluate("document.querySelector('button.code').textContent")
    assert page.evaluate("search.value") == code
    assert 0 < page.evaluate(f"{VISIBLE}.length") < SIZE


def test_the_headings_sort(show: Callable[..., Page]) -> None:
    page = show("many")
    names = page.evaluate(NAMES)
    assert names[0] == "amd1.example.com"
    assert names.index("amd2.example.com") < names.index("amd10.example.com")
    page.click("#overview thead button", 0)
    assert page.evaluate(NAMES) == names[::-1]
    assert page.evaluate("document.querySelector('#overview th').getAttribute('aria-sort')") == "descending"
    page.click("#overview thead button", 8)
    errors = page.evaluate(f"{VISIBLE}.map(row => Number(row.cells[8].dataset.value))")
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == 4
    page.click("#overview thead button", 1)
    assert page.evaluate(f"{VISIBLE}[0].dataset.verdict") == "blocked"
    # The details are in the same order.
    order = "[...document.querySelectorAll('details.host')].map(one => one.dataset.host)"
    assert page.evaluate(order) == page.evaluate(f"{VISIBLE}.map(row => row.dataset.host)")


def test_a_row_leads_to_its_host(show: Callable[..., Page]) -> None:
    page = show("many")
    for _time in range(2):
        page.click("#overview tbody a", 3)
        page.evaluate("new Promise(done => setTimeout(done, 100))")
        opened = "[...document.querySelectorAll('details.host[open]')]"
        assert page.evaluate(f"{opened}.map(one => one.querySelector('h3').textContent)") == ["amd4.example.com"]
        assert 0 <= page.evaluate(f"{opened}[0].getBoundingClientRect().top") < 300
        page.evaluate("document.querySelector('details.host[open]').open = false")
    page.click("#open-all")
    assert page.evaluate("document.querySelectorAll('details.host[open]').length") == SIZE
    page.click("#close-all")
    assert page.evaluate("document.querySelectorAll('details.host[open]').length") == 0


# -- who else can use it ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["server", "many"])
def test_everything_to_press_has_a_name_for_those_who_hear_it(show: Callable[..., Page], name: str) -> None:
    page = show(name)
    page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "link", "searchbox", "heading", "image", "region", "table", "DisclosureTriangle"):
        assert [text for text in roles.get(role, []) if not text.strip()] == []
    assert len(roles["heading"]) >= {"server": 9, "many": SIZE + 4}[name]
    assert len(roles["DisclosureTriangle"]) >= {"server": 5, "many": SIZE + 1}[name]
    assert page.evaluate("document.querySelectorAll('h1').length") == 1
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(one => Number(one.tagName[1]))")
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


# -- what hosts cannot do to it -------------------------------------------------------------------------------


def test_what_a_host_says_is_never_run(show: Callable[..., Page]) -> None:
    """The fixture fails on every dialog, message, error or request; here is what the page shows instead."""
    page = show("hostile")
    keep(page, "hostile")
    page.click("#open-all")
    assert page.evaluate("document.scripts.length") == 1
    name = page.evaluate("[...document.querySelectorAll('.host h3')].map(one => one.textContent)")
    assert f"kvm{fleet.HOSTILE}" in name
    page.evaluate("search.focus()")
    page.type("<script>alert('x')</script>")
    assert page.evaluate(NAMES) == [f"kvm{fleet.HOSTILE}"]


def test_the_policy_stands_behind_the_escaping(chromium: Chromium, pages: dict[str, Path], tmp_path: Path) -> None:
    """Should a script get into the page one day, the browser would not run it."""
    broken = tmp_path / "broken.html"
    text = pages["one"].read_text(encoding="utf-8")
    evil = "<script>window.ran = true</script><img src='http://192.0.2.1/x.png' onerror='window.ran = true'>"
    broken.write_text(text.replace("<main>", f"<main>{evil}"), encoding="utf-8")
    page = chromium.open(broken)
    assert page.evaluate("window.ran") is None
    assert "Content Security Policy" in str(page.events("Log.entryAdded"))
    page.close()
