# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""/etc/libvirt/qemu.conf, read as libvirt reads it (src/util/virconf.c).

``name = value``, where a value is a number, a string in one of three kinds of quotes, or a list over any number of
lines; ``#`` begins a comment. Of a name that is given twice the first counts (``virConfGetValue``).
"""

from __future__ import annotations

import re
from typing import Union

Value = Union[int, str, "list[Value]"]

# Deeper lists and longer numbers than any setting has; the interpreter has limits of its own there.
_MAX_DEPTH = 8

_TOKEN = re.compile(
    r"""
    (?P<skip>[ \t]+|\#[^\r\n]*)
    |(?P<end>[\r\n;])
    |(?P<name>[A-Za-z][A-Za-z0-9_]*)
    |(?P<number>[-+]?[0-9]{1,20})
    |\"\"\"(?P<long>.*?)\"\"\"
    |"(?P<double>[^"\r\n]*)"
    |'(?P<single>[^'\r\n]*)'
    |(?P<mark>[=\[\],])
    """,
    re.VERBOSE | re.DOTALL,
)


class ConfSyntaxError(ValueError):
    """A file that libvirt refuses to read, too; the message says where."""


def parse(text: str) -> dict[str, Value]:
    """The settings of a file.

    :raises ConfSyntaxError: naming the line
    """
    return _Parser(text).settings()


class _Parser:
    """Walks over the tokens: kind, text, position. The last token is always an end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split()
        self._at = 0

    def _split(self) -> list[tuple[str, str, int]]:
        found = []
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None or match.lastgroup is None:
                raise self._error(position)
            if match.lastgroup != "skip":
                found.append((match.lastgroup, match[match.lastgroup], position))
            position = match.end()
        return [*found, ("end", "", position)]

    def _error(self, position: int) -> ConfSyntaxError:
        return ConfSyntaxError(f"line {self._text.count(chr(10), 0, position) + 1} cannot be read")

    def _take(self) -> tuple[str, str]:
        """The next token. Nobody takes one beyond the last, as only :meth:`_skip_ends` goes past an end."""
        if self._at >= len(self._tokens):
            raise self._error(len(self._text))
        kind, text, _unused = self._tokens[self._at]
        self._at += 1
        return kind, text

    def _expect(self, kind: str, text: str | None = None) -> str:
        position = self._tokens[min(self._at, len(self._tokens) - 1)][2]
        found, value = self._take()
        if found != kind or text not in (None, value):
            raise self._error(position)
        return value

    def _skip_ends(self) -> None:
        while self._at < len(self._tokens) and self._tokens[self._at][0] == "end":
            self._at += 1

    def settings(self) -> dict[str, Value]:
        """Every setting, the first of each name."""
        found: dict[str, Value] = {}
        self._skip_ends()
        while self._at < len(self._tokens):
            name = self._expect("name")
            self._expect("mark", "=")
            found.setdefault(name, self._value(0))
            self._expect("end")
            self._skip_ends()
        return found

    def _value(self, depth: int) -> Value:
        position = self._tokens[min(self._at, len(self._tokens) - 1)][2]
        kind, text = self._take()
        if kind == "number":
            return int(text)
        if kind in ("long", "double", "single"):
            return text
        if (kind, text) == ("mark", "[") and depth < _MAX_DEPTH:
            return self._items(depth + 1)
        raise self._error(position)

    def _items(self, depth: int) -> list[Value]:
        """What follows ``[``; a comma behind the last item is allowed."""
        items: list[Value] = []
        self._skip_ends()
        while not self._accept("]"):
            items.append(self._value(depth))
            self._skip_ends()
            if not self._accept(","):
                self._expect("mark", "]")
                return items
            self._skip_ends()
        return items

    def _accept(self, mark: str) -> bool:
        there = self._at < len(self._tokens) and self._tokens[self._at][:2] == ("mark", mark)
        self._at += there
        return there
