# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans and the actions every module uses."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core import files
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.files import FileState
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.plan import (
    Plan,
    RemoveLeftovers,
    RunCommand,
    WriteFile,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import Record
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import Step, at_call, own
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

PATH = "/etc/modprobe.d/vfio.conf"


def _write(host: Host, path: str, wanted: FileState) -> WriteFile:
    return WriteFile(path, files.observe(host, path), wanted)


# -- plans -----------------------------------------------------------------------------------------------------


def test_a_plan_is_a_value_that_can_be_shown() -> None:
    plan = Plan()
    assert (plan.changed, plan.as_result(), plan.diff()) == (False, [], [])
    plan.add(Step("a"))
    plan.extend([Step("b")])
    assert plan.changed
    assert plan.as_result()[0] == {"description": "step a", "target": "a", "before": "off", "after": "on"}
    assert plan.diff()[1] == {"before_header": "b", "after_header": "b", "before": "off\n", "after": "on\n"}


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), ([], ""), ("a", "a\n"), (0, "0\n"), (["a", "b"], "a\nb\n"), ({"b": 1, "a": None}, "a: None\nb: 1\n")],
)
def test_values_in_a_diff_are_lines(value: object, text: str) -> None:
    step = Step("a")
    step.before = value
    assert step.diff()["before"] == text


# -- WriteFile -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "verb", "before", "after"),
    [
        (None, b"x", "write", None, "present"),
        (b"x", b"y", "change", "present", "changed"),
        (b"x", None, "remove", "present", None),
    ],
)
def test_what_is_said_about_a_file(
    host: Host, old: bytes | None, new: bytes | None, verb: str, before: str | None, after: str | None
) -> None:
    files.put(host, PATH, own(old))
    action = _write(host, PATH, own(new))
    assert action.as_result() == {"description": f"{verb} {PATH}", "target": PATH, "before": before, "after": after}
    (record,) = action.records()
    assert (record.kind, record.key) == ("file", PATH)
    assert (record.before, record.after) == (own(old).fingerprint(), own(new).fingerprint())
    assert FileState.from_json(record.restore) == own(old)
    assert action.diff()["before"] == (old or b"").decode()
    assert action.diff()["after"] == (new or b"").decode()


def test_what_to_remember_can_be_given() -> None:
    record = Record("kernel_parameter", "iommu", None, "pt")
    assert WriteFile(PATH, FileState(None), own(b"x"), records=[record]).records() == [record]
    assert WriteFile(PATH, FileState(None), own(b"x"), records=[]).records() == []
    assert WriteFile(PATH, FileState(None), own(b"x"), description="hold a card").description == "hold a card"


def test_a_diff_of_any_bytes_can_be_printed() -> None:
    action = WriteFile(PATH, own(b"caf\xe9\n"), own(b"\x00\xff"))
    json.dumps(action.diff(), ensure_ascii=False).encode("utf-8")
    assert action.diff()["before"] == "caf\N{REPLACEMENT CHARACTER}\n"


contents = st.one_of(st.none(), st.binary(max_size=40))


@given(contents, contents, st.sampled_from([0o600, 0o644, 0o755]), st.booleans())
def test_undo_restores_byte_for_byte(old: bytes | None, new: bytes | None, mode: int, link: bool) -> None:
    with tempfile.TemporaryDirectory() as root:
        host = Host(root)
        if link:
            os.makedirs(f"{root}/etc/modprobe.d")
            os.symlink("/usr/lib/other/real.conf", f"{root}{PATH}")
        if old is not None:
            files.put(host, PATH, own(old, mode))
        before = tree_listing(root)
        action = _write(host, PATH, own(new, 0o640))
        action.apply(host)
        assert files.observe(host, PATH) == own(new, 0o640)
        action.undo(host)
        assert tree_listing(root) == before


def test_a_directory_that_somebody_uses_meanwhile_stays(host: Host, tmp_path: Path) -> None:
    action = _write(host, PATH, own(b"x"))
    action.apply(host)
    (tmp_path / "etc/modprobe.d/other.conf").touch()
    action.undo(host)
    assert os.listdir(tmp_path / "etc/modprobe.d") == ["other.conf"]


@pytest.mark.parametrize("change", ["content", "mode", "gone", "made"])
def test_a_change_by_somebody_else_is_left_alone(host: Host, tmp_path: Path, change: str) -> None:
    files.put(host, PATH, own(None if change == "made" else b"old"))
    action = _write(host, PATH, own(b"new"))
    real = tmp_path / PATH[1:]
    if change == "mode":
        real.chmod(0o600)
    elif change == "gone":
        real.unlink()
    else:
        files.put(host, PATH, own(b"theirs"))
    before = tree_listing(tmp_path)
    with pytest.raises(PassthroughError, match="changed by somebody else while this module was planning") as caught:
        action.apply(host)
    assert caught.value.code == "file_changed_meanwhile"
    assert tree_listing(tmp_path) == before


@pytest.mark.parametrize("old", [b"old", None])
@pytest.mark.parametrize("new", [b"new", None])
def test_an_apply_that_fails_leaves_nothing_of_the_change(
    host: Host, tmp_path: Path, old: bytes | None, new: bytes | None
) -> None:
    """At whichever system call, the last flush and an interrupt included."""
    if old is not None:
        files.put(host, PATH, own(old))
    before = tree_listing(tmp_path)
    with at_call(0, lambda _unused: None) as calls:
        action = _write(host, PATH, own(new))
        del calls[:]
        action.apply(host)
        number = len(calls)
    action.undo(host)
    for kind in (OSError(errno.ENOSPC, "full"), KeyboardInterrupt()):
        for place in range(1, number + 1):

            def fail(_unused: str, kind: BaseException = kind) -> None:
                raise kind

            action = _write(host, PATH, own(new))
            try:
                with at_call(place, fail):
                    action.apply(host)
            except (PassthroughError, KeyboardInterrupt):
                assert tree_listing(tmp_path) == before, f"call {place} of {calls}"
            else:
                action.undo(host)


# -- RunCommand ------------------------------------------------------------------------------------------------


def _commands(root: Path, rc: int = 0) -> tuple[Host, list[tuple[list[str], float]]]:
    seen: list[tuple[list[str], float]] = []

    def runner(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        seen.append((list(argv), timeout))
        return Completed(tuple(argv), rc, "", "no")

    return Host(str(root), runner), seen


def test_a_command_is_run_again_to_undo_it(tmp_path: Path) -> None:
    host, seen = _commands(tmp_path)
    action = RunCommand(["update-grub"], target="/boot/grub/grub.cfg", timeout=9)
    assert action.regenerates
    assert action.as_result() == {
        "description": "run update-grub",
        "target": "/boot/grub/grub.cfg",
        "before": "stale",
        "after": "regenerated",
    }
    assert action.records() == ()
    action.apply(host)
    action.undo(host)
    assert seen == [(["update-grub"], 9)] * 2


def test_a_command_that_failed_may_have_left_something(tmp_path: Path) -> None:
    host, _unused = _commands(tmp_path, rc=1)
    action = RunCommand(["update-grub"], target="x")
    assert not action.partial
    with pytest.raises(PassthroughError, match="status 1"):
        action.apply(host)
    assert action.partial


def test_so_may_one_whose_result_is_wrong(tmp_path: Path) -> None:
    host, _unused = _commands(tmp_path)

    def check(seen: Host) -> None:
        assert seen is host
        raise PassthroughError("image_incomplete", "vfio-pci is not in the image.")

    action = RunCommand(["update-initramfs", "-u"], target="x", check=check)
    with pytest.raises(PassthroughError, match="not in the image"):
        action.apply(host)
    assert action.partial


def test_one_that_never_started_left_nothing(tmp_path: Path) -> None:
    action = RunCommand(["no-such-program-here"], target="x")
    with pytest.raises(PassthroughError, match="not installed"):
        action.apply(Host(str(tmp_path)))
    assert not action.partial


# -- what killed runs leave ------------------------------------------------------------------------------------


def test_leftovers_are_seen_and_removed_and_nothing_else_is(host: Host, tmp_path: Path) -> None:
    files.put(host, PATH, own(b"whole\n"))
    assert not files.has_leftovers(host, PATH)
    for name in (f".vfio.conf.1{files.TEMPORARY}", f".vfio.conf.2{files.TEMPORARY}"):
        (tmp_path / "etc/modprobe.d" / name).write_bytes(b"wh")
    (tmp_path / "etc/modprobe.d" / f".other.conf.1{files.TEMPORARY}").write_bytes(b"")
    assert files.has_leftovers(host, PATH)
    action = RemoveLeftovers(PATH)
    assert action.as_result()["target"] == PATH
    action.apply(host)
    assert not files.has_leftovers(host, PATH)
    assert sorted(os.listdir(tmp_path / "etc/modprobe.d")) == [f".other.conf.1{files.TEMPORARY}", "vfio.conf"]
    action.undo(host)
    assert not action.records()
