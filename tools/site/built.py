# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of the site as it was built: every link within it leads to something, and nothing is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "srcset", "video": "src", "object": "data"}
_LOADING = frozenset({"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch"})


class Page(HTMLParser):
    """What one page has: anchors, links, and what a browser loads for it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each element."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and "href" in values and _LOADING & set(values.get("rel", "").split()):
            self.loaded.append(values["href"])
        elif _LOADED.get(tag) in values:
            self.loaded.append(values[_LOADED[tag]])


class Site:
    """A folder of pages."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.pages = {path: Page(path) for path in sorted(folder.rglob("*.html"))}

    def problems(self) -> Iterator[str]:
        """What is wrong, each with its page."""
        for path, page in self.pages.items():
            for target in page.loaded:
                if not target.startswith("data:") and (problem := self._problem(path, target, loaded=True)):
                    yield f"{path.relative_to(self._folder)}: {target}: {problem}"
            for target in page.links:
                if problem := self._problem(path, target, loaded=False):
                    yield f"{path.relative_to(self._folder)}: {target}: {problem}"

    def external_links(self) -> dict[str, set[str]]:
        """Where the site leads to: addresses, each with the pages that have them."""
        found: dict[str, set[str]] = {}
        for path, page in self.pages.items():
            for target in page.links:
                if urlsplit(target).scheme:
                    found.setdefault(target, set()).add(str(path.relative_to(self._folder)))
        return found

    def _problem(self, path: Path, target: str, loaded: bool) -> str | None:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return "The page would load it from another site." if loaded else None
        aim = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not aim.is_file():
            return "There is no such file."
        anchor = unquote(parts.fragment)
        if anchor and aim in self.pages and anchor not in self.pages[aim].anchors:
            return "There is no such anchor."
        return None
