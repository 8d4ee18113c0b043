# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small real procedures on a directory tree, and a way to let something go wrong at any single system call."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable
from unittest import mock

from ansible_collections.kvm.passthrough.plugins.module_utils._core import files
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.files import FileState
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.plan import Action, Plan, WriteFile
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import Record

WRITING_CALLS = (
    "open",
    "write",
    "fsync",
    "rename",
    "unlink",
    "mkdir",
    "rmdir",
    "chmod",
    "fchmod",
    "fchown",
    "ftruncate",
    "pwrite",
)
"""The functions of ``os`` through which the core changes files (``open`` also reads, which does no harm here)."""


def own(content: bytes | None, mode: int = 0o644) -> FileState:
    """A file of the user who runs the tests."""
    return FileState(None) if content is None else FileState(content, mode, os.geteuid(), os.getegid())


_unwatched = 0


@contextlib.contextmanager
def unwatched() -> Iterator[None]:
    """For what stands in for a kernel: it does in one step what takes a tree many, and is not killed on the way."""
    global _unwatched
    _unwatched += 1
    try:
        yield
    finally:
        _unwatched -= 1


@contextlib.contextmanager
def at_call(number: int, strike: Callable[[str], None]) -> Iterator[list[str]]:
    """Call ``strike`` just before the ``number``-th writing call or command of the host (from 1); yield all names.

    ``strike`` is given the name of the function of ``os``, or ``run``. What is :func:`unwatched` does not count.
    """
    called: list[str] = []

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if not _unwatched:
                called.append(name)
                if len(called) == number:
                    strike(name)
            return function(*arguments, **named)

        return call

    with contextlib.ExitStack() as stack:
        for name in WRITING_CALLS:
            stack.enter_context(mock.patch.object(os, name, watched(name, getattr(os, name))))
        stack.enter_context(mock.patch.object(Host, "run", watched("run", Host.run)))
        yield called


def failing(number: int) -> Callable[[str], None]:
    """A ``strike`` for :func:`at_call`: the call fails with this errno."""

    def fail(_name: str) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@contextlib.contextmanager
def unwritable(folder: Path, number: int) -> Iterator[None]:
    """Nothing below this folder can be opened for writing; the errno tells why."""
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if str(path).startswith(str(folder)) and flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **named)

    with mock.patch.object(os, "open", refuse):
        yield


class FilesProcedure:
    """Bring several files into the given states; the smallest procedure that is like a real one."""

    def __init__(self, host: Host, wanted: Mapping[str, FileState], more: Sequence[Action] = ()) -> None:
        """:param more: actions to append as long as a file differs"""
        self.host = host
        self.wanted = wanted
        self.more = more
        self.returned: list[tuple[str, str]] = []
        """Kind and key of what counts as given back, see :class:`Plan`."""

    def observe(self) -> dict[str, FileState]:
        return {path: files.observe(self.host, path) for path in self.wanted}

    def plan(self, observed: dict[str, FileState]) -> Plan:
        plan = Plan(returned=list(self.returned))
        for path, wanted in self.wanted.items():
            if observed[path] != wanted:
                plan.add(WriteFile(path, observed[path], wanted))
        if plan.changed:
            plan.extend(self.more)
        return plan

    def report(self, observed: dict[str, FileState], plan: Plan) -> dict[str, Any]:
        return {
            "paths": sorted(self.wanted),
            "missing": sorted(p for p, now in observed.items() if now.content is None),
        }


class Step(Action):
    """Add a name to a log file of the host, or raise; undo adds ``undo NAME``. What happened, and when, is then read
    from the log."""

    LOG = "/log"

    def __init__(
        self,
        name: str,
        *,
        fails: BaseException | None = None,
        undo_fails: BaseException | None = None,
        regenerates: bool = False,
        partial: bool = False,
    ) -> None:
        self.description = f"step {name}"
        self.target = name
        self.before = "off"
        self.after = "on"
        self.regenerates = regenerates
        self._fails = fails
        self._undo_fails = undo_fails
        self._leaves = partial

    def apply(self, host: Host) -> None:
        self.partial = self._leaves
        if self._fails is not None:
            raise self._fails
        self._log(host, self.target)

    def undo(self, host: Host) -> None:
        if self._undo_fails is not None:
            raise self._undo_fails
        self._log(host, f"undo {self.target}")

    def records(self) -> Sequence[Record]:
        return [Record("step", self.target, "off", "on")]

    def _log(self, host: Host, line: str) -> None:
        with open(host.path(self.LOG), "a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")


class StepsProcedure:
    """Take the given steps unless all were taken."""

    def __init__(self, host: Host, steps: Sequence[Action], *, holds: bool = True) -> None:
        """:param holds: whether the host shows the change afterwards"""
        self.host = host
        self.steps = steps
        self.holds = holds

    def observe(self) -> list[str]:
        return steps_taken(self.host)

    def plan(self, observed: list[str]) -> Plan:
        done = self.holds and all(step.target in observed for step in self.steps)
        return Plan([] if done else list(self.steps))

    def report(self, observed: list[str], plan: Plan) -> dict[str, Any]:
        return {"taken": observed}


def steps_taken(host: Host) -> list[str]:
    """The lines of the log of :class:`Step`."""
    try:
        return host.read_text(Step.LOG).splitlines()
    except PassthroughError:
        return []
