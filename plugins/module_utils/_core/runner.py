# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""observe -> plan -> apply -> verify: the one way in which anything of this collection changes a host."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from .errors import PassthroughError, Problem
from .host import Host
from .lock import exclusive
from .plan import Action, Plan
from .state import Record, StateStore

Observation = TypeVar("Observation")


class Procedure(Protocol[Observation]):
    """What a module does, in parts that the runner puts together.

    ``observe`` and ``plan`` never write. ``plan`` raises :class:`PassthroughError` for everything that is wrong
    with the request, all of it at once, before anything is touched.
    """

    def observe(self) -> Observation:
        """Read the host."""

    def plan(self, observed: Observation) -> Plan:
        """What is to be done; empty when the host is as wanted."""

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        """The module's own result fields, computed from what was observed and what is planned.

        It is called once, before anything is applied, in check mode and in a run alike: what a check predicts
        is therefore what a run returns. The runner proves that it came true.
        """


def execute(
    host: Host, procedure: Procedure[Any], *, module: str, check_mode: bool, lock_timeout: float = 60.0
) -> dict[str, Any]:
    """Carry out a procedure; return the module's result (``changed``, ``actions``, ``diff`` and its own fields).

    After the actions were applied the host is observed and planned again: a plan that is not empty then means
    that a change did not hold, and everything is undone.

    :param module: the module's name, for the record of changes
    :raises PassthroughError: with ``undone``, ``not_undone`` and ``failed_action`` beside the problem
        when an action failed
    """
    guard = contextlib.nullcontext() if check_mode else exclusive(host, lock_timeout)
    with guard:
        observed = procedure.observe()
        plan = procedure.plan(observed)
        result = {
            **procedure.report(observed, plan),
            "changed": plan.changed,
            "actions": plan.as_result(),
            "diff": plan.diff(),
        }
        if plan.changed or plan.returned:
            store = StateStore(host)  # in check mode too: one that cannot be read would stop the run
            if not check_mode:
                _apply(host, procedure, plan, store, module)
        if not check_mode:
            with contextlib.suppress(PassthroughError):  # the run is complete; a later one sweeps as well
                StateStore(host).sweep()
    return result


def _apply(host: Host, procedure: Procedure[Any], plan: Plan, store: StateStore, module: str) -> None:
    applied: list[Action] = []
    noted: list[_Noted] = []
    current: Action | None = None
    with deferred_signals() as received:
        try:
            for current in plan.actions:
                _stop_when(received)
                for kind, key in current.forgets():
                    noted.append(_Noted(current, (kind, key), store.forget(kind, key)))
                for record in current.records():
                    stamped = replace(record, module=module, time=host.now())
                    noted.append(_Noted(current, (record.kind, record.key), store.note(stamped)))
                current.apply(host)
                applied.append(current)
            current = None
            _stop_when(received)
            # Records are complete after this only, so which of them are to be forgotten shows in the next run.
            leftover = [action for action in procedure.plan(procedure.observe()).actions if not action.forgets()]
            if leftover:
                raise PassthroughError(
                    "not_converged",
                    "The changes were made, but the host does not show them: "
                    + "; ".join(action.description for action in leftover)
                    + " would still be needed.",
                    "Something else on the host (a service, another tool) sets it back; find it before you try again.",
                )
            store.settle((record for action in applied for record in action.records()), plan.returned)
        except BaseException as error:
            if current is not None and current.partial:
                applied.append(current)
            undone, failures = _roll_back(host, applied)
            failures += _put_records_back(store, noted, [action for action, _unused in failures])
            if not isinstance(error, Exception):
                raise  # somebody ends this process on purpose
            if not isinstance(error, PassthroughError):
                cause = error
                error = PassthroughError(
                    "internal_error",
                    f"An unexpected {type(cause).__name__}: {cause}.",
                    "This is a defect of the collection; please report it.",
                )
                error.__cause__ = cause
            raise _explain(error, current, undone, [problem for _unused, problem in failures]) from error


@dataclass(frozen=True)
class _Noted:
    """What the store held under a name before an action noted or forgot it."""

    action: Action
    name: tuple[str, str]
    earlier: Record | None


@contextlib.contextmanager
def deferred_signals() -> Iterator[list[signal.Signals]]:
    """Collect the signals that ask this process to end, instead of ending anywhere in the middle of a change.

    Every action is limited in time, so the runner looks at the list between two actions, and rolls back.
    """
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield received
        return
    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in former.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda caught, _frame: received.append(signal.Signals(caught)))
    try:
        yield received
    finally:
        for number, handler in former.items():
            if handler is not None:  # one that was not set from Python cannot be set again
                signal.signal(number, handler)


def _stop_when(received: list[signal.Signals]) -> None:
    if received:
        raise PassthroughError(
            "interrupted",
            f"The run was asked to end ({received[0].name}) before all changes were made.",
            "Run the module again to make them.",
        )


def _roll_back(host: Host, applied: list[Action]) -> tuple[list[str], list[tuple[Action, Problem]]]:
    """Undo in reverse order, derived files last; return what was undone, and what could not be."""
    undone: list[str] = []
    failures: list[tuple[Action, Problem]] = []
    order = [action for action in reversed(applied) if not action.regenerates]
    order += [action for action in applied if action.regenerates]
    for action in order:
        try:
            action.undo(host)
            undone.append(action.description)
        except Exception as error:
            failures.append((action, _not_undone(action, f"Could not undo {action.description!r}: {error}", error)))
    return undone, failures


def _put_records_back(store: StateStore, noted: list[_Noted], stuck: list[Action]) -> list[tuple[Action, Problem]]:
    """Forget the changes that were undone; those of ``stuck`` actions are still there, and so stay recorded."""
    failures: list[tuple[Action, Problem]] = []
    kept: set[tuple[str, str]] = set()
    for entry in reversed(noted):
        if any(entry.action is action for action in stuck):
            kept.add(entry.name)
        if entry.name in kept:
            continue
        try:
            store.put_back(*entry.name, entry.earlier)
        except Exception as error:
            text = f"The record of {entry.action.description!r} could not be removed, though it was undone: {error}"
            failures.append((entry.action, _not_undone(entry.action, text, error)))
    return failures


def _not_undone(action: Action, text: str, error: Exception) -> Problem:
    details = {"target": action.target, "before": action.before, "after": action.after}
    if isinstance(error, PassthroughError) and _asks_for_reboot(error.problems):
        details["reboot_required"] = True
    return Problem("not_undone", text, details=details)


def _asks_for_reboot(problems: Iterable[Problem]) -> bool:
    return any(problem.details.get("reboot_required") for problem in problems)


def _explain(
    error: PassthroughError, failed: Action | None, undone: list[str], not_undone: list[Problem]
) -> PassthroughError:
    """The error with what became of the other actions, as text and as fields."""
    first = error.problems[0]
    parts = [f"Failed to {failed.description}:" if failed is not None else "", first.message]
    if undone:
        parts.append(f"Undone: {'; '.join(undone)}.")
    elif not not_undone:
        parts.append("Nothing else had been changed.")
    problems = [Problem(first.code, " ".join(part for part in parts if part), first.remedy, first.details)]
    explained = PassthroughError.of([*problems, *error.problems[1:], *not_undone])
    explained.extra = {
        **error.extra,
        "failed_action": failed.description if failed is not None else None,
        "undone": undone,
        "not_undone": [problem.as_result() for problem in not_undone],
    }
    if _asks_for_reboot(explained.problems):  # whichever of them it is that hangs
        explained.extra["reboot_required"] = True
    return explained
