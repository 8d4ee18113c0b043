# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing an initramfs: a cpio archive of the format "newc".

The format is the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Nothing
is unpacked to make one, so owners and modes need no root rights.
"""

from __future__ import annotations

import io
import stat
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
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


def files_of(folder: Path) -> Iterator[Entry]:
    """The files below a directory of this project, as root's."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            permissions = 0o755 if path.stat().st_mode & 0o100 else 0o644
            yield file(str(path.relative_to(folder)), path.read_bytes(), permissions)


def write(stream: BinaryIO, entries: Iterable[Entry]) -> None:
    """Write a whole archive. A directory has to come before what is in it: the kernel makes none by itself."""
    written = 0
    for number, entry in enumerate(entries, start=1):
        written += stream.write(_record(number, entry))
    written += stream.write(_record(0, Entry("TRAILER!!!", 0)))
    stream.write(bytes(-written % 512))


def write_tar(target: Path, entries: Iterable[Entry]) -> None:
    """Write the same entries as a tar file, for what is no initramfs."""
    kinds = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFREG: tarfile.REGTYPE}
    with tarfile.open(target, "w") as archive:
        for entry in entries:
            member = tarfile.TarInfo(entry.name)
            member.type, member.mode = kinds[stat.S_IFMT(entry.mode)], stat.S_IMODE(entry.mode)
            member.uid, member.gid, member.mtime = entry.owner, entry.group, int(time.time())
            if member.issym():
                member.linkname = entry.content.decode()
            else:
                member.size = len(entry.content)
            archive.addfile(member, io.BytesIO(entry.content))


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.name.encode() + b"\0"
    size = len(entry.content)
    # One link each: the kernel takes an inode number seen before for a hard link only when there are more.
    numbers = (inode, entry.mode, entry.owner, entry.group, 1, 0, size, 0, 0, 0, 0, len(name), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
    return header + bytes(-len(header) % 4) + entry.content + bytes(-size % 4)
