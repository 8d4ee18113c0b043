# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced as a whole: at any instant there is the old one or the new one, never a part."""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Callable

from .errors import PassthroughError, Problem
from .host import Host

SELINUX_ATTRIBUTE = "security.selinux"
TEMPORARY = ".kvm-passthrough.tmp"


@dataclass(frozen=True)
class FileState:
    """A regular file as it is, or (``content`` is None) its absence."""

    content: bytes | None
    mode: int = 0o644
    uid: int = 0
    gid: int = 0

    @property
    def text(self) -> str:
        """The content as text, empty when there is no file; undecodable bytes are kept as surrogates."""
        return (self.content or b"").decode("utf-8", "surrogateescape")

    def with_text(self, text: str) -> FileState:
        """This file with another text; a new one has the usual mode."""
        content = text.encode("utf-8", "surrogateescape")
        return FileState(content) if self.content is None else replace(self, content=content)

    def is_like(self, other: FileState) -> bool:
        """Whether two files are alike in what matters to those who read them; who owns them does not."""
        if self.content is None or other.content is None:
            return self.content is other.content
        return (self.content, self.mode) == (other.content, other.mode)

    def fingerprint(self) -> dict[str, Any] | None:
        """What identifies this state (SHA-256 of the content, mode, owner), or None for an absent file."""
        if self.content is None:
            return None
        return {
            "sha256": hashlib.sha256(self.content).hexdigest(),
            "mode": f"{self.mode:04o}",
            "uid": self.uid,
            "gid": self.gid,
        }

    def to_json(self) -> dict[str, Any] | None:
        """All that is needed to restore this state, as JSON values; None for an absent file."""
        fingerprint = self.fingerprint()
        if fingerprint is None or self.content is None:
            return None
        return {**fingerprint, "content_base64": base64.b64encode(self.content).decode("ascii")}

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> FileState:
        """The inverse of :meth:`to_json`."""
        if data is None:
            return cls(None)
        return cls(base64.b64decode(data["content_base64"]), int(data["mode"], 8), data["uid"], data["gid"])


def observe(host: Host, path: str) -> FileState:
    """The state of ``path`` now; symbolic links are followed.

    :raises PassthroughError: ``file_unreadable`` when it is there but cannot be read, ``not_a_regular_file`` when
        it is something else (a rule masked by a link to ``/dev/null``, say)
    """
    real = host.path(host.real_path(path))
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)  # a FIFO would block
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _not_regular(path)
            return FileState(stream.read(), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    except FileNotFoundError:
        return FileState(None)
    except IsADirectoryError:
        raise _not_regular(path) from None
    except OSError as error:
        raise PassthroughError("file_unreadable", f"{path} cannot be read: {error.strerror}.", path=path) from error


def put(host: Host, path: str, wanted: FileState, validate: Callable[[str], None] | None = None) -> list[str]:
    """Bring ``path`` into the state ``wanted``, in one step that a crash cannot split.

    A new content is written to a temporary file in the same directory, given the mode, owner and SELinux label
    of the file it replaces, flushed to disk, validated, and renamed over it. Its name starts with a dot and
    ends in ``.tmp``, so that no tool that reads ``*.conf``, ``*.cfg`` or ``*.rules`` takes it for its own; one that a
    killed run left behind is removed. Missing parent directories are made (mode 0755, whatever the umask).

    :param validate: is given the temporary file's path for this process and raises when its content is bad
    :returns: the directories that were made, the deepest first, for whoever has to remove them again
    :raises PassthroughError: ``file_unwritable``, ``not_a_regular_file``, or what ``validate`` raises; the old file
        is then still there, unless only the last flush of the directory failed
    """
    seen = host.real_path(path)
    real = host.path(seen)
    parent, name = os.path.split(real)
    missing = [] if wanted.content is None else missing_directories(host, path)
    is_new = False
    try:
        if os.path.lexists(real) and not stat.S_ISREG(os.lstat(real).st_mode):
            raise _not_regular(path)
        if wanted.content is None:
            _remove_leftovers(parent, name)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(real)
                _sync_directory(parent)
            return []
        _make_directories(host, missing)
        _remove_leftovers(parent, name)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=TEMPORARY, dir=parent)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(wanted.content)
                stream.flush()
                if os.geteuid() == 0:
                    os.fchown(stream.fileno(), wanted.uid, wanted.gid)
                os.fchmod(stream.fileno(), wanted.mode)  # after the owner, whose change clears set-user-id bits
                os.fsync(stream.fileno())
            is_new = not _copy_label(real, temporary)
            if validate is not None:
                validate(temporary)
            os.rename(temporary, real)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(parent)
    except BaseException as error:
        remove_directories(host, missing)
        if not isinstance(error, OSError):
            raise
        raise PassthroughError(
            "file_unwritable",
            f"{path} cannot be written: {error.strerror or error}.",
            "A read-only or image-based file system needs its own tool; on others look at mount options and space."
            if error.errno in (errno.EROFS, errno.ENOSPC, errno.EACCES, errno.EPERM)
            else "",
            path=path,
        ) from error
    if is_new:
        _restore_default_label(host, seen)
    return missing


def require_writable(host: Host, paths: Iterable[str]) -> None:
    """Fail before anything is changed when a file cannot be replaced, because its file system is read-only, say.

    :raises PassthroughError: ``file_unwritable``, one problem for each
    """
    problems = []
    for path in paths:
        directory = os.path.dirname(host.real_path(path))
        if host.exists(directory) and not host.is_writable(directory):
            problems.append(
                Problem(
                    "file_unwritable",
                    f"{path} cannot be replaced: {directory} is not writable.",
                    "Look at its mount options: a file system that is mounted read-only has to be mounted read-write "
                    "first (mount -o remount,rw); an image-based one needs its own tool.",
                    {"path": path},
                )
            )
    if problems:
        raise PassthroughError.of(problems)


def missing_directories(host: Host, path: str) -> list[str]:
    """The directories that have to be made before ``path`` can be, the deepest first."""
    missing = []
    parent = os.path.dirname(host.real_path(path))
    while not host.exists(parent):
        missing.append(parent)
        parent = os.path.dirname(parent)
    return missing


def remove_directories(host: Host, directories: Iterable[str]) -> None:
    """Remove directories that :func:`put` made, the deepest first, as far as they are there and empty."""
    for directory in directories:
        with contextlib.suppress(OSError):
            os.rmdir(host.path(directory))


def _make_directories(host: Host, missing: list[str]) -> None:
    """Make directories, each with its mode in one step: killed before a chmod, we would leave another mode for good."""
    umask = os.umask(0o022)
    try:
        for directory in reversed(missing):
            real = host.path(directory)
            os.mkdir(real, 0o755)
            _sync_directory(os.path.dirname(real))
    finally:
        os.umask(umask)


def has_leftovers(host: Host, path: str) -> bool:
    """Whether there are temporary files of ``path`` that a killed run left behind."""
    parent, name = os.path.split(host.real_path(path))
    return any(_is_leftover(other, name) for other in host.list_dir(parent))


def with_leftovers(host: Host, paths: Iterable[str]) -> tuple[str, ...]:
    """Those of these files that have some."""
    return tuple(path for path in paths if has_leftovers(host, path))


def remove_leftovers(host: Host, path: str) -> None:
    """Remove those; :func:`put` does it, too, for the file it writes. The caller holds the lock: nobody uses them."""
    _remove_leftovers(*os.path.split(host.path(host.real_path(path))))


def _remove_leftovers(parent: str, name: str) -> None:
    with contextlib.suppress(OSError):
        for other in os.listdir(parent):
            if _is_leftover(other, name):
                os.unlink(os.path.join(parent, other))


def _is_leftover(other: str, name: str) -> bool:
    return other.startswith(f".{name}.") and other.endswith(TEMPORARY)


def _not_regular(path: str) -> PassthroughError:
    return PassthroughError(
        "not_a_regular_file",
        f"{path} is not a regular file, nor a link to one, so it is left alone.",
        "A link to /dev/null means that somebody switched this file off on purpose; remove the link to allow it again.",
        path=path,
    )


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_label(source: str, target: str) -> bool:
    """Copy the SELinux label; return whether ``source`` exists, so that its label (or its lack) is settled."""
    try:
        label = os.getxattr(source, SELINUX_ATTRIBUTE)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    with contextlib.suppress(OSError):
        os.setxattr(target, SELINUX_ATTRIBUTE, label)
    return True


def _restore_default_label(host: Host, path: str) -> None:
    """Give a newly made file the label the policy names for it; only where SELinux is in force."""
    if host.exists("/sys/fs/selinux/enforce") and host.which("restorecon"):
        host.run(["restorecon", path], check=False)
