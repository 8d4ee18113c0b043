# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of what was changed."""

from __future__ import annotations

import errno
import json
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, Record, StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import at_call, failing


def _change(before: Any, after: Any, **more: Any) -> Record:
    return Record("driver", "0000:01:10.0", before, after, **more)


def _read(host: Host) -> Record | None:
    """What the file says, to somebody who comes later."""
    return StateStore(host).get("driver", "0000:01:10.0")


def test_a_host_without_a_record(host: Host) -> None:
    store = StateStore(host)
    assert store.get("file", "/x") is None
    assert store.all("file") == []
    assert not host.exists(STATE_PATH)


def test_what_is_given_back_has_no_record_any_more(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("a", "b"))
    store.note(Record("driver", "other", "a", "b"))
    store.settle()
    store.note(_change("x", "a"))  # by somebody else in between: it diverges, and would be remembered
    store.settle(returned=[("driver", "0000:01:10.0"), ("driver", "nobody's")])
    assert _read(host) is None
    assert [record.key for record in StateStore(host).all("driver")] == ["other"]


def test_a_change_is_on_disk_when_note_returns_and_private(host: Host, tmp_path: Path) -> None:
    record = _change("igbvf", "vfio-pci", restore={"a": [1]}, module="vfio_devices", time="2026-01-01T00:00:00Z")
    assert StateStore(host).note(record) is None
    assert _read(host) == record
    assert stat.S_IMODE((tmp_path / STATE_PATH[1:]).stat().st_mode) == 0o600
    assert json.loads(host.read_bytes(STATE_PATH))["version"] == 1


def test_records_of_a_kind_are_sorted(host: Host) -> None:
    store = StateStore(host)
    for kind, key in (("file", "/b"), ("driver", "x"), ("file", "/a")):
        store.note(Record(kind, key, None, 1))
    assert [record.key for record in StateStore(host).all("file")] == ["/a", "/b"]


def test_the_first_before_is_kept_and_the_earlier_record_returned(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("igbvf", "vfio-pci", restore="R", module="one"))
    store.settle()
    earlier = store.note(_change("vfio-pci", None, restore="S", module="two"))
    assert earlier == _change("igbvf", "vfio-pci", restore="R", module="one")
    store.settle()
    assert _read(host) == _change("igbvf", None, restore="R", module="two")


def test_putting_back_undoes_a_note(host: Host) -> None:
    store = StateStore(host)
    store.put_back("driver", "0000:01:10.0", store.note(_change("a", "b")))
    assert not host.exists(STATE_PATH)
    store.note(_change("a", "b"))
    store.settle()
    before = host.read_bytes(STATE_PATH)
    store.put_back("driver", "0000:01:10.0", store.note(_change("b", "c")))
    assert host.read_bytes(STATE_PATH) == before


def test_settling_drops_what_is_as_it_was(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("a", "b"))
    store.note(_change("b", "a"))
    assert _read(host) is not None
    store.settle()
    assert not host.exists(STATE_PATH)


def test_somebody_elses_change_in_between_is_remembered(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("a", "b"))
    store.note(_change("x", "c"))  # we left b
    assert _read(host) == _change("a", "c", diverged=True, pending=["b"])
    store.note(_change("c", "a"))
    store.settle()
    assert _read(host) == _change("a", "a", diverged=True)  # x is lost, which revert has to say


@pytest.mark.parametrize("now", ["a", "b"])
def test_going_back_to_before_or_after_is_no_divergence(host: Host, now: str) -> None:
    """``a``: we were killed between the note and the change, or somebody undid it exactly."""
    store = StateStore(host)
    store.note(_change("a", "b"))
    store.note(_change(now, "c"))
    store.settle()
    assert _read(host) == _change("a", "c")


def test_after_a_crash_between_note_and_change_the_thing_is_still_ours(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("a", "b"))
    store.settle()
    StateStore(host).note(_change("b", "c"))  # killed here: the thing is still b
    left = _read(host)
    assert left is not None
    assert [left.explains(value) for value in ("a", "b", "c", "x")] == [True, True, True, False]
    again = StateStore(host)
    again.note(_change("b", "d"))
    again.settle()
    assert _read(host) == _change("a", "d")


def test_settling_leaves_what_a_killed_run_noted(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("a", "b"))
    store.settle()
    StateStore(host).note(_change("b", "a"))  # killed here: the thing is still b, and only this record explains it
    other = StateStore(host)
    other.note(Record("file", "/x", None, 1))
    other.settle()
    left = _read(host)
    assert left is not None
    assert left.explains("b")


def test_what_was_really_left_is_known_at_the_end(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("a", "b"))
    store.settle([_change("a", "b2")])
    assert _read(host) == _change("a", "b2")
    store.note(_change("b2", "c"))
    store.settle([_change("b2", "a")])
    assert _read(host) is None


@pytest.mark.parametrize("value", [0, 0.0, False, "", [], {}, None, "\udcff", [None]])
def test_every_json_value_survives(host: Host, value: Any) -> None:
    StateStore(host).note(_change(value, value, restore=value))
    found = _read(host)
    assert found is not None
    for field in (found.before, found.after):
        assert field == value
        assert type(field) is type(value)


@pytest.mark.parametrize("value", [0, 0.0])
def test_a_zero_to_restore_is_not_taken_for_nothing(host: Host, value: Any) -> None:
    StateStore(host).note(_change(8, 4, restore=value))
    found = _read(host)
    assert found is not None
    assert found.restore is not None
    assert found.restore == value


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting"),
        (b'{"\xff": 1}', "decode"),
        (b"[]", "list indices"),
        (b"null", "subscriptable"),
        (b'{"records": []}', "version"),
        (b'{"version": 2, "records": []}', "version 2, this release knows version 1"),
        (b'{"version": 1}', "records"),
        (b'{"version": 1, "records": [{"kind": "file"}]}', "missing"),
        (b'{"version": 1, "records": [{"kind": "a", "key": "b", "before": 1, "after": 2, "new": 3}]}', "new"),
        (b'{"version": 1, "records": [1]}', "mapping"),
    ],
)
def test_a_record_that_cannot_be_read_is_refused_and_kept(
    host: Host, tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / STATE_PATH[1:]).parent.mkdir(parents=True)
    (tmp_path / STATE_PATH[1:]).write_bytes(content)
    with pytest.raises(PassthroughError, match=reason) as caught:
        StateStore(host)
    assert caught.value.code == "state_unreadable"
    assert "restore it from a backup" in str(caught.value)
    assert host.read_bytes(STATE_PATH) == content


def test_a_full_disk_leaves_file_and_memory_as_they_were(host: Host) -> None:
    store = StateStore(host)
    store.note(_change("a", "b"))
    before = host.read_bytes(STATE_PATH)

    with pytest.raises(PassthroughError, match="No space left"), at_call(1, failing(errno.ENOSPC)):
        store.note(Record("file", "/x", None, 1))
    assert host.read_bytes(STATE_PATH) == before
    assert store.get("file", "/x") is None
    with pytest.raises(PassthroughError, match="No space left"), at_call(1, failing(errno.ENOSPC)):
        store.put_back("driver", "0000:01:10.0", None)
    assert store.get("driver", "0000:01:10.0") == _change("a", "b")
    store.note(Record("file", "/y", None, 1))
    assert StateStore(host).all("file") == [Record("file", "/y", None, 1)]


values = st.sampled_from([None, 0, 1, "a", "b", {"sha256": "x"}])


@given(st.lists(st.tuples(st.sampled_from(["k", "l"]), values), max_size=8), st.booleans())
def test_any_sequence_of_our_changes_keeps_what_was_there_first(changes: list[tuple[str, Any]], reload: bool) -> None:
    """Against the plainest model: the first state and the present state of each thing."""
    with tempfile.TemporaryDirectory() as root:
        host = Host(root)
        store = StateStore(host)
        now: dict[str, Any] = {"k": "first", "l": "first"}
        touched = set()
        for key, value in changes:
            store.note(Record("thing", key, now[key], value))
            now[key] = value
            touched.add(key)
            if reload:
                store.settle()
                store = StateStore(host)
        store.settle()
        found = {record.key: record for record in StateStore(host).all("thing")}
        assert found == {key: Record("thing", key, "first", now[key]) for key in touched}


@given(st.lists(values, min_size=1, max_size=6))
def test_a_round_trip_leaves_no_record(way: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as root:
        store = StateStore(Host(root))
        for before, after in zip(["first", *way], [*way, "first"]):
            store.note(Record("thing", "k", before, after))
        store.settle()
        assert StateStore(Host(root)).all("thing") == []


def test_records_of_files_that_are_as_before_are_swept(host: Host, tmp_path: Path) -> None:
    """As a run leaves them that was killed between its note and its change, or between its last change and its end."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/changed").write_text("ours")
    store = StateStore(host)
    for name in ("never-made", "changed", "diverged"):
        store.note(Record("file", f"/etc/{name}", None, {"sha256": "ours"}))
    store.note(Record("driver", "0000:01:10.0", None, None))
    store.note(Record("file", "/etc/diverged", {"sha256": "somebody's"}, None))
    StateStore(host).sweep()
    assert [record.key for record in StateStore(host).all("file")] == ["/etc/changed", "/etc/diverged"]
    assert _read(host) is not None
