# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One change at a time: runs of this collection on the same host exclude each other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from .errors import PassthroughError
from .host import Host

LOCK_PATH = "/run/kvm-passthrough.lock"


@contextlib.contextmanager
def exclusive(host: Host, timeout: float = 60.0, path: str = LOCK_PATH) -> Iterator[None]:
    """Hold the lock of this host; wait for it for at most ``timeout`` seconds.

    The kernel gives the lock back when the process ends, however it ends, so a lock is never stale.

    :raises PassthroughError: ``locked``, naming the process that holds it, or ``lock_unusable``
    """
    try:
        descriptor = _open(host.path(path))
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        deadline = time.monotonic() + timeout
        while not _taken(descriptor, path):
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
                raise PassthroughError(
                    "locked",
                    f"Another run of this collection (process {holder}) has been changing this host "
                    f"for more than {timeout:g} s.",
                    "Wait for it to end, or look at what it is doing; the lock frees itself when it ends.",
                    path=path,
                )
            time.sleep(0.1)
        with contextlib.suppress(OSError):  # a full /run must not stop anybody: the name is for messages only
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open(real: str) -> int:
    os.makedirs(os.path.dirname(real), exist_ok=True)
    return os.open(real, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _taken(descriptor: int, path: str) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    return True


def _unusable(path: str, error: OSError) -> PassthroughError:
    return PassthroughError(
        "lock_unusable",
        f"The lock {path}, which keeps two runs from changing this host at the same time, cannot be taken: "
        f"{error.strerror or error}.",
        "/run has to be a writable file system; nothing was changed.",
        path=path,
    )
