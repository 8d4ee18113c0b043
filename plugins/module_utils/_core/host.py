# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine a module works on, behind one object: a root directory, a way to run commands, a clock.

Nothing else in the private packages opens a file of the machine, runs a command, or asks for the time,
so a test hands in a directory tree and a recorded runner and sees the same code as a real host.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Callable, Optional, cast

from . import child
from .errors import PassthroughError

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")

# What the kernel answers for an attribute that exists but has nothing to say now (no link, wrong state).
_UNREADABLE = frozenset(
    (
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EINVAL,
        errno.EIO,
        errno.ENODEV,
        errno.ENXIO,
        errno.ESRCH,  # a file of a process that has just ended
        errno.EOPNOTSUPP,
    )
)

_PAGE = 4096  # the smallest there is: where pages are larger, a long attribute takes a second read
_LONG = 1 << 16
_MAX_LINKS = 40  # as the kernel's own limit


@dataclass(frozen=True)
class Completed:
    """How a command ended: its arguments, exit status, and what it printed."""

    argv: tuple[str, ...]
    rc: int
    stdout: str
    stderr: str


Runner = Callable[[Sequence[str], float, Optional[str]], Completed]
"""Runs ``argv`` for at most so many seconds with the given standard input.

Raises :class:`FileNotFoundError` when there is no such program and :class:`subprocess.TimeoutExpired`
when the time is up; a non-zero exit status is returned, not raised.
"""


def run_subprocess(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
    """The real :data:`Runner`: an argument list, no shell, untranslated messages, a time limit.

    The command leads a session of its own, so that its helpers (``update-initramfs`` starts dozens) end with it
    when its time is up, and do not go on writing while the caller already undoes things.
    """
    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C", "PATH": ":".join(SEARCH_PATH)}
    # pylint: disable-next=ansible-bad-function  # AnsibleModule, whose run_command it is, is not for here
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate((stdin or "").encode("utf-8", "surrogateescape"), timeout)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)  # one that hangs in the kernel does not even end by SIGKILL
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        raise
    return Completed(
        tuple(argv), process.returncode, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace")
    )


class Host:
    """A machine: its file tree, its commands, its clock.

    Every path is absolute and as the machine itself sees it (``/sys/bus/pci``); ``root`` is prefixed here.
    """

    def __init__(
        self,
        root: str = "/",
        runner: Runner = run_subprocess,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = os.path.realpath(root)
        self._runner = runner
        self._clock = clock
        self.sleep = sleep

    # -- paths -------------------------------------------------------------------------------------------

    def path(self, path: str) -> str:
        """Where ``path`` (absolute, as the machine sees it) is for this process."""
        return path if self.root == "/" else self.root + path

    def real_path(self, path: str) -> str:
        """``path`` with every symbolic link followed, as the machine sees it: an absolute link starts at its root."""
        if self.root == "/":
            return os.path.realpath(path)
        resolved = ""
        names = path.split("/")[::-1]
        links = 0
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            if name == "..":
                resolved = resolved.rpartition("/")[0]
                continue
            here = f"{resolved}/{name}"
            try:
                target = os.readlink(self.root + here)
            except OSError:
                target = ""
            if not target or links >= _MAX_LINKS:  # no link, or a circle, which the caller sees when it opens it
                resolved = here
                continue
            links += 1
            if target.startswith("/"):
                resolved = ""
            names += target[len(self.root) if target.startswith(f"{self.root}/") else 0 :].split("/")[::-1]
        return resolved or "/"

    def exists(self, path: str) -> bool:
        """Whether ``path`` is there (a dangling symbolic link is not)."""
        return os.path.exists(self.path(path))

    def modified(self, path: str) -> int | None:
        """When a file was last written, in nanoseconds since 1970, links followed; None when it is not there."""
        try:
            return os.stat(self.path(self.real_path(path))).st_mtime_ns
        except OSError:
            return None

    def is_dir(self, path: str) -> bool:
        """Whether ``path`` is a directory."""
        return os.path.isdir(self.path(path))

    def is_writable(self, path: str) -> bool:
        """Whether this process may write there: not on a file system that is mounted read-only, also for root."""
        return os.access(self.path(path), os.W_OK)

    def list_dir(self, path: str) -> list[str]:
        """The sorted names in a directory; empty when it does not exist or cannot be read."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError:
            return []

    def link_name(self, path: str) -> str | None:
        """The last component of where a symbolic link points (``driver`` -> ``vfio-pci``); None without a link."""
        target = self.link_target(path)
        return None if target is None else target.rpartition("/")[2]

    def link_target(self, path: str) -> str | None:
        """What a symbolic link says (``/proc/1/fd/3`` -> ``/dev/vfio/12``), unresolved; None when it cannot be read."""
        try:
            return os.readlink(self.path(path))
        except OSError:
            return None

    # -- reading -----------------------------------------------------------------------------------------

    def read_text(self, path: str) -> str:
        """The text of a file, undecodable bytes kept as surrogates.

        :raises PassthroughError: ``file_unreadable`` when it cannot be read
        """
        return self.read_bytes(path).decode("utf-8", "surrogateescape")

    def read_bytes(self, path: str) -> bytes:
        """The bytes of a file.

        :raises PassthroughError: ``file_unreadable`` when it cannot be read
        """
        try:
            with open(self.path(path), "rb") as stream:
                return stream.read()
        except OSError as error:
            raise PassthroughError(
                "file_unreadable",
                f"{path} cannot be read: {error.strerror}.",
                "Run the module as root (become: true)." if error.errno == errno.EACCES else "",
                path=path,
            ) from error

    def attribute(self, path: str) -> str | None:
        """The text of a small kernel attribute or file, stripped; None when there is none or it cannot be read now.

        :raises PassthroughError: ``file_unreadable`` for an error that says nothing about the attribute (ENOMEM, …)
        """
        try:
            # Not open(): a big machine has tens of thousands of attributes, and each would cost twice the system calls.
            descriptor = os.open(path if self.root == "/" else self.root + path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                data = os.read(descriptor, _PAGE)
                # sysfs gives an attribute, a page at most, in one piece; other files may come in any number of pieces.
                if data and not (len(data) < _PAGE and path.startswith("/sys/")):
                    pieces = [data]
                    while pieces[-1]:
                        pieces.append(os.read(descriptor, _LONG))
                    data = b"".join(pieces)
            finally:
                os.close(descriptor)
        except OSError as error:
            _ignore_unreadable(path, error)
            return None
        return data.decode("utf-8", "replace").strip()

    @contextlib.contextmanager
    def reader(self, path: str) -> Iterator[Callable[[int, int], bytes]]:
        """Parts of a binary attribute: a function of offset and length, usable inside the ``with`` block.

        It gives fewer bytes than asked for, or none, where the kernel shows no more, and none when the file is not
        there or cannot be read now.

        :raises PassthroughError: ``file_unreadable`` for an error that says nothing about the attribute (ENOMEM, …)
        """
        try:
            descriptor = os.open(self.path(path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            _ignore_unreadable(path, error)
            yield lambda _offset, _length: b""
            return

        def read(offset: int, length: int) -> bytes:
            try:
                return os.pread(descriptor, length, offset)
            except OSError as error:
                _ignore_unreadable(path, error)
                return b""

        try:
            yield read
        finally:
            os.close(descriptor)

    def attributes_in_time(self, paths: Sequence[str], timeout: float = 10.0) -> dict[str, str | None]:
        """Like :meth:`attribute`, of several at once, in a child process with a time limit in seconds for each.

        It is for attributes that the kernel shows only under the device's lock: a driver that hangs holds that lock,
        and whoever reads such an attribute then waits where no signal reaches it.

        :raises PassthroughError: ``attribute_read_timeout`` with ``reboot_required`` and the first ``path`` that was
            not answered; ``file_unreadable``
        """
        lines = child.lines((_as_line(self, path) for path in paths), timeout)
        if len(lines) < len(paths):
            path = paths[len(lines)]
            raise PassthroughError(
                "attribute_read_timeout",
                f"The kernel did not show {path} within {timeout:g} s.",
                "The device's driver hangs in the kernel; look at dmesg, end what uses the device, or reboot the host.",
                path=path,
                reboot_required=True,
            )
        found: dict[str, str | None] = {}
        for path, line in zip(paths, lines):
            answer = json.loads(line)
            if isinstance(answer, list):
                raise PassthroughError("file_unreadable", answer[0], path=path)
            found[path] = answer
        return found

    @contextlib.contextmanager
    def open_binary(self, path: str) -> Iterator[BinaryIO]:
        """A file to be read piece by piece, inside the ``with`` block.

        :raises PassthroughError: ``file_unreadable`` when it cannot be opened
        """
        try:
            descriptor = os.open(self.path(path), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise PassthroughError("file_unreadable", f"{path} cannot be read: {error.strerror}.", path=path) from error
        with open(descriptor, "rb") as stream:
            yield stream

    @contextlib.contextmanager
    def filtered(self, path: str, offset: int, argv: Sequence[str], timeout: float) -> Iterator[BinaryIO]:
        """What a program makes of a file, from an offset on, piece by piece: a decompressor, say.

        The reader sees the end when the program ends, whether it is content or not; a truncated result is what the
        caller has to recognise. After ``timeout`` seconds the program is ended.

        :raises PassthroughError: ``command_missing``, ``file_unreadable``
        """
        program = self.which(argv[0])
        if program is None:
            raise PassthroughError(
                "command_missing",
                f"{argv[0]} is not installed.",
                f"Install the package that has it: {path} cannot be read without.",
                command=list(argv),
            )
        with self.open_binary(path) as source:
            os.lseek(source.fileno(), offset, os.SEEK_SET)
            # pylint: disable-next=ansible-bad-function  # AnsibleModule, whose run_command it is, is not for here
            process = subprocess.Popen(
                [self.path(program), *argv[1:]],
                stdin=source.fileno(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        output = cast(BinaryIO, process.stdout)
        timer = threading.Timer(timeout, process.kill)
        timer.start()
        try:
            yield output
        finally:
            timer.cancel()
            process.kill()
            process.wait()
            output.close()

    # -- writing kernel attributes -----------------------------------------------------------------------

    def write_attribute(self, path: str, value: str, timeout: float = 10.0) -> None:
        """Write ``value`` to a kernel attribute (sysfs), in a child process with a time limit in seconds.

        A write to ``unbind`` or ``drivers_probe`` runs the driver's own code and can block for ever in the
        kernel, where no signal reaches it; the child is then left behind and the caller goes on. It keeps nothing
        of ours open: neither the lock, nor the standard output whose end Ansible waits for.

        :raises PassthroughError: ``attribute_write_failed`` with the kernel's errno name, or
            ``attribute_write_timeout`` with ``reboot_required``
        """
        answer = child.write(self.path(path), value.encode("utf-8", "surrogateescape"), timeout)
        if answer is None:
            raise PassthroughError(
                "attribute_write_timeout",
                f"The kernel did not finish writing {value.strip()!r} to {path} within {timeout:g} s.",
                "The driver hangs in the kernel; look at dmesg, end what uses the device, and reboot the host.",
                path=path,
                value=value.strip(),
                reboot_required=True,
            )
        if answer:
            raise PassthroughError(
                "attribute_write_failed",
                f"The kernel refused {value.strip()!r} for {path}: "
                f"{os.strerror(answer)} ({errno.errorcode.get(answer, answer)}).",
                "dmesg of the host usually says why.",
                path=path,
                value=value.strip(),
                errno=errno.errorcode.get(answer, str(answer)),
            )

    @contextlib.contextmanager
    def temporary_directory(self, purpose: str) -> Iterator[str]:
        """A new directory in ``/run`` for this process only, as the machine sees it; removed with all that is in it.

        What a crash leaves there is gone at the next boot.

        :raises PassthroughError: ``file_unwritable`` when it cannot be made
        """
        try:
            os.makedirs(self.path("/run"), exist_ok=True)
            directory = tempfile.mkdtemp(prefix=f"kvm-passthrough-{purpose}-", dir=self.path("/run"))
        except OSError as error:
            raise PassthroughError(
                "file_unwritable",
                f"No directory can be made in /run: {error.strerror or error}.",
                "/run has to be a writable file system with some space left.",
                path="/run",
            ) from error
        try:
            yield f"/run/{os.path.basename(directory)}"
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    # -- commands ----------------------------------------------------------------------------------------

    def which(self, program: str) -> str | None:
        """The absolute path of a program on this machine, as the machine sees it; None when it is not installed."""
        for directory in SEARCH_PATH:
            candidate = f"{directory}/{program}"
            if os.access(self.path(candidate), os.X_OK) and not self.is_dir(candidate):
                return candidate
        return None

    def run(
        self, argv: Sequence[str], timeout: float = 60.0, stdin: str | None = None, check: bool = True
    ) -> Completed:
        """Run a command given as an argument list, for at most ``timeout`` seconds, with untranslated output.

        :raises PassthroughError: ``command_missing``, ``command_not_started``, ``command_timeout``, and, when ``check``
            is true and the exit status is not 0, ``command_failed`` with the end of what it printed
        """
        shown = " ".join(argv)
        try:
            done = self._runner(argv, timeout, stdin)
        except FileNotFoundError as error:
            raise PassthroughError(
                "command_missing",
                f"{argv[0]} is not installed.",
                f"Install the package that has it: {shown!r} is needed.",
                command=list(argv),
            ) from error
        except OSError as error:
            raise PassthroughError(
                "command_not_started",
                f"{shown!r} could not be started: {error.strerror or error}.",
                "Look at the program's mode and its file system's mount options (noexec).",
                command=list(argv),
            ) from error
        except subprocess.TimeoutExpired as error:
            raise PassthroughError(
                "command_timeout", f"{shown!r} did not end within {timeout:g} s and was stopped.", command=list(argv)
            ) from error
        if check and done.rc != 0:
            printed = (done.stderr.strip() or done.stdout.strip() or "it printed nothing")[-2000:]
            raise PassthroughError(
                "command_failed", f"{shown!r} ended with status {done.rc}: {printed}", command=list(argv), rc=done.rc
            )
        return done

    # -- time --------------------------------------------------------------------------------------------

    def now(self) -> str:
        """The time in UTC, ISO 8601, whole seconds."""
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))


def _ignore_unreadable(path: str, error: OSError) -> None:
    """Go on after an error that says there is nothing to read; raise ``file_unreadable`` for any other."""
    if error.errno not in _UNREADABLE:
        raise PassthroughError("file_unreadable", f"{path} cannot be read: {error.strerror}.", path=path) from error


def _as_line(host: Host, path: str) -> bytes:
    """An attribute as one line of JSON; an error as a list."""
    value: str | list[str] | None
    try:
        value = host.attribute(path)
    except PassthroughError as error:
        value = [str(error)]
    return json.dumps(value).encode() + b"\n"
