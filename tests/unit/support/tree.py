# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Directory trees that stand in for hosts, and what one is as a value: to prove that nothing in it was touched."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection
from pathlib import Path

LOCK = "run/kvm-passthrough.lock"
"""Left behind by every run on purpose (see ``_core.lock``), so it says nothing about a change."""

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


class HostTree:
    """A directory that stands in for the root of a host; its files are made and read by their paths on that host."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, path: str) -> Path:
        """Where a path of the host is for this process."""
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Make a file of the host."""
        real = self.path(path)
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
        real.chmod(mode)

    def read(self, path: str) -> str:
        """The text of a file of the host."""
        return self.path(path).read_bytes().decode("utf-8", "surrogateescape")


def tree_listing(path: str | Path, exclude: Collection[str] = (LOCK,)) -> dict[str, str]:
    """Every name below ``path`` with its type, mode, owner and what it holds.

    Times are left out: reading a tree may change them. Two listings compare equal exactly when the trees are the
    same, and pytest shows the difference of two dictionaries name by name.

    :param exclude: paths relative to ``path`` that are left out, with everything below them
    """
    found: dict[str, str] = {}

    def enter(directory: str, prefix: str) -> None:
        for entry in sorted(os.scandir(directory), key=lambda item: item.name):
            name = prefix + entry.name
            if name in exclude:
                continue
            found[name] = _describe(entry.path)
            if entry.is_dir(follow_symlinks=False):
                enter(entry.path, name + "/")

    enter(os.fspath(path), "")
    return found


def tree_hash(path: str | Path, exclude: Collection[str] = (LOCK,)) -> str:
    """One digest of :func:`tree_listing`: names, types, modes, owners, link targets and contents."""
    digest = hashlib.sha256()
    for name, description in tree_listing(path, exclude).items():
        digest.update(f"{name}\0{description}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _describe(path: str) -> str:
    status = os.lstat(path)
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "unknown")
    text = f"{kind} {stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid}"
    if kind == "link":
        return f"{text} -> {os.readlink(path)}"
    if kind == "file":
        content = Path(path).read_bytes()
        return f"{text} {content!r}" if len(content) <= 400 else f"{text} sha256 {hashlib.sha256(content).hexdigest()}"
    return text
