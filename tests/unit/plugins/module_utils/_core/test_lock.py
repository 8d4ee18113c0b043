# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs on one host exclude each other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core import lock
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.tests.unit.support.places import COLLECTIONS

HOLDER = """
import sys, time
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.lock import exclusive
with exclusive(Host(sys.argv[1]), timeout=5):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def _holder(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([COLLECTIONS, *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_another_process_has_to_wait_and_is_told_for_whom(host: Host, tmp_path: Path) -> None:
    with _holder(tmp_path) as holder:
        started = time.monotonic()
        with pytest.raises(PassthroughError) as caught, lock.exclusive(host, timeout=0.3):
            pytest.fail("two at the same time")
        assert 0.3 <= time.monotonic() - started < 2
        assert caught.value.code == "locked"
        assert f"(process {holder.pid})" in str(caught.value)
        assert "for more than 0.3 s" in str(caught.value)
        holder.communicate("")
    with lock.exclusive(host, timeout=0):
        pass


def test_waiting_long_enough_is_rewarded(host: Host, tmp_path: Path) -> None:
    with _holder(tmp_path) as holder:
        assert holder.stdin is not None
        with subprocess.Popen(["sh", "-c", f"sleep 0.3; kill {holder.pid}"]), lock.exclusive(host, timeout=10):
            pass


def test_a_killed_holder_leaves_no_lock(host: Host, tmp_path: Path) -> None:
    with _holder(tmp_path) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with lock.exclusive(host, timeout=1):
            assert (tmp_path / lock.LOCK_PATH[1:]).read_text() == f"{os.getpid()}\n"


def test_an_exception_frees_it(host: Host) -> None:
    with pytest.raises(ZeroDivisionError), lock.exclusive(host):
        raise ZeroDivisionError
    with lock.exclusive(host, timeout=0):
        pass


def test_commands_do_not_inherit_it(host: Host) -> None:
    with lock.exclusive(host):
        process = subprocess.Popen(["sleep", "60"])
    try:
        with lock.exclusive(host, timeout=0):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_run_directory_that_cannot_be_used_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("no directory")
    with pytest.raises(PassthroughError) as caught, lock.exclusive(host):
        pytest.fail("not locked at all")
    assert caught.value.code == "lock_unusable"
    assert "/run/kvm-passthrough.lock" in str(caught.value)
    assert "nothing was changed" in str(caught.value)


def test_a_link_in_its_place_is_not_followed(host: Host, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    (tmp_path / lock.LOCK_PATH[1:]).symlink_to(tmp_path / "victim")
    with pytest.raises(PassthroughError, match="cannot be taken"), lock.exclusive(host):
        pytest.fail("not locked at all")
    assert (tmp_path / "victim").read_text() == "precious"
