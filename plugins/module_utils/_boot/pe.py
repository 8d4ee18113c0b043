# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As much of the PE/COFF format as it takes to look into a unified kernel image (Microsoft PE format; systemd-stub(7)).

A file is never trusted: every offset is checked against its size.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

MAX_SECTIONS = 96  # what Windows loads at most, and far more than an image has

_CERTIFICATES = 4  # IMAGE_DIRECTORY_ENTRY_SECURITY
# Where the data directories begin in the optional header, by its magic number: PE32 and PE32+.
_DIRECTORIES = {0x10B: 96, 0x20B: 112}


class NotPortableExecutable(ValueError):
    """The bytes are no PE file, or a damaged one; the message says why."""


@dataclass(frozen=True)
class Image:
    """A PE file: its sections, and whether it carries a signature. Of several with one name, the first counts."""

    sections: dict[str, bytes]
    is_signed: bool

    def text(self, name: str) -> str:
        """A section that is text, without the padding at its end; empty when there is none."""
        return self.sections.get(name, b"").rstrip(b"\0").decode("utf-8", "surrogateescape")


def parse(data: bytes) -> Image:
    """Read the headers and sections of a PE file.

    :raises NotPortableExecutable: when it is none, is cut off, or its headers contradict its size
    """
    if data[:2] != b"MZ":
        raise NotPortableExecutable("it does not begin with MZ")
    (header,) = _unpack("<I", data, 0x3C)
    if data[header : header + 4] != b"PE\0\0":
        raise NotPortableExecutable("it has no PE header")
    _machine, count, _time, _symbols, _number, optional_size, _flags = _unpack("<HHIIIHH", data, header + 4)
    if count > MAX_SECTIONS:
        raise NotPortableExecutable(f"it claims to have {count} sections")
    optional = header + 24
    sections: dict[str, bytes] = {}
    for number in range(count):
        name, size, _address, raw_size, start = _unpack("<8sIIII", data, optional + optional_size + 40 * number)
        length = min(size, raw_size)  # the raw size is rounded up
        if start + length > len(data):
            raise NotPortableExecutable(f"section {name!r} reaches beyond its end")
        sections.setdefault(name.rstrip(b"\0").decode("ascii", "replace"), data[start : start + length])
    return Image(sections, _is_signed(data, optional, optional_size))


def _is_signed(data: bytes, optional: int, size: int) -> bool:
    if size < 2:
        return False
    (magic,) = _unpack("<H", data, optional)
    place = _DIRECTORIES.get(magic, size) + 8 * _CERTIFICATES
    if place + 8 > size:
        return False
    _start, length = _unpack("<II", data, optional + place)
    return bool(length)


def _unpack(layout: str, data: bytes, start: int) -> tuple[Any, ...]:
    """``struct.unpack_from`` with a length check; a field of bytes stays one."""
    if start < 0 or start + struct.calcsize(layout) > len(data):
        raise NotPortableExecutable("it is cut off")
    return struct.unpack_from(layout, data, start)
