# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links and headings of a Markdown file, as GitHub sees them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_CODE = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^(?P=fence)[ \t]*$|<!--.*?-->|(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)",
    re.MULTILINE | re.DOTALL,
)
_LINK = re.compile(r"!?\[(?P<text>[^\[\]]*)\]\((?P<target>[^()\s]+)\)")
_HEADING = re.compile(r"^(#{1,6}) .*$", re.MULTILINE)
_PLACE = re.compile(r'<a id="([^"]+)"></a>')


@dataclass(frozen=True)
class Link:
    """One link or picture: its text, what it leads to, and in which line it stands."""

    text: str
    target: str
    line: int

    @property
    def is_external(self) -> bool:
        """Whether it has a scheme, such as ``https:``."""
        return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", self.target) is not None


def without_code(text: str) -> str:
    """The text with blanks in place of code and comments, so that every other character stays where it is."""
    return _CODE.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


def links(text: str) -> Iterator[Link]:
    """All links and pictures, in order; references (``[text][label]``) are not used here."""
    plain = without_code(text)
    for found in _LINK.finditer(plain):
        start, stop = found.span("text")
        yield Link(text[start:stop], found["target"], plain.count("\n", 0, start) + 1)


def replace_links(text: str, targets: Mapping[str, str]) -> str:
    """The text with other targets in those links that are named here."""
    made, end = [], 0
    for found in _LINK.finditer(without_code(text)):
        start, stop = found.span("target")
        made += [text[end:start], targets.get(text[start:stop], text[start:stop])]
        end = stop
    return "".join([*made, text[end:]])


def sections(text: str) -> Iterator[tuple[str, str]]:
    """The sections of the second level: heading, and what stands below it."""
    starts = [found for found in _HEADING.finditer(without_code(text)) if len(found[1]) == 2]
    for found, end in zip(starts, [*(after.start() for after in starts[1:]), len(text)], strict=True):
        yield text[found.end(1) : found.end()].strip(), text[found.end() : end]


def anchors(text: str) -> set[str]:
    """What can stand behind the # of a link to this file: headings, and names that were given to other places.

    Source of the former: GitHub's rule (lower case, no punctuation, hyphens for blanks, numbers for what is there
    already), which MyST follows.
    """
    found = {place[1] for place in _PLACE.finditer(without_code(text))}
    for heading in _headings(text):
        words = re.sub(r"\[([^\[\]]*)\]\([^()]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        number, free = 0, slug
        while free in found:
            number += 1
            free = f"{slug}-{number}"
        found.add(free)
    return found


def with_places(text: str) -> str:
    """The text with named places as MyST writes them, which knows only those as aims of links."""
    return _PLACE.sub(r"[]{#\1}", text)


def _headings(text: str) -> Iterator[str]:
    for found in _HEADING.finditer(without_code(text)):
        # Where it stands is known from the text without code, and what it says, from the one with it.
        yield text[found.end(1) : found.end()].strip()
