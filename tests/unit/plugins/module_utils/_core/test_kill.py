# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any system call leaves whole files, and a record that explains them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core import files
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.files import FileState
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import FilesProcedure, Step, at_call, own
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

ORIGINAL = {
    "/etc/changed.conf": own(b"original\n"),
    "/etc/again.conf": own(b"original\n"),
    "/etc/removed.conf": own(b"original\n", 0o600),
    "/etc/made/new.conf": FileState(None),
}
FIRST = {"/etc/again.conf": own(b"first\n")}
"""An earlier run of ours, so that one file has a record already."""
SECOND = {
    "/etc/changed.conf": own(b"second\n"),
    "/etc/again.conf": own(b"second\n"),
    "/etc/removed.conf": FileState(None),
    "/etc/made/new.conf": own(b"second\n"),
}
BEFORE = {**ORIGINAL, **FIRST}
STATE = "var/lib/kvm-passthrough/"


def _execute(host: Host, wanted: dict[str, FileState], *more: Step) -> None:
    execute(host, FilesProcedure(host, wanted, more), module="test", check_mode=False, lock_timeout=0)


def _prepared(root: Path) -> Host:
    root.mkdir()
    host = Host(str(root), clock=lambda: 0)
    for path, state in ORIGINAL.items():
        files.put(host, path, state)
    _execute(host, FIRST)
    return host


def _killed_at(number: int, host: Host, *more: Step) -> bool:
    """Run in a child that ends itself just before that call; return whether it came so far."""
    child = os.fork()
    if child == 0:
        try:
            with at_call(number, lambda _unused: os.kill(os.getpid(), signal.SIGKILL)):
                _execute(host, SECOND, *more)
        except PassthroughError:
            pass
        finally:
            os._exit(0)
    _unused, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _check(host: Host, number: int) -> None:
    """Every file is whole, and the record knows what was there first and accounts for what is there now."""
    store = StateStore(host)  # readable at any instant
    for path in SECOND:
        now = files.observe(host, path)
        assert now in (BEFORE[path], SECOND[path]), f"killed at call {number}: {path} is {now}"
        record = store.get("file", path)
        if now != ORIGINAL[path]:
            assert record is not None, f"killed at call {number}: nothing is known of {path}"
        if record is not None:
            assert FileState.from_json(record.restore) == ORIGINAL[path]
            assert record.explains(now.fingerprint()), f"killed at call {number}: {path} is taken for another's"
            assert not record.diverged


def _plain(root: Path) -> dict[str, str]:
    """The tree but for the record, which may know of more, and for leftovers."""
    return {
        name: what for name, what in tree_listing(root).items() if not name.startswith(STATE) and not _is_left(name)
    }


def _is_left(name: str) -> bool:
    """Whether it is a temporary file, which goes when its file is written again, and whose name no tool looks at."""
    return os.path.basename(name).startswith(".") and name.endswith(files.TEMPORARY)


@pytest.mark.parametrize("fails", [False, True], ids=["applying", "rolling back"])
def test_killed_anywhere_and_run_again(tmp_path: Path, fails: bool) -> None:
    reference = _prepared(tmp_path / "reference")
    _execute(reference, SECOND)
    expected = tree_listing(tmp_path / "reference")
    more = [Step("z", fails=PassthroughError("broken", "It broke."))] if fails else []
    number = 0
    while True:
        number += 1
        root = tmp_path / f"killed{number}"
        host = _prepared(root)
        if not _killed_at(number, host, *more):
            break
        _check(host, number)
        _execute(host, SECOND)  # the lock is free, leftovers are cleaned up, and the result is the same
        _check(host, number)
        assert _plain(root) == _plain(tmp_path / "reference"), f"killed at call {number}"
        if not fails:  # every file was written again
            assert [name for name in tree_listing(root) if _is_left(name) and not name.startswith(STATE)] == []
        wanted = {record.key: (record.before, record.restore) for record in StateStore(reference).all("file")}
        found = {record.key: (record.before, record.restore) for record in StateStore(host).all("file")}
        assert found == wanted
    if not fails:
        assert tree_listing(root) == expected
    assert number > 40
