# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``docs/troubleshooting.md``: every code that a module can return, with its cause and what to do.

Which codes there are, how severe they are and whether they can be forced is read from the code (:mod:`.codes`). What
they mean is in ``docs/codes``, one file per section of the page. The two have to agree: a section explains what the
files named under its ``from`` give, all of it and nothing else. A code that is given elsewhere as well, and means the
same there, is explained once; the sections that have it by ``also`` leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .codes import BLOCKER, GUARD, PROBLEM, Given, all_codes, force_of, severities

PAGE = "docs/troubleshooting.md"
SECTIONS = (
    "iommu",
    "guards",
    "selectors",
    "binding",
    "vfs",
    "parameters",
    "selinux",
    "hostdevs",
    "networks",
    "definitions",
    "audit",
    "everywhere",
)
"""The files in ``docs/codes``, in the order of the page."""

_KEYS = {"title", "kind", "from", "also", "before", "after", "codes"}

_BEGIN = """\
<!--
Copyright: (c) 2026, kvm.passthrough contributors
SPDX-License-Identifier: GPL-3.0-or-later

Written by "make docs-generated" from the code and from docs/codes/*.yml. Change those.
-->

# When something is refused or fails

Every error of a module has a `code`, a message in `msg` and, where something can be done, the remedy in it. When
several things are wrong, `problems` has all of them, each with `code`, `message` and `remedy`. A module that fails
while it changes something undoes what it has done; `failed_action`, `undone` and `not_undone` tell about that.

Look for your code here: every code that a module can return has its line. It tells the background that the message has
no room for, while only the message knows which device, file or value it is about. A line can be linked to by its code,
as [`troubleshooting.md#boot_disk`](#boot_disk). A code that means different things in different modules has several
lines.
"""


@dataclass(frozen=True)
class Entry:
    """What is said about one code, or about some that are alike."""

    codes: tuple[str, ...]
    cause: str
    remedy: str


@dataclass(frozen=True)
class Section:
    """A part of the page: the codes of some files."""

    name: str
    title: str
    kind: str
    files: tuple[str, ...]
    """The files and folders below ``plugins`` whose codes it explains."""
    also: tuple[str, ...]
    """The sections that explain what its files have in common with others."""
    before: str
    after: str
    entries: tuple[Entry, ...]

    @property
    def codes(self) -> list[str]:
        """Every code that it explains."""
        return [code for entry in self.entries for code in entry.codes]


class Mismatch(Exception):
    """Code and explanations do not agree; the message says in what, one line each."""


def read_sections(root: Path) -> list[Section]:
    """What is in ``docs/codes``.

    :raises Mismatch: when a file is missing, is superfluous, or has something that is not understood
    """
    folder = root / "docs/codes"
    there = {path.stem for path in folder.glob("*.yml")}
    if there != set(SECTIONS):
        raise Mismatch(f"{folder}: the files and SECTIONS differ in {', '.join(sorted(there ^ set(SECTIONS)))}")
    return [_section(name, yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8"))) for name in SECTIONS]


def _section(name: str, data: dict[str, Any]) -> Section:
    strange = sorted(set(data) - _KEYS)
    if strange:
        raise Mismatch(f"docs/codes/{name}.yml has {', '.join(strange)}, which nobody reads")
    entries = []
    for codes, entry in data["codes"].items():
        if not isinstance(entry, dict) or set(entry) != {"cause", "remedy"} or not all(map(_is_prose, entry.values())):
            raise Mismatch(f"docs/codes/{name}.yml: {codes} has to have a cause and a remedy, and nothing else")
        entries.append(Entry(tuple(codes.split(", ")), _line(entry["cause"]), _line(entry["remedy"])))
    return Section(
        name,
        data["title"],
        data.get("kind", PROBLEM),
        tuple(data["from"]),
        tuple(data.get("also", ())),
        data.get("before", ""),
        data.get("after", ""),
        tuple(entries),
    )


def _is_prose(value: object) -> bool:
    return isinstance(value, str) and value.strip().endswith((".", "`."))


def _line(text: str) -> str:
    return " ".join(text.split())


def mismatches(sections: Sequence[Section], codes: Iterable[Given]) -> Iterator[str]:
    """Everything in which the explanations and the code do not agree."""
    given: dict[str, dict[str, Given]] = {section.name: {} for section in sections}
    by_name = {section.name: section for section in sections}
    for one in codes:
        section = _section_of(one, sections)
        if section is None:
            yield f"{one.path}:{one.line}: no file in docs/codes is about the {one.kind} {one.code} of this file"
        else:
            given[section.name].setdefault(one.code, one)
    for section in sections:
        explained = section.codes
        for code in sorted({code for code in explained if explained.count(code) > 1}):
            yield f"docs/codes/{section.name}.yml explains {code} twice"
        for code in explained:
            if code not in given[section.name]:
                places = ", ".join(section.files)
                yield f"docs/codes/{section.name}.yml explains {code}, which nothing in {places} gives"
        elsewhere = {code for name in section.also for code in by_name[name].codes}
        for code, one in given[section.name].items():
            if code not in explained and code not in elsewhere:
                yield (
                    f"{one.path}:{one.line}: {code} is explained nowhere; say in docs/codes/{section.name}.yml what "
                    "its cause is, and what to do"
                )


def _section_of(one: Given, sections: Sequence[Section]) -> Section | None:
    """The section about a file: the one that names it, or else the innermost folder."""
    best, length = None, 0
    for section in sections:
        for name in section.files:
            if section.kind == one.kind and len(name) > length and f"{one.path}/".startswith(f"{name}/"):
                best, length = section, len(name)
    return best


def page(root: Path) -> str:
    """The page, for the collection in this folder.

    :raises Mismatch: when code and explanations do not agree
    """
    sections, codes = read_sections(root), all_codes(root)
    wrong = list(mismatches(sections, codes))
    if wrong:
        raise Mismatch("\n".join(wrong))
    weights = severities(codes)
    seen: set[str] = set()
    parts = [_BEGIN]
    for section in sections:
        parts.append(f"\n## {section.title}\n")
        if section.before:
            parts.append(f"\n{section.before.strip()}\n")
        heads = {BLOCKER: ("severity",), GUARD: ("force",), PROBLEM: ()}[section.kind]
        columns = ("code", *heads, "what it means", "what to do")
        parts.append(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n")
        for entry in section.entries:
            names = ", ".join(_anchored(code, section, seen) for code in entry.codes)
            facts = [weights[code] if section.kind == BLOCKER else force_of(code) for code in entry.codes if heads]
            cells = [names, *dict.fromkeys(facts), entry.cause, entry.remedy]
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n")
        if section.after:
            parts.append(f"\n{section.after.strip()}\n")
    return "".join(parts)


def _anchored(code: str, section: Section, seen: set[str]) -> str:
    """A code with its address on the page; where it was explained before, the section's name comes before it."""
    anchor = f"{section.name}-{code}" if code in seen else code
    seen.add(code)
    return f'<a id="{anchor}"></a>`{code}`'
