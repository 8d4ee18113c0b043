# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in an initramfs image, read from the image itself, whichever tool built it.

lsinitramfs, lsinitrd and lsinitcpio differ in what they show, and unpack the image anew for every question. The kernel
knows one format, and this reads it: cpio archives one after the other, the last one compressed. Of files that come
twice, the last counts, as it does when the kernel unpacks them.

Sources: Documentation/driver-api/early-userspace/buffer-format.rst; lib/decompress.c for the magic numbers.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO, cast

from ..._core.errors import PassthroughError
from ..._core.host import Host

_NEWC = (b"070701", b"070702")
_HEADER = 110
_TRAILER = "TRAILER!!!"

# Python before 3.14 cannot read these; the tool that wrote such an image used the same program.
_PROGRAMS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x04\x22\x4d\x18": "lz4",
    b"\x89LZO": "lzop",
}
_CHUNK = 1 << 20
_TIMEOUT = 600.0


@dataclass(frozen=True)
class Contents:
    """What an image has: the paths of all files and links, and what some of them say."""

    names: frozenset[str]
    files: Mapping[str, bytes]


def read(host: Host, image: str, wanted: Collection[str]) -> Contents:
    """Look into an image.

    :param wanted: names of files (without directories) whose content is of interest
    :raises PassthroughError: ``image_unreadable``, ``file_unreadable``; what :meth:`Host.filtered` raises
    """
    names: set[str] = set()
    files: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:
        try:
            for name, content in _entries(stack, host, image, wanted):
                names.add(name)
                if content is not None:
                    files[name] = content
        except (ValueError, EOFError, OSError, lzma.LZMAError) as error:
            raise PassthroughError(
                "image_unreadable",
                f"{image} is no initramfs that can be read: {error}.",
                "Build it again with the tool of the distribution, and look at what that says.",
                image=image,
            ) from error
    return Contents(frozenset(names), files)


def _entries(
    stack: contextlib.ExitStack, host: Host, image: str, wanted: Collection[str]
) -> Iterator[tuple[str, bytes | None]]:
    """Every file and link of an image with its content, or None where that is of no interest."""
    raw = stack.enter_context(host.open_binary(image))
    found = False
    while True:
        magic = _skip_padding(raw)
        if not magic:
            break
        found = True
        if magic in _NEWC:
            yield from _archive(_Counted(raw), wanted)
            continue
        yield from _archives(_Counted(_decompressed(stack, host, image, raw, magic)), wanted)
        break  # nothing tells where the compressed part ends; what tools put behind it has never been seen
    if not found:
        raise ValueError("it is empty")


def _archives(stream: _Counted, wanted: Collection[str]) -> Iterator[tuple[str, bytes | None]]:
    """The entries of archives in a stream that cannot be rewound."""
    first = True
    while True:
        word = stream.exactly(4) if first else stream.read(4)
        while not first and word == bytes(4):
            word = stream.read(4)
        if not word or (len(word) < 4 and not any(word)):
            return
        first = False
        yield from _archive(stream, wanted, word)


def _archive(stream: _Counted, wanted: Collection[str], begun: bytes = b"") -> Iterator[tuple[str, bytes | None]]:
    """The entries of one archive; ``begun`` is what was read of it already. The stream is left behind its trailer."""
    start = stream.count - len(begun)
    while True:
        header = begun + stream.exactly(_HEADER - len(begun))
        begun = b""
        if header[:6] not in _NEWC:
            raise ValueError(f"there is {header[:6]!r} in the place of a header")
        mode, size, length = (int(header[place : place + 8], 16) for place in (14, 54, 94))
        name = stream.exactly(length).rstrip(b"\0").decode("utf-8", "surrogateescape")
        stream.align(start)
        base = name.rpartition("/")[2]
        is_wanted = stat.S_ISREG(mode) and base in wanted
        content = stream.exactly(size) if is_wanted else None
        if not is_wanted:
            stream.skip(size)
        stream.align(start)
        if name == _TRAILER:
            return
        if not stat.S_ISDIR(mode):
            yield name[2:] if name.startswith("./") else name.lstrip("/"), content


class _Counted:
    """A stream that is only ever read forwards, and knows how far."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        pieces = []
        while size > 0:
            data = self.read(min(size, _CHUNK))
            if not data:
                raise EOFError("it ends in the middle")
            pieces.append(data)
            size -= len(data)
        return b"".join(pieces)

    def skip(self, size: int) -> None:
        while size > 0:
            taken = len(self.exactly(min(size, _CHUNK)))
            size -= taken

    def align(self, start: int) -> None:
        self.exactly(-(self.count - start) % 4)


def _skip_padding(raw: BinaryIO) -> bytes:
    """The first six bytes of the next part, with the stream before them; empty at the end. NULs pad the parts."""
    while True:
        place = raw.tell()
        chunk = raw.read(_CHUNK)
        if not chunk:
            return b""
        rest = chunk.lstrip(b"\0")
        if rest:
            raw.seek(place + len(chunk) - len(rest))
            magic = raw.read(6)
            raw.seek(place + len(chunk) - len(rest))
            return magic


def _decompressed(stack: contextlib.ExitStack, host: Host, image: str, raw: BinaryIO, magic: bytes) -> BinaryIO:
    if magic[:2] == b"\x1f\x8b":
        return cast(BinaryIO, stack.enter_context(gzip.GzipFile(fileobj=raw)))
    if magic[:6] == b"\xfd7zXZ\0" or magic[:3] == b"\x5d\0\0":
        return cast(BinaryIO, stack.enter_context(lzma.LZMAFile(raw)))
    if magic[:3] == b"BZh":
        return cast(BinaryIO, stack.enter_context(bz2.BZ2File(raw)))
    program = _PROGRAMS.get(magic[:4])
    if program is None:
        raise ValueError(f"a part of it begins with {magic.hex()}, which is no compression that the kernel knows")
    return stack.enter_context(host.filtered(image, raw.tell(), [program, "-d", "-c"], _TIMEOUT))
