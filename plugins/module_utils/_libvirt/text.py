# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's XML as text that somebody wrote: devices come, change and go, every other byte stays as it is.

An XML library that reads a document and writes it again keeps what it means, but not how it looks (quotes, blanks in
tags, line ends). So the places of the devices are taken from expat, and the text is cut and joined there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.parsers import expat

from .._core.errors import PassthroughError

MAX_BYTES = 4 * 1024 * 1024
"""libvirt's own limit for a document: remote_protocol.x, ``REMOTE_STRING_MAX``."""
MAX_DEPTH = 256
"""libxml2's own limit, without XML_PARSE_HUGE: parserInternals.h, ``xmlParserMaxDepth``."""

_BLANKS = b" \t\r\n"


@dataclass(frozen=True)
class Span:
    """An element's place in the document: the offsets of its first byte and of the byte after its last."""

    start: int
    end: int


class DomainText:
    """The text of a ``<domain>``."""

    def __init__(self, text: str) -> None:
        """Find the places of the devices.

        :raises PassthroughError: ``domain_xml_invalid`` for XML that is malformed, larger or deeper than libvirt takes,
            or has a document type declaration (and with it entities)
        """
        try:
            self._data = text.encode()
        except UnicodeEncodeError as error:
            raise _invalid(f"The XML has a character that no encoding has: {error}.") from error
        if len(self._data) > MAX_BYTES:
            raise _invalid(
                f"The XML has {len(self._data)} bytes; libvirt takes {MAX_BYTES} at most.",
                "A definition of a domain has some thousand bytes: is this one?",
            )
        reader = _Reader(self._data)
        self.devices = reader.devices
        """The element children of ``<devices>``, in the order in which they stand."""
        self._holder = reader.holder
        self._content_end = reader.content_end
        self._root_end = reader.root_end
        self._newline = b"\r\n" if b"\r\n" in self._data else b"\n"

    def with_devices(self, replaced: Mapping[int, str | None], added: Sequence[str]) -> str:
        """The text with other devices.

        :param replaced: index in :attr:`devices` -> the element that comes in its place, or None for none. The blanks
            before an element go with it, as they came with it.
        :param added: the elements that come after the last device
        """
        data = self._data
        edits = []
        for index, element in replaced.items():
            span = self.devices[index]
            if element is None:
                edits.append((len(data[: span.start].rstrip(_BLANKS)), span.end, b""))
                continue
            edits.append((span.start, span.end, self._lines(element, self._indent(span.start))))
        if added:
            edits.append(self._addition(added))
        for start, end, new in sorted(edits, reverse=True):
            data = data[:start] + new + data[end:]
        return data.decode()

    def _addition(self, added: Sequence[str]) -> tuple[int, int, bytes]:
        """Where the new devices come, and as what."""
        if self._holder is None:
            outer = self._indent(self._root_end)
            content = self._content(added, outer + b"    ")
            lines = outer + b"  <devices>" + content + self._newline + outer + b"  </devices>" + self._newline
            return self._line_start(self._root_end), self._line_start(self._root_end), self._after_line(lines, outer)
        outer = self._indent(self._holder.start)
        inner = self._indent(self.devices[-1].start) if self.devices else outer + b"  "
        content = self._content(added, inner or outer + b"  ")
        if self._content_end is None:  # <devices/>
            tag = self._data[self._holder.start : self._holder.end - 2].rstrip(_BLANKS)
            return self._holder.start, self._holder.end, tag + b">" + content + self._newline + outer + b"</devices>"
        # An end tag on the line of the last device stays there: taken out again, the new ones leave nothing.
        last = len(self._data[: self._content_end].rstrip(_BLANKS))
        return last, last, content

    def _content(self, added: Sequence[str], indent: bytes) -> bytes:
        return b"".join(self._newline + indent + self._lines(element, indent) for element in added)

    def _lines(self, element: str, indent: bytes) -> bytes:
        """An element, indented; its first line is not."""
        return element.encode().replace(b"\n", self._newline + indent)

    def _line_start(self, offset: int) -> int:
        """Where the line of ``offset`` begins, if there are only blanks before; else ``offset``."""
        start = self._data.rfind(b"\n", 0, offset) + 1
        return offset if self._data[start:offset].strip(_BLANKS) else start

    def _after_line(self, lines: bytes, outer: bytes) -> bytes:
        start = self._line_start(self._root_end)
        return lines if start == 0 or self._data[start - 1 : start] == b"\n" else self._newline + lines + outer

    def _indent(self, offset: int) -> bytes:
        """The blanks between the beginning of the line and ``offset``; none when something else stands there."""
        start = self._data.rfind(b"\n", 0, offset) + 1
        before = self._data[start:offset]
        return b"" if before.strip(_BLANKS) else before


class _Reader:
    """Reads a document once, and notes where elements begin and end."""

    def __init__(self, data: bytes) -> None:
        self.devices: list[Span] = []
        self.holder: Span | None = None
        """The first ``<devices>``."""
        self.content_end: int | None = None
        """The offset of its end tag; None when it has none (``<devices/>``)."""
        self.root_end = 0
        """The offset of the end tag of ``<domain>``."""
        self._data = data
        self._path: list[str] = []
        self._starts: list[int] = []
        self._open: tuple[int, bool] | None = None
        self._empty = False
        # The bytes are UTF-8, whatever the declaration says they once were.
        self._parser = expat.ParserCreate("utf-8")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._doctype
        # Any other piece: where it begins, the one before has ended.
        self._parser.DefaultHandler = lambda _text: self._other()
        try:
            self._parser.Parse(data, True)
        except expat.ExpatError as error:
            raise _invalid(f"The XML is malformed: {error}.") from error
        self._close(len(data))

    def _start(self, name: str, _attributes: object) -> None:
        self._close()
        self._path.append(name)
        self._starts.append(self._parser.CurrentByteIndex)
        self._empty = True
        if len(self._path) > MAX_DEPTH:
            raise _invalid(f"The XML has elements within elements, more than {MAX_DEPTH} deep; libvirt reads no such.")

    def _end(self, _name: str) -> None:
        self._close()
        path, start, here = tuple(self._path), self._starts.pop(), self._parser.CurrentByteIndex
        self._path.pop()
        # expat says of <a/> that its end is where the tag ends, and of <a></a>, where the second tag begins.
        has_end_tag = not (self._empty and (here == start or self._data[:here].endswith(b"/>")))
        self._empty = False
        if path == ("domain",):
            if not has_end_tag:
                raise _invalid("The XML is a domain with nothing in it.")
            self.root_end = here
        if path == ("domain", "devices") and self.holder is None:
            self.content_end = here if has_end_tag else None
            self._open = (start, True)
        elif len(path) == 3 and path[:2] == ("domain", "devices"):
            self._open = (start, False)

    def _other(self) -> None:
        self._close()
        self._empty = False

    def _close(self, here: int | None = None) -> None:
        """The element that has just ended is complete: something else begins here."""
        if self._open is None:
            return
        start, is_holder = self._open
        span = Span(start, self._parser.CurrentByteIndex if here is None else here)
        self._open = None
        if is_holder:
            self.holder = span
        else:
            self.devices.append(span)

    def _doctype(self, *_arguments: object) -> None:
        raise _invalid(
            "The XML has a document type declaration, which no domain needs, and which can define entities.",
            "Remove it.",
        )


def _invalid(message: str, remedy: str = "") -> PassthroughError:
    return PassthroughError("domain_xml_invalid", message, remedy)
