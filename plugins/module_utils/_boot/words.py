# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Editing a command line where it stands in a file, so that spacing, comments and unrelated words stay as they are.

What a word is, and which of them are parameters, is as in :mod:`.cmdline`; this file adds where they stand.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .cmdline import END_OF_PARAMETERS, WHITESPACE, CommandLine, Parameter, Request


@dataclass(frozen=True)
class PlacedWord:
    """One word of a command line, and where it is written."""

    start: int
    end: int
    text: str


def placed_words(text: str, spans: Sequence[tuple[int, int]]) -> list[PlacedWord]:
    """The words of the command line that the given parts of ``text`` make together, in order.

    What is between two parts counts as a blank.

    :param spans: start and end of each part, in order, not overlapping
    """
    words = []
    start = -1
    in_quotes = False
    for begin, end in spans:
        for place in range(begin, end):
            character = text[place]
            if character in WHITESPACE and not in_quotes:
                if start >= 0:
                    words.append(PlacedWord(start, place, text[start:place]))
                start = -1
                continue
            if character == '"':
                in_quotes = not in_quotes
            if start < 0:
                start = place
        if start >= 0:
            words.append(PlacedWord(start, end, text[start:end]))
        # A quote that goes on in the next part would make one word of two places, which no edit here can keep.
        start = -1
        in_quotes = False
    return words


def lines_of(text: str) -> list[str]:
    """The lines of a text with their line feeds; nothing else ends one (``str.splitlines`` knows ten more)."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def edited(text: str, request: Request, spans: Sequence[tuple[int, int]] | None = None) -> str:
    """``text`` with the request met by the command line in it, as :meth:`.cmdline.Request.apply` would meet it.

    :param spans: the parts of ``text`` that make the command line, at least one; None for all of it
    :raises PassthroughError: ``settings_not_understood`` when there is something to change and a quote is not closed
    """
    parts = list(spans) if spans is not None else [(0, len(text))]
    words = placed_words(text, parts)
    mark = next((number for number, word in enumerate(words) if word.text == END_OF_PARAMETERS), len(words))
    named = [(word, Parameter.parse(word.text)) for word in words[:mark]]
    replaced: dict[int, str] = {}
    removed: set[PlacedWord] = set()
    added: list[str] = []
    unmet = request.unmet(CommandLine(tuple(parameter for _unused, parameter in named)))
    if unmet:
        _see_that_quotes_are_closed(words)
    for key in unmet:
        wanted = " ".join(parameter.text for parameter in request.wanted(key))
        places = [(word, parameter) for word, parameter in named if parameter.key == key]
        if wanted and places:
            replaced[places[0][0].start] = wanted
            removed.update(word for word, _unused in places[1:])
        elif wanted:
            added.append(wanted)
        else:
            removed.update(word for word, parameter in places if request.is_unwanted(parameter))
    gone = _with_blanks(text, parts, words, removed)
    inserted: dict[int, str] = {}
    if added:
        new = " ".join(added)
        kept = [word for word in words[:mark] if word not in removed]
        if mark < len(words):
            inserted[words[mark].start] = f"{new} "
        elif kept:
            inserted[kept[-1].end] = f" {new}"
        else:
            inserted[parts[0][0]] = new
    ends = {word.start: word.end for word in words}
    result = []
    place = 0
    while place <= len(text):
        result.append(inserted.get(place, ""))
        if place in replaced:
            result.append(replaced[place])
            place = ends[place]
            continue
        if place < len(text) and place not in gone:
            result.append(text[place])
        place += 1
    return "".join(result)


def _see_that_quotes_are_closed(words: Sequence[PlacedWord]) -> None:
    """To the kernel all that follows an open quote is one value, and so would be what is added there."""
    for word in words:
        if word.text.count('"') % 2:
            raise PassthroughError(
                "settings_not_understood",
                f"The command line has {word.text!r}, with a double quote that is never closed.",
                "Close it, or remove it, and run this again.",
                value=word.text,
            )


def _with_blanks(
    text: str, spans: Sequence[tuple[int, int]], words: Sequence[PlacedWord], removed: set[PlacedWord]
) -> set[int]:
    """The places of the removed words and of the blanks before them, or after them where no word is left before."""
    gone: set[int] = set()
    for begin, end in spans:
        has_word_before = False
        for word in words:
            if not begin <= word.start < end:
                continue
            if word not in removed:
                has_word_before = True
                continue
            gone.update(range(word.start, word.end))
            step = -1 if has_word_before else 1
            place = word.start - 1 if has_word_before else word.end
            while begin <= place < end and text[place] in " \t":
                gone.add(place)
                place += step
    return gone
