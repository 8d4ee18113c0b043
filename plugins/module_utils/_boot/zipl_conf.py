# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and editing a zipl.conf(5), as zipl's own scanner reads it (s390-tools, zipl/src/scan.c).

Here are the rules of where a value begins and ends; all others (which keyword may stand where) are checked by
``zipl --dry-run``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from .cmdline import CommandLine, Request
from .words import edited, lines_of

DEFAULTS = "defaultboot"
"""The section that says which others are installed."""

_HEADING = re.compile(r"\[([!-~]+?)\][ \t]*")
_MENU = re.compile(r":([A-Za-z0-9]+)[ \t]*")
_ASSIGNMENT = re.compile(r"([a-z]+|[0-9]+)[ \t]*=[ \t]*(.*)", re.DOTALL)
_QUOTED = re.compile(r"""(["'])(.*?)\1[ \t]*""", re.DOTALL)
_ADDRESS = re.compile(r",(0x)?[0-9a-fA-F]+$")


class ZiplSyntaxError(ValueError):
    """zipl cannot read the file either; the text says which line and why."""


@dataclass(frozen=True)
class Value:
    """What stands after an equals sign."""

    text: str
    quote: str
    """The quotation mark around it; empty without one."""
    start: int
    """Where it is written, quotation marks included."""
    end: int


@dataclass
class Section:
    """A section, or (``is_menu``) a menu."""

    name: str
    is_menu: bool
    values: dict[str, Value] = field(default_factory=dict)
    """Keyword or position in a menu -> value."""

    def text(self, keyword: str) -> str:
        """A value; empty when the keyword is not there."""
        return self.values[keyword].text if keyword in self.values else ""

    def file(self, keyword: str) -> str:
        """A value that is a file name, without the load address that may follow it."""
        return _ADDRESS.sub("", self.text(keyword))

    @property
    def positions(self) -> list[str]:
        """The names of the sections in a menu, in the order in which they are written."""
        return [value.text for key, value in self.values.items() if key.isdigit()]


def sections(text: str) -> list[Section]:
    """The sections and menus of the file, in order.

    :raises ZiplSyntaxError: where zipl's scanner fails, too
    """
    found: list[Section] = []
    place = 0
    for number, whole in enumerate(lines_of(text), 1):
        line = whole.rstrip("\n")
        body = line.lstrip(" \t")
        start = place + len(line) - len(body)
        place += len(whole)
        if not body or body.startswith("#"):
            continue
        if body[0] in "[:":
            heading = (_HEADING if body[0] == "[" else _MENU).fullmatch(body)
            if heading is None:
                raise ZiplSyntaxError(f"line {number} is no heading: {line!r}")
            section = Section(heading.group(1), body[0] == ":")
            if any((other.name, other.is_menu) == (section.name, section.is_menu) for other in found):
                raise ZiplSyntaxError(f"line {number}: {section.name} is there twice")
            found.append(section)
            continue
        if not found:
            raise ZiplSyntaxError(f"line {number} stands before the first section: {line!r}")
        key, value = _keyword(body, start, number)
        if key in found[-1].values:
            raise ZiplSyntaxError(f"line {number}: {key} is there twice in {found[-1].name}")
        found[-1].values[key] = value
    return found


def installed(found: list[Section]) -> tuple[list[str] | None, str, str]:
    """What zipl puts into the boot record when it is called without arguments.

    :returns: the names of the sections in it (None: all there are, and all boot loader specification entries), the one
        that is booted by default (empty: the first), and the directory of the boot map
    :raises ZiplSyntaxError: when the file does not say
    """
    named = {(section.name, section.is_menu): section for section in found}
    defaults = named.get((DEFAULTS, False), Section(DEFAULTS, False))
    if "defaultauto" in defaults.values or "target" in defaults.values:
        return None, defaults.text("default"), defaults.text("target")
    if "defaultmenu" in defaults.values:
        menu = named.get((defaults.text("defaultmenu"), True))
        if menu is None or not menu.positions:
            raise ZiplSyntaxError(f"the menu {defaults.text('defaultmenu')!r} is not there, or empty")
        default = menu.text(menu.text("default").strip()) or menu.positions[0]
        return menu.positions, default, menu.text("target")
    section = named.get((defaults.text("default"), False))
    if section is None:
        raise ZiplSyntaxError(f"[{DEFAULTS}] does not say what is booted")
    return [section.name], section.name, section.text("target")


def with_request(text: str, request: Request, names: Collection[str]) -> str:
    """The file with the request met by the ``parameters`` of the sections of these names.

    A value that cannot be written (both kinds of quotation marks in it) is left as it is; the caller compares.
    """
    for section in reversed([section for section in sections(text) if not section.is_menu]):  # places stay as they are
        if section.name not in names:
            continue
        value = section.values.get("parameters")
        if value is not None:
            new = edited(value.text, request)
            if new != value.text:
                text = text[: value.start] + _written(new, value) + text[value.end :]
            continue
        options = str(request.apply(CommandLine()))
        if options:
            image = section.values["image"]
            blank = Value("", '"', 0, 0)
            text = f"{text[: image.end]}\nparameters = {_written(options, blank)}{text[image.end :]}"
    return text


def _keyword(body: str, start: int, number: int) -> tuple[str, Value]:
    match = _ASSIGNMENT.fullmatch(body)
    if match is None:
        if body.rstrip(" \t") == "defaultauto":
            return "defaultauto", Value("", "", start, start + len(body))
        raise ZiplSyntaxError(f"line {number} is no assignment: {body!r}")
    key, text = match.groups()
    start += match.start(2)
    if text[:1] not in ('"', "'"):
        text = text.rstrip(" \t")
        return key, Value(text, "", start, start + len(text))
    quoted = _QUOTED.fullmatch(text)
    if quoted is None or quoted.group(1) in quoted.group(2):
        raise ZiplSyntaxError(f"line {number}: the quotation marks do not enclose the value: {text!r}")
    return key, Value(quoted.group(2), quoted.group(1), start, start + len(quoted.group(2)) + 2)


def _written(text: str, old: Value) -> str:
    """A value with its quotation marks: those it had, where that is possible."""
    if not old.quote and text == text.strip(" \t") and text[:1] not in ("", '"', "'"):
        return text
    quotes = [mark for mark in (old.quote, '"', "'") if mark and mark not in text]
    return f"{quotes[0]}{text}{quotes[0]}" if quotes else old.quote + old.text + old.quote


def kernel_sections(found: list[Section]) -> Mapping[str, Section]:
    """The sections that start a kernel from a disk."""
    kinds = [section for section in found if not section.is_menu and section.name != DEFAULTS]
    return {section.name: section for section in kinds if "image" in section.values and "kdump" not in section.values}
