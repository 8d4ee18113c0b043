# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab builds once and keeps: one directory per artefact, named after its inputs.

``<cache>/<kind>-<key>/`` is complete by definition: it is built under another name and
renamed when it is. ``<cache>/run/`` holds the machines that are running.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .run import LabError, as_root, run, say

_TEMPORARY = ".tmp"


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/kvm-passthrough/lab``, created when missing, for its owner only."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    directory = Path(base).absolute() / "kvm-passthrough" / "lab"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot create the cache {directory}: {error.strerror}") from error
    return directory


def run_directory() -> Path:
    """The directory of the machines that are running."""
    directory = cache_directory() / "run"
    directory.mkdir(exist_ok=True)
    return directory


def digest(*parts: str | bytes | Path | Iterable[str]) -> str:
    """A short key for these inputs.

    A path stands for the names, modes and contents of all files below it.
    """
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, Path):
            content = b"".join(_file_parts(part))
        elif isinstance(part, bytes):
            content = part
        elif isinstance(part, str):
            content = part.encode()
        else:
            content = "\0".join(part).encode()
        total.update(f"{len(content)}:".encode() + content)
    return total.hexdigest()[:12]


def _file_parts(top: Path) -> Iterator[bytes]:
    files = sorted(path for path in top.rglob("*") if path.is_file()) if top.is_dir() else [top]
    for file in files:
        executable = bool(file.stat().st_mode & 0o100)
        yield f"{file.relative_to(top)} {executable} ".encode() + file.read_bytes()


def artefact(kind: str, key: str, build: Callable[[Path], None]) -> Path:
    """The directory of an artefact, built first when the cache has none with this key.

    ``build`` is given an empty directory. Two processes that want the same kind wait for
    each other. What ``build`` raises is passed on; its directory stays for inspection
    (logs) until the next build of that kind, or ``prune``.
    """
    final = cache_directory() / f"{kind}-{key}"
    if final.is_dir():
        return final
    with _lock(kind):
        if final.is_dir():
            return final
        for leftover in cache_directory().glob(f"{kind}-*{_TEMPORARY}"):
            remove_tree(leftover)
        temporary = final.with_name(final.name + _TEMPORARY)
        temporary.mkdir()
        build(temporary)
        # A complete name must mean complete contents, also after a power failure.
        os.sync()
        temporary.rename(final)
    return final


@contextlib.contextmanager
def _lock(kind: str) -> Iterator[None]:
    """Hold the lock of one kind; the kernel gives it back however this process ends."""
    with (cache_directory() / f"{kind}.lock").open("w", encoding="utf-8") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another process is building '{kind}'; waiting for it")
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def prune(keep: Iterable[str]) -> list[str]:
    """Remove all artefacts but those named in ``keep`` (``kind-key``); return what went.

    A kind that is being built at this moment is left alone.
    """
    kept = set(keep)
    removed = []
    for entry in sorted(cache_directory().iterdir()):
        if not entry.is_dir() or entry.name in kept or entry.name == "run":
            continue
        kind = entry.name.rsplit("-", 1)[0]
        with (cache_directory() / f"{kind}.lock").open("w", encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            remove_tree(entry)
        removed.append(entry.name)
    return removed


def remove_tree(directory: Path) -> None:
    """Remove a directory, also one unpacked with the owners of a user namespace."""
    try:
        shutil.rmtree(directory)
    except PermissionError:
        run(as_root(["rm", "-rf", "--one-file-system", directory]), timeout=300)
