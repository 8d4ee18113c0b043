# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""observe -> plan -> apply -> verify, and the way back."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core import files
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError, Problem
from ansible_collections.kvm.passthrough.plugins.module_utils._core.files import FileState
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.lock import LOCK_PATH, exclusive
from ansible_collections.kvm.passthrough.plugins.module_utils._core.plan import Action, Plan, RunCommand
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import Procedure, execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, Record, StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import (
    FilesProcedure,
    Step,
    StepsProcedure,
    at_call,
    failing,
    own,
    steps_taken,
)
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

WANTED = {
    "/etc/changed.conf": own(b"new\n", 0o600),
    "/etc/made/below/new.conf": own(b"made\n"),
    "/etc/removed.conf": FileState(None),
    "/etc/same.conf": own(b"same\n"),
}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(str(tmp_path), clock=lambda: 0)
    for name in ("changed", "removed", "same"):
        files.put(host, f"/etc/{name}.conf", own(f"{name}\n".encode()))
    (tmp_path / "run").mkdir()
    (tmp_path / STATE_PATH[1:]).parents[1].mkdir(parents=True)
    (tmp_path / LOCK_PATH[1:]).touch()
    return host


def _run(host: Host, procedure: Procedure[Any], check_mode: bool = False) -> dict[str, Any]:
    return execute(host, procedure, module="test", check_mode=check_mode, lock_timeout=0)


def _failure(host: Host, procedure: Procedure[Any]) -> dict[str, Any]:
    with pytest.raises(PassthroughError) as caught:
        _run(host, procedure)
    return caught.value.as_result()


# -- what a check predicts -------------------------------------------------------------------------------------


def test_check_run_check_run(host: Host, tmp_path: Path) -> None:
    before = tree_hash(tmp_path, exclude=())
    predicted = _run(host, FilesProcedure(host, WANTED), check_mode=True)
    assert tree_hash(tmp_path, exclude=()) == before
    done = _run(host, FilesProcedure(host, WANTED))
    assert done == predicted
    assert done["changed"] is True
    assert done["missing"] == ["/etc/made/below/new.conf"]
    assert [action["description"] for action in done["actions"]] == [
        "change /etc/changed.conf",
        "write /etc/made/below/new.conf",
        "remove /etc/removed.conf",
    ]
    assert done["diff"][0] == {
        "before_header": "/etc/changed.conf",
        "after_header": "/etc/changed.conf",
        "before": "changed\n",
        "after": "new\n",
    }
    after = tree_hash(tmp_path)
    for check_mode in (True, False):
        again = _run(host, FilesProcedure(host, WANTED), check_mode)
        assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
        assert tree_hash(tmp_path) == after


def test_what_was_changed_is_recorded_with_module_and_time(host: Host) -> None:
    _run(host, FilesProcedure(host, WANTED))
    records = StateStore(host).all("file")
    assert [record.key for record in records] == sorted(set(WANTED) - {"/etc/same.conf"})
    assert {(record.module, record.time, tuple(record.pending)) for record in records} == {
        ("test", "1970-01-01T00:00:00Z", ())
    }
    assert [record.after for record in records] == [files.observe(host, record.key).fingerprint() for record in records]
    assert FileState.from_json(records[0].restore) == own(b"changed\n")


def test_the_way_back_leaves_no_record(host: Host) -> None:
    original = {path: files.observe(host, path) for path in WANTED}
    _run(host, FilesProcedure(host, WANTED))
    _run(host, FilesProcedure(host, original))
    assert not host.exists(STATE_PATH)


def test_a_record_of_what_is_given_back_goes_although_nothing_is_left_to_do(host: Host) -> None:
    """The run that gave it back was killed just before it dropped the record."""
    _run(host, FilesProcedure(host, WANTED))
    procedure = FilesProcedure(host, WANTED)
    procedure.returned = [("file", "/etc/changed.conf")]
    for check_mode, left in ((True, True), (False, False), (False, False)):
        assert not _run(host, procedure, check_mode)["changed"]
        assert (StateStore(host).get("file", "/etc/changed.conf") is not None) is left
    assert StateStore(host).get("file", "/etc/removed.conf") is not None


def test_a_check_needs_no_lock_and_a_run_does(host: Host) -> None:
    with exclusive(host):
        assert _run(host, FilesProcedure(host, WANTED), check_mode=True)["changed"]
        assert _failure(host, FilesProcedure(host, WANTED))["code"] == "locked"


def test_a_record_that_cannot_be_read_stops_check_and_run_alike(host: Host, tmp_path: Path) -> None:
    (tmp_path / STATE_PATH[1:]).parent.mkdir()
    (tmp_path / STATE_PATH[1:]).write_text("{")
    before = tree_hash(tmp_path)
    for check_mode in (True, False):
        with pytest.raises(PassthroughError) as caught:
            _run(host, FilesProcedure(host, WANTED), check_mode)
        assert caught.value.code == "state_unreadable"
    assert tree_hash(tmp_path) == before
    assert not _run(host, FilesProcedure(host, {}))["changed"]  # nothing to do, nothing to record


def test_a_request_that_is_refused_changes_nothing(host: Host, tmp_path: Path) -> None:
    class Refusing(FilesProcedure):
        def plan(self, observed: dict[str, FileState]) -> Plan:
            raise PassthroughError.of([Problem("one", "1."), Problem("two", "2.")])

    before = tree_hash(tmp_path)
    result = _failure(host, Refusing(host, WANTED))
    assert [problem["code"] for problem in result["problems"]] == ["one", "two"]
    assert "undone" not in result
    assert tree_hash(tmp_path) == before


def test_what_is_known_only_afterwards_is_recorded(host: Host) -> None:
    class Chosen(Step):
        """Like an address that libvirt chooses."""

        def records(self) -> Sequence[Record]:
            return [Record("step", self.target, "off", "on, 00:05.0" if steps_taken(host) else "on")]

    _run(host, StepsProcedure(host, [Chosen("a")]))
    (record,) = StateStore(host).all("step")
    assert (record.before, record.after, record.module) == ("off", "on, 00:05.0", "test")


# -- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(5))
def test_whichever_action_fails_those_before_it_are_undone_in_reverse_order(host: Host, number: int) -> None:
    steps = [Step(name) for name in "abcde"]
    steps[number] = Step("abcde"[number], fails=PassthroughError("broken", "It broke.", "Repair it.", device="x"))
    StateStore(host).note(Record("step", "a", "before all", "off"))
    state = host.read_bytes(STATE_PATH)
    result = _failure(host, StepsProcedure(host, steps))
    done = list("abcde"[:number])
    assert steps_taken(host) == done + [f"undo {name}" for name in reversed(done)]
    assert host.read_bytes(STATE_PATH) == state
    assert (result["code"], result["device"], result["remedy"]) == ("broken", "x", "Repair it.")
    assert result["failed_action"] == f"step {'abcde'[number]}"
    assert result["undone"] == [f"step {name}" for name in reversed(done)]
    assert result["not_undone"] == []
    what = f"Undone: {'; '.join(result['undone'])}." if done else "Nothing else had been changed."
    assert result["msg"] == f"Failed to step {'abcde'[number]}: It broke. {what} Repair it."


def test_a_failure_restores_the_whole_tree(host: Host, tmp_path: Path) -> None:
    before = tree_listing(tmp_path)
    broken = Step("last", fails=PassthroughError("broken", "It broke."))
    result = _failure(host, FilesProcedure(host, WANTED, [broken]))
    assert len(result["undone"]) == 3
    assert tree_listing(tmp_path) == before


def test_derived_files_are_made_again_last_in_their_order(host: Host) -> None:
    steps = [
        Step("source"),
        Step("image", regenerates=True),
        Step("other"),
        Step("menu", regenerates=True),
        Step("last", fails=PassthroughError("broken", "It broke.")),
    ]
    result = _failure(host, StepsProcedure(host, steps))
    assert result["undone"] == ["step other", "step source", "step image", "step menu"]


def test_an_action_that_failed_half_way_is_undone_too(host: Host) -> None:
    broken = PassthroughError("broken", "It broke.")
    steps = [Step("source"), Step("image", regenerates=True, partial=True, fails=broken)]
    result = _failure(host, StepsProcedure(host, steps))
    assert result["undone"] == ["step source", "step image"]


def test_derived_files_follow_their_source_back(tmp_path: Path) -> None:
    """``update-grub`` writes grub.cfg, and only then its result turns out to be wrong."""

    def runner(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        (tmp_path / "derived").write_bytes(b"from " + (tmp_path / "source").read_bytes())
        return Completed(tuple(argv), 0, "", "")

    def check(_unused: Host) -> None:
        raise PassthroughError("wrong", "The menu lacks the parameter.")

    host = Host(str(tmp_path), runner)
    (tmp_path / "source").write_bytes(b"old")
    (tmp_path / "derived").write_bytes(b"from old")
    action = RunCommand(["update-grub"], target="/derived", check=check)
    result = _failure(host, FilesProcedure(host, {"/source": own(b"new")}, [action]))
    assert result["undone"] == ["change /source", "run update-grub"]
    assert (tmp_path / "derived").read_bytes() == b"from old"


def test_an_undo_that_fails_is_told_and_stays_recorded(host: Host) -> None:
    steps = [
        Step("a"),
        Step("b", undo_fails=PassthroughError("stuck", "The driver hangs.")),
        Step("c", undo_fails=RuntimeError("odd")),
        Step("d", fails=PassthroughError("broken", "It broke.")),
    ]
    result = _failure(host, StepsProcedure(host, steps))
    assert result["code"] == "broken"
    assert result["undone"] == ["step a"]
    assert [(problem["target"], problem["before"], problem["after"]) for problem in result["not_undone"]] == [
        ("c", "off", "on"),
        ("b", "off", "on"),
    ]
    assert "Could not undo 'step b': The driver hangs." in result["msg"]
    assert "Could not undo 'step c': odd" in result["msg"]
    assert [problem["code"] for problem in result["problems"]] == ["broken", "not_undone", "not_undone"]
    assert steps_taken(host) == ["a", "b", "c", "undo a"]
    assert [record.key for record in StateStore(host).all("step")] == ["b", "c"]


def test_a_thing_that_is_stuck_keeps_all_its_records(host: Host) -> None:
    """Two actions on one thing, of which the later cannot be undone: the first one's note has to stay as well."""
    steps = [Step("a"), Step("a", undo_fails=RuntimeError()), Step("b", fails=PassthroughError("broken", "It broke."))]
    _failure(host, StepsProcedure(host, steps))
    assert [record.key for record in StateStore(host).all("step")] == ["a"]


def test_a_change_that_does_not_hold_is_undone(host: Host) -> None:
    result = _failure(host, StepsProcedure(host, [Step("a"), Step("b")], holds=False))
    assert result["code"] == "not_converged"
    assert "step a; step b would still be needed" in result["msg"]
    assert result["failed_action"] is None
    assert result["undone"] == ["step b", "step a"]
    assert steps_taken(host) == ["a", "b", "undo b", "undo a"]
    assert not host.exists(STATE_PATH)


def test_a_failing_verification_undoes_everything(host: Host, tmp_path: Path) -> None:
    class Blind(FilesProcedure):
        def observe(self) -> dict[str, FileState]:
            if files.observe(self.host, "/etc/changed.conf") == WANTED["/etc/changed.conf"]:
                raise PassthroughError("blind", "Cannot see.")
            return super().observe()

    before = tree_listing(tmp_path)
    assert _failure(host, Blind(host, WANTED))["code"] == "blind"
    assert tree_listing(tmp_path) == before


def test_a_defect_is_named_as_one_after_everything_was_undone(host: Host) -> None:
    with pytest.raises(PassthroughError) as caught:
        _run(host, StepsProcedure(host, [Step("a"), Step("b", fails=KeyError("oops"))]))
    assert caught.value.code == "internal_error"
    assert "KeyError: 'oops'" in str(caught.value)
    assert "report it" in str(caught.value)
    assert caught.value.extra["undone"] == ["step a"]
    assert isinstance(caught.value.__cause__.__cause__ if caught.value.__cause__ else None, KeyError)


def test_all_problems_of_an_action_are_told(host: Host) -> None:
    error = PassthroughError.of([Problem("one", "1."), Problem("two", "2.")])
    result = _failure(host, StepsProcedure(host, [Step("a", fails=error)]))
    assert [problem["code"] for problem in result["problems"]] == ["one", "two"]


def test_a_full_disk_at_any_call_restores_everything_or_succeeds(host: Host, tmp_path: Path) -> None:
    before = tree_listing(tmp_path)
    with at_call(0, lambda _unused: None) as calls:
        _run(host, FilesProcedure(host, WANTED))
    original = {"/etc/changed.conf": own(b"changed\n"), "/etc/removed.conf": own(b"removed\n")}
    number = len(calls)

    failed = 0
    for place in range(1, number + 1):
        _run(host, FilesProcedure(host, {**original, "/etc/made/below/new.conf": FileState(None)}))
        for name in ("etc/made/below", "etc/made"):
            if (tmp_path / name).exists():
                (tmp_path / name).rmdir()
        assert tree_listing(tmp_path) == before
        caught = None
        try:
            with at_call(place, failing(errno.ENOSPC)):
                _run(host, FilesProcedure(host, WANTED))
        except PassthroughError as error:
            caught = error
        if caught is not None:
            failed += 1
            assert caught.extra.get("not_undone", []) == []
            assert tree_listing(tmp_path) == before, f"call {place}: {caught}"
    assert failed > number / 2


# -- being asked to end ----------------------------------------------------------------------------------------


class Signalling(Step):
    """A step during which this process gets a signal."""

    def __init__(self, name: str, number: signal.Signals) -> None:
        super().__init__(name)
        self._number = number

    def apply(self, host: Host) -> None:
        os.kill(os.getpid(), self._number)
        super().apply(host)


@pytest.fixture
def _heeded_signals() -> Iterator[None]:
    """The signals as a terminal has them; nohup and a shell's ``&`` start the tests with some of them ignored."""
    former = {number: signal.signal(number, signal.default_int_handler) for number in ENDING}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_heeded_signals")
@pytest.mark.parametrize("number", ENDING)
def test_a_signal_lets_the_action_end_and_then_undoes_everything(host: Host, number: signal.Signals) -> None:
    handlers = [signal.getsignal(one) for one in ENDING]
    result = _failure(host, StepsProcedure(host, [Step("a"), Signalling("b", number), Step("c")]))
    assert result["code"] == "interrupted"
    assert number.name in result["msg"]
    assert steps_taken(host) == ["a", "b", "undo b", "undo a"]
    assert not host.exists(STATE_PATH)
    assert [signal.getsignal(one) for one in ENDING] == handlers


def test_a_signal_during_the_last_action_too(host: Host) -> None:
    result = _failure(host, StepsProcedure(host, [Step("a"), Signalling("b", signal.SIGTERM)]))
    assert (result["code"], result["failed_action"]) == ("interrupted", None)
    assert steps_taken(host) == ["a", "b", "undo b", "undo a"]


def test_a_signal_that_is_ignored_stays_so(host: Host) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert _run(host, StepsProcedure(host, [Signalling("a", signal.SIGHUP), Step("b")]))["changed"]
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_another_thread_may_run_a_procedure(host: Host) -> None:
    results: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: results.append(_run(host, FilesProcedure(host, WANTED))))
    thread.start()
    thread.join()
    assert results[0]["changed"]


@pytest.mark.parametrize("ending", [SystemExit(1), KeyboardInterrupt()])
def test_an_end_from_within_undoes_everything_and_goes_on(host: Host, ending: BaseException) -> None:
    steps: list[Action] = [Step("a"), Step("b", fails=ending)]
    with pytest.raises(type(ending)):
        _run(host, StepsProcedure(host, steps))
    assert steps_taken(host) == ["a", "undo a"]
    assert not host.exists(STATE_PATH)
