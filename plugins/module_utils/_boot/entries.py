# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot loader entries of type 1: ``loader/entries/*.conf`` (uapi-group.org, Boot Loader Specification).

They are read here as systemd-boot reads them, ``line_get_key_value()`` in its src/boot/boot.c: a line ends at a line
feed or a carriage return, a value whose first and last characters are double quotes loses them, and the values of
several ``options`` lines are joined.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .cmdline import CommandLine, Request
from .words import edited, placed_words

_LINE = re.compile(r"[^\n\r]+")
_FIELD = re.compile(r"[ \t]*([^ \t#][^ \t]*)[ \t]+(.*?)[ \t]*")
# Boot counting: NAME+LEFT.conf and NAME+LEFT-DONE.conf (systemd.io/AUTOMATIC_BOOT_ASSESSMENT).
_COUNTED = re.compile(r"\+[0-9]+(-[0-9]+)?$")


@dataclass(frozen=True)
class Field:
    """One line of an entry: its key, and where its value is."""

    key: str
    value: str
    start: int
    end: int


def fields(text: str) -> list[Field]:
    """The fields of an entry, in order; lines without a value are none."""
    found = []
    for line in _LINE.finditer(text):
        field = _FIELD.fullmatch(line.group())
        if field is None or not field.group(2):
            continue
        start, end = (line.start() + place for place in field.span(2))
        if end - start > 1 and text[start] == text[end - 1] == '"':
            start, end = start + 1, end - 1
        found.append(Field(field.group(1), text[start:end], start, end))
    return found


def value(text: str, key: str) -> str:
    """The last value of a key, empty when there is none."""
    return next((field.value for field in reversed(fields(text)) if field.key == key), "")


def command_line(text: str) -> CommandLine:
    """What an entry hands to the kernel."""
    return CommandLine.of(word.text for word in placed_words(text, _options(text)))


def with_request(text: str, request: Request, path: str) -> str:
    """An entry with the request met by its ``options``.

    :param path: of the entry, for the error
    :raises PassthroughError: ``value_not_representable`` when an entry cannot say what is wanted
    """
    spans = _options(text)
    if spans:
        result = edited(text, request, spans)
    else:
        options = str(request.apply(CommandLine()))
        if not options:
            return text
        result = f"{text}{'' if not text or text.endswith(chr(10)) else chr(10)}options {options}\n"
    wanted = request.apply(command_line(text))
    if command_line(result) != wanted:
        raise PassthroughError(
            "value_not_representable",
            f"{path} cannot say {str(wanted)!r}: the boot loader would read {str(command_line(result))!r}.",
            "A line whose first and last characters are double quotes loses them. Give the parameter as "
            'name="two words", with the quotes around the value only, or add another one after it.',
            path=path,
        )
    return result


def identity(name: str) -> str:
    """The name of an entry or image file without its suffix and without the counters of boot attempts."""
    return _COUNTED.sub("", name.rpartition(".")[0])


def _options(text: str) -> list[tuple[int, int]]:
    return [(field.start, field.end) for field in fields(text) if field.key == "options"]
