# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill a whole run at every file operation, every command, and at moments inside of commands; judge what is left.

A test says how to make the machine, what the run is and which files have to be whole (:class:`Case`), makes a list of
moments (:func:`points`), and gets back everything that is wrong (:func:`bad_outcomes`). The run happens in a child
process that is ended by SIGKILL, so nothing of it can clean up.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import shutil
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.files import TEMPORARY
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore

from .procedures import at_call
from .tree import tree_listing

PROGRESS = r"""
progress_made=0
progress () {
  progress_made=$((progress_made + 1))
  if [ -n "$KILL_LOG" ]; then echo "$progress_made" >>"$KILL_LOG"; fi
  if [ "$progress_made" = "$KILL_AT" ]; then
    case $KILL_WHOM in
      module) kill -KILL "$KILL_MODULE" ;;
      command) kill -KILL $$ ;;
      both) kill -KILL "$KILL_MODULE" $$ ;;
    esac
  fi
}
"""
"""For shell scripts that stand in for a command: they call ``progress`` whenever being killed then could matter."""

VICTIMS = ("module", "command", "both")
"""Who is killed inside of a command: the module (the command goes on), the command (the module goes on), all."""

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

STATE = "var/lib/kvm-passthrough"

COUNTED = "killed"
"""The property of a test's report that has what was killed, how often, and how many of the outcomes were bad."""


def progress_environment() -> dict[str, str]:
    """What a stand-in has to have in its environment."""
    return {name: value for name, value in os.environ.items() if name.startswith("KILL_")}


class Machine(Protocol):
    """A host in a directory."""

    @property
    def root(self) -> Path:
        """The directory."""

    @property
    def host(self) -> Host:
        """The host as code under test sees it."""


@dataclass(frozen=True)
class Case:
    """A run that is to be killed."""

    prepare: Callable[[Path], Any]
    """Make the machine in a directory that is not there yet: a :class:`Machine`."""
    run: Callable[[Any], None]
    """The run, from the first look at the machine to the last; on a machine that is as wanted it changes nothing."""
    files: Sequence[str]
    """What must always be complete and either old or new; at least one of them is changed by the run."""
    disturb: Callable[[Any], None] = field(default=lambda _unused: None)
    """Something that makes the run fail, so that it rolls back and is killed on that way."""


@dataclass(frozen=True)
class Point:
    """A moment at which to kill: just before the ``call``-th call of the module, or at that progress of a command.

    With an ``error`` nobody is killed: the call fails with this errno.
    """

    call: int = 0
    progress: int = 0
    whom: str = "module"
    error: int = 0

    @property
    def fails(self) -> bool:
        """Whether the module lives on, and has to bring everything back."""
        return bool(self.error) or self.whom == "command"


def points(case: Case, scratch: Path) -> list[Point]:
    """Every moment at which the run can be killed; it is watched once, to the end it comes to by itself."""
    machine = case.prepare(scratch / "watched")
    log = scratch / "progress"
    with _without_flushing(), mock.patch.dict(os.environ, {"KILL_LOG": str(log)}):
        case.disturb(machine)
        with at_call(0, lambda _unused: None) as calls, contextlib.suppress(PassthroughError):
            case.run(machine)
    progress = {int(line) for line in log.read_text().split()} if log.exists() else set()
    found = [Point(call=number) for number in range(1, len(calls) + 1)]
    return found + [Point(progress=number, whom=whom) for number in sorted(progress) for whom in VICTIMS]


def errors(case: Case, number: int, scratch: Path) -> list[Point]:
    """Every file operation, to fail with this errno."""
    machine = case.prepare(scratch / "watched")
    with _without_flushing(), at_call(0, lambda _unused: None) as calls:
        case.run(machine)
    return [Point(call=place, error=number) for place, name in enumerate(calls, 1) if name != "run"]


def bad_outcomes(case: Case, moments: Sequence[Point], scratch: Path) -> list[str]:
    """Kill at each of these moments, look, run again, look again; return what is wrong, nothing when all is well."""
    old = _Picture.of(case.prepare(scratch / "old"))
    finished = case.prepare(scratch / "new")
    with _without_flushing():
        case.run(finished)
    new = _Picture.of(finished)
    assert any(old.tree[name.lstrip("/")] != new.tree[name.lstrip("/")] for name in case.files)

    def outcomes() -> Iterator[str]:
        for number, point in enumerate(moments):
            machine = case.prepare(scratch / str(number))
            yield from (f"{point}: {text}" for text in _outcome(case, point, machine, old, new))
            shutil.rmtree(machine.root, ignore_errors=True)

    return _supervised(outcomes)


def _supervised(work: Callable[[], Iterable[str]]) -> list[str]:
    """What ``work`` yields in a process of its own, which can wait for all that a killed run leaves running."""
    reading, writing = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        os.close(reading)
        try:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            gc.freeze()  # what is never looked at is never copied, neither here nor in any child
            try:
                found = list(work())
            except BaseException:
                found = [traceback.format_exc()]
            with os.fdopen(writing, "w") as stream:
                json.dump(found, stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        answer = stream.read()
    os.waitpid(supervisor, 0)
    result: list[str] = json.loads(answer)
    return result


@dataclass(frozen=True)
class _Picture:
    """A machine at rest: its tree without what is gone at the next boot, and its records."""

    tree: dict[str, str]
    records: dict[tuple[str, str], Any]

    @classmethod
    def of(cls, machine: Machine) -> _Picture:
        """Look at a machine; fails when the records cannot be read."""
        store = StateStore(machine.host)
        records = {
            name: (record.before, record.after, record.restore, record.diverged)
            for name, record in store._records.items()
        }
        return cls(tree_listing(machine.root, exclude=("run", STATE)), records)


def _outcome(case: Case, point: Point, machine: Machine, old: _Picture, new: _Picture) -> Iterator[str]:
    status = _run_and_kill(case, point, machine)
    if status != (0 if point.fails else signal.SIGKILL):
        yield f"the run ended with {status}"
    try:
        left = _Picture.of(machine)
    except PassthroughError as error:
        yield f"the record is damaged: {error}"
        return
    for name in sorted({*old.tree, *new.tree, *left.tree}):
        now = left.tree.get(name)
        if now not in (old.tree.get(name), new.tree.get(name)) and not name.endswith(TEMPORARY):
            yield f"/{name} is neither old nor new: {now}"
    if point.fails and left != old and (not point.error or left != new):
        yield "the run failed, but did not bring everything back"
    try:
        with _without_flushing():
            case.run(machine)
    except PassthroughError as error:
        yield f"the next run fails: {error}"
        return
    healed = _Picture.of(machine)
    for name in sorted({*new.tree, *healed.tree}):
        if healed.tree.get(name) != new.tree.get(name):
            yield f"after the next run, /{name} is {healed.tree.get(name)} and not {new.tree.get(name)}"
    if healed.records != new.records:
        yield f"after the next run, the record says {healed.records} and not {new.records}"


def _run_and_kill(case: Case, point: Point, machine: Machine) -> int:
    """The exit status of the run; 0 also when it failed with a proper error. What it started has ended, too."""
    _unused, ended = os.waitpid(_start(case, point, machine), 0)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return abs(os.waitstatus_to_exitcode(ended))


def _start(case: Case, point: Point, machine: Machine) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.update(KILL_AT=str(point.progress), KILL_WHOM=point.whom, KILL_MODULE=str(os.getpid()))
        case.disturb(machine)
        with _without_flushing(), at_call(point.call, lambda _unused: _strike(point)):
            case.run(machine)
        status = 0
    except PassthroughError as error:
        status = 2 if error.code == "internal_error" else 0
    finally:
        os._exit(status)


def _strike(point: Point) -> None:
    if point.error:
        raise OSError(point.error, os.strerror(point.error))
    os.kill(os.getpid(), signal.SIGKILL)


def _without_flushing() -> contextlib.AbstractContextManager[Any]:
    """Flushing matters when the power fails, not when a process ends, and would take most of the time."""
    return mock.patch.object(os, "fsync", return_value=None)
