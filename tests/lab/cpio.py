# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing an initramfs: a cpio archive of the format "newc".

The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Nothing
is unpacked to make one, so owners and modes need no root rights.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Entry:
    """A file, directory or symbolic link (``content`` is where it leads); ``mode`` holds the type, too."""

    name: str
    mode: int
    content: bytes = b""
    owner: int = 0
    group: int = 0


def directory(name: str, permissions: int = 0o755) -> Entry:
    """A directory."""
    return Entry(name, stat.S_IFDIR | permissions)


def file(name: str, content: bytes, permissions: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name, stat.S_IFREG | permissions, content)


def link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name, stat.S_IFLNK | 0o777, target.encode())


def write(stream: BinaryIO, entries: Iterable[Entry]) -> None:
    """Write a whole archive. A directory has to come before what is in it: the kernel makes none by itself."""
    written = 0
    for number, entry in enumerate(entries, start=1):
        written += stream.write(_record(number, entry))
    written += stream.write(_record(0, Entry("TRAILER!!!", 0)))
    stream.write(bytes(-written % 512))


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    size = len(entry.content)
    # One link each: the kernel takes an inode number seen before for a hard link only when there are more.
    numbers = (inode, entry.mode, entry.owner, entry.group, 1, 0, size, 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    return header + bytes(-len(header) % 4) + entry.content + bytes(-size % 4)
