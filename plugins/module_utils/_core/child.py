# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What may hang in the kernel, where no signal reaches it, done by a child process that can be left behind.

The child keeps nothing of ours open: neither the lock, nor the standard output whose end Ansible waits for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
from collections.abc import Iterable
from typing import NoReturn

_LONG = 1 << 16
_MAX_POLL = 2**31 - 1  # milliseconds: poll(2) takes an int


def lines(produced: Iterable[bytes], timeout: float) -> list[bytes]:
    """What a child makes of an iterable that is worked through there, line by line.

    :param produced: whole lines
    :param timeout: seconds for each
    :returns: the lines without their ends; fewer than there should be when the next did not come in time
    """
    inherited = _open_descriptors()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _send_and_exit(produced, writer, [*inherited, reader])
    os.close(writer)
    return _lines_of(child, reader, timeout)


def write(path: str, data: bytes, timeout: float) -> int | None:
    """The errno of a child that writes to a file, 0 for success; None when it did not end in time."""
    inherited = _open_descriptors()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _write_and_exit(path, data, writer, [*inherited, reader])
    os.close(writer)
    return _answer_of(child, reader, timeout)


def _open_descriptors() -> list[int]:
    """The descriptors of this process."""
    try:
        return [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc: all that there may be, so that others than those of now are among them
        return list(range(256))


def _close_all(descriptors: Iterable[int], but: int) -> None:
    """Close what a forked child has no business with."""
    for descriptor in descriptors:
        if descriptor != but:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _write_and_exit(path: str, data: bytes, answer: int, foreign: Iterable[int]) -> NoReturn:
    """In a forked child: write ``data`` to ``path``, send the errno (0 for success) to ``answer``, and end.

    Opened as the shell opens ``> path``, which is how attributes are used everywhere. Whatever happens, the
    child never returns into its copy of the caller's code.
    """
    try:
        code = errno.EIO
        try:
            _close_all(foreign, answer)
            descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)
            if os.write(descriptor, data) == len(data):
                os.close(descriptor)
                code = 0
        except OSError as error:
            code = error.errno or errno.EIO
        finally:
            os.write(answer, code.to_bytes(2, "big"))
    finally:
        os._exit(0)


def _send_and_exit(produced: Iterable[bytes], answer: int, foreign: Iterable[int]) -> NoReturn:
    """In a forked child: send every line to ``answer``, and end."""
    try:
        _close_all(foreign, answer)
        for line in produced:
            while line:
                line = line[os.write(answer, line) :]
    finally:
        os._exit(0)


def _lines_of(child: int, reader: int, timeout: float) -> list[bytes]:
    """The lines a child sends, until the next does not come in time; closes ``reader``."""
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    data, ended = b"", False
    try:
        while not ended and poller.poll(min(timeout * 1000, _MAX_POLL)):
            piece = os.read(reader, _LONG)
            data += piece
            ended = not piece
    finally:
        if not ended:
            os.kill(child, signal.SIGKILL)
            ended = bool(poller.poll(1000))
        os.close(reader)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0 if ended else os.WNOHANG)
    return data.split(b"\n")[:-1]


def _answer_of(child: int, reader: int, timeout: float) -> int | None:
    """The errno a child sends, or None when the time is up; closes ``reader``.

    A child that can still be ended is ended, lest its write completes when the caller has already undone things.
    """
    poller = select.poll()
    poller.register(reader, select.POLLIN)
    in_time = ended = False
    try:
        in_time = ended = bool(poller.poll(min(timeout * 1000, _MAX_POLL)))
    finally:
        if not in_time:
            os.kill(child, signal.SIGKILL)
            ended = bool(poller.poll(1000))
        sent = os.read(reader, 2) if ended else b""
        os.close(reader)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0 if ended else os.WNOHANG)
    if sent:
        return int.from_bytes(sent, "big")
    return errno.EIO if in_time else None
