# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are replaced as a whole."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core import files
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.files import FileState
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import at_call, failing, own
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing

PATH = "/etc/default/grub"


def _make(root: Path, path: str, content: bytes, mode: int = 0o644) -> Path:
    real = root / path.lstrip("/")
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_bytes(content)
    real.chmod(mode)
    return real


# -- values ----------------------------------------------------------------------------------------------------


@given(
    st.one_of(st.none(), st.binary(max_size=50)), st.integers(0, 0o7777), st.integers(0, 2**31), st.integers(0, 2**31)
)
def test_json_keeps_everything(content: bytes | None, mode: int, uid: int, gid: int) -> None:
    state = FileState(None) if content is None else FileState(content, mode, uid, gid)
    assert FileState.from_json(state.to_json()) == state


def test_fingerprints_tell_states_apart() -> None:
    states = [
        FileState(None),
        FileState(b""),
        FileState(b"a"),
        FileState(b"", 0o600),
        FileState(b"", uid=1),
        FileState(b"", gid=1),
    ]
    fingerprints = [state.fingerprint() for state in states]
    assert all(fingerprints.count(one) == 1 for one in fingerprints)
    assert fingerprints[0] is None


def test_text_keeps_undecodable_bytes() -> None:
    assert FileState(b"\xff").text.encode("utf-8", "surrogateescape") == b"\xff"
    assert FileState(None).text == ""


# -- observe ---------------------------------------------------------------------------------------------------


def test_observe_sees_content_mode_and_owner(host: Host, tmp_path: Path) -> None:
    _make(tmp_path, PATH, b"A\n", 0o640)
    assert files.observe(host, PATH) == own(b"A\n", 0o640)


def test_absent_files_and_dangling_links_are_absent(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert files.observe(host, PATH) == FileState(None)
    assert files.observe(host, "/link") == FileState(None)


def test_what_is_no_regular_file_is_refused_at_once(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for path in ("/fifo", "/folder"):
        with pytest.raises(PassthroughError) as caught:
            files.observe(host, path)
        assert caught.value.code == "not_a_regular_file"


def test_a_masked_file_is_refused_and_dev_null_stays_a_device(tmp_path: Path) -> None:
    (tmp_path / "vfio.rules").symlink_to("/dev/null")
    path = f"{tmp_path}/vfio.rules"
    with pytest.raises(PassthroughError, match="switched this file off on purpose"):
        files.observe(Host(), path)
    with pytest.raises(PassthroughError, match="not a regular file"):
        files.put(Host(), path, FileState(None))
    with pytest.raises(PassthroughError, match="not a regular file"):
        files.put(Host(), path, own(b"x"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_other_failures_are_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file where a directory should be")
    with pytest.raises(PassthroughError, match="/etc/x cannot be read: Not a directory") as caught:
        files.observe(host, "/etc/x")
    assert caught.value.code == "file_unreadable"


# -- put -------------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.binary(max_size=30)), max_size=6))
def test_what_is_put_is_observed(contents: list[bytes | None]) -> None:
    with tempfile.TemporaryDirectory() as root:
        host = Host(root)
        for content in contents:
            files.put(host, PATH, own(content, 0o640))
            assert files.observe(host, PATH) == own(content, 0o640)
            names = os.listdir(f"{root}/etc/default") if os.path.exists(f"{root}/etc") else []
            assert names == ([] if content is None else ["grub"])


def test_a_file_is_flushed_before_it_gets_its_name_and_its_directory_after(host: Host) -> None:
    with at_call(0, lambda _unused: None) as calls:
        files.put(host, PATH, own(b"x"))
    made = [call for call in calls if call in ("mkdir", "fsync", "rename")]
    assert made == ["mkdir", "fsync", "mkdir", "fsync", "fsync", "rename", "fsync"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o4755])
def test_the_mode_is_exact_whatever_the_umask(host: Host, tmp_path: Path, mode: int) -> None:
    for umask in (0, 0o077):
        former = os.umask(umask)
        try:
            made = files.put(host, f"/new{umask}/sub/file", own(b"x", mode))
        finally:
            os.umask(former)
        assert made == [f"/new{umask}/sub", f"/new{umask}"]
        assert files.observe(host, f"/new{umask}/sub/file").mode == mode
        assert [stat.S_IMODE((tmp_path / name.lstrip("/")).stat().st_mode) for name in made] == [0o755, 0o755]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_owner_is_kept(host: Host) -> None:
    files.put(host, PATH, FileState(b"x", 0o4755, 12, 34))
    assert files.observe(host, PATH) == FileState(b"x", 0o4755, 12, 34)


def test_a_link_stays_and_its_target_is_replaced(host: Host, tmp_path: Path) -> None:
    target = _make(tmp_path, "/data/real", b"old")
    for link in ("../data/real", "/data/real"):
        place = tmp_path / "etc/link"
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(link)
        files.put(host, "/etc/link", own(link.encode()))
        assert os.readlink(place) == link
        assert target.read_bytes() == link.encode()
        place.unlink()


def test_removing_through_a_link_removes_the_target(host: Host, tmp_path: Path) -> None:
    _make(tmp_path, "/data/real", b"old")
    (tmp_path / "link").symlink_to("data/real")
    files.put(host, "/link", FileState(None))
    assert files.observe(host, "/link") == FileState(None)
    assert tree_listing(tmp_path).keys() == {"data", "link"}


def test_removing_what_is_not_there_does_nothing(host: Host, tmp_path: Path) -> None:
    before = tree_hash(tmp_path)
    assert files.put(host, PATH, FileState(None)) == []
    assert tree_hash(tmp_path) == before


def test_a_bad_content_never_gets_there(host: Host, tmp_path: Path) -> None:
    real = _make(tmp_path, PATH, b"old\n")
    before = tree_hash(tmp_path)

    def refuse(temporary: str) -> None:
        assert Path(temporary).read_bytes() == b"new\n"
        assert Path(temporary).parent == real.parent
        assert Path(temporary).name.startswith(".")
        assert temporary.endswith(".tmp")
        assert real.read_bytes() == b"old\n"
        raise PassthroughError("bad", "No good.")

    with pytest.raises(PassthroughError, match="No good"):
        files.put(host, PATH, own(b"new\n"), refuse)

    def refuse_at_once(_temporary: str) -> None:
        raise PassthroughError("bad", "No good.")

    with pytest.raises(PassthroughError, match="No good"):
        files.put(host, "/made/for/nothing", own(b"new\n"), refuse_at_once)
    assert tree_hash(tmp_path) == before


def test_what_a_killed_run_left_is_removed_but_nothing_else(host: Host, tmp_path: Path) -> None:
    _make(tmp_path, PATH, b"old")
    stale = _make(tmp_path, f"/etc/default/.grub.abc{files.TEMPORARY}", b"ne")
    others = [
        _make(tmp_path, f"/etc/default/{name}", b"")
        for name in (".grub.swp", f".other.abc{files.TEMPORARY}", "grub.tmp")
    ]
    files.put(host, PATH, own(b"new"))
    assert not stale.exists()
    assert all(other.exists() for other in others)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("old", [b"old\n", None])
@pytest.mark.parametrize("new", [b"new\n", None])
def test_a_failing_system_call_leaves_the_old_or_the_new_file(
    host: Host, tmp_path: Path, old: bytes | None, new: bytes | None, number: int
) -> None:
    """Whichever call fails: one of the two contents, whole, no other file, and an error when it is the old one."""
    (tmp_path / "etc/default").mkdir(parents=True)
    with at_call(0, lambda _unused: None) as calls:
        files.put(host, PATH, own(old))
        del calls[:]
        files.put(host, PATH, own(new))
    assert old is None or new is not None or "unlink" in calls
    for place in range(1, len(calls) + 1):
        files.put(host, PATH, own(old))
        error = None
        with at_call(place, failing(number)):
            try:
                files.put(host, PATH, own(new))
            except PassthroughError as caught:
                error = caught
        found = files.observe(host, PATH).content
        assert found in (old, new)
        assert os.listdir(tmp_path / "etc/default") == ([] if found is None else ["grub"])
        if found != new:
            assert error is not None
        if error is not None:
            assert error.code == "file_unwritable"
            assert os.strerror(number) in str(error)
            assert ("mount options and space" in str(error)) == (number != errno.EIO)


def test_a_failure_removes_the_directories_that_were_made(host: Host, tmp_path: Path) -> None:
    before = tree_hash(tmp_path)
    with pytest.raises(PassthroughError), at_call(1, lambda _unused: None) as calls:
        files.put(host, "/a/b/c", own(b"x"), failing(errno.EIO))
    for place in range(1, calls.index("unlink") + 1):  # from there on, it is cleaning up after the failure
        with pytest.raises(PassthroughError), at_call(place, failing(errno.ENOSPC)):
            files.put(host, "/a/b/c", own(b"x"), failing(errno.EIO))
        assert tree_hash(tmp_path) == before, calls[place - 1]


def test_a_new_file_gets_the_label_the_policy_names(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def runner(argv: object, timeout: float, stdin: str | None) -> Completed:
        seen.append(list(argv))  # type: ignore[call-overload]
        return Completed((), 0, "", "")

    _make(tmp_path, "/usr/sbin/restorecon", b"", 0o755)
    host = Host(str(tmp_path), runner)
    files.put(host, PATH, own(b"x"))
    assert seen == []  # no SELinux here
    files.put(host, PATH, FileState(None))
    _make(tmp_path, "/sys/fs/selinux/enforce", b"0")
    files.put(host, PATH, own(b"x"))
    assert seen == [["restorecon", PATH]]
    files.put(host, PATH, own(b"y"))  # an existing one keeps its label
    assert len(seen) == 1


def test_the_label_of_a_file_is_kept(host: Host, tmp_path: Path) -> None:
    real = _make(tmp_path, PATH, b"old")
    try:
        os.setxattr(real, files.SELINUX_ATTRIBUTE, b"system_u:object_r:bootloader_etc_t:s0")
    except OSError as error:
        pytest.skip(f"this file system or user cannot set a label: {error}")
    files.put(host, PATH, own(b"new"))
    assert os.getxattr(real, files.SELINUX_ATTRIBUTE) == b"system_u:object_r:bootloader_etc_t:s0"
