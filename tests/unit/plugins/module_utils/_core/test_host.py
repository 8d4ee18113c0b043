# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one object through which the machine is touched."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core import child
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read_text().split())


@pytest.fixture(autouse=True)
def _no_child_is_left() -> Iterator[None]:
    before = _children()
    yield
    assert _children() <= before, "a zombie or a running child was left"


# -- paths ---------------------------------------------------------------------------------------------------


def test_the_root_is_prefixed(host: Host, tmp_path: Path) -> None:
    assert host.path("/sys/bus") == f"{tmp_path}/sys/bus"
    assert Host().path("/sys/bus") == "/sys/bus"


def test_a_root_that_is_a_link_is_resolved_once(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    (tmp_path / "link").symlink_to("tree")
    assert Host(str(tmp_path / "link")).real_path("/file") == "/file"


@pytest.mark.parametrize(
    ("target", "real"),
    [
        ("sub/file", "/etc/sub/file"),
        ("/data/file", "/data/file"),
        ("/usr/bin/env", "/usr/bin/env"),
        ("../../../../../data/file", "/data/file"),
        ("./sub/../sub//file", "/etc/sub/file"),
        ("missing", "/etc/missing"),
    ],
)
def test_links_are_followed_below_the_root_only(host: Host, tmp_path: Path, target: str, real: str) -> None:
    (tmp_path / "etc/sub").mkdir(parents=True)
    (tmp_path / "etc/link").symlink_to(target)
    assert host.real_path("/etc/link") == real


def test_a_chain_of_links_through_directories(host: Host, tmp_path: Path) -> None:
    (tmp_path / "sys/devices/pci0000:00/0000:00:01.0").mkdir(parents=True)
    (tmp_path / "sys/bus/pci").mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices").symlink_to("/sys/all")
    (tmp_path / "sys/all").mkdir()
    (tmp_path / "sys/all/0000:00:01.0").symlink_to("../devices/pci0000:00/0000:00:01.0")
    assert host.real_path("/sys/bus/pci/devices/0000:00:01.0/..") == "/sys/devices/pci0000:00"


def test_a_link_that_names_the_tree_itself_stays_in_it(host: Host, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert host.real_path("/link") == "/file"


def test_a_neighbour_of_the_root_is_not_taken_for_a_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/link").symlink_to("../ab/file")
    assert Host(str(tmp_path / "a")).real_path("/link") == "/ab/file"


def test_a_circle_of_links_ends(host: Host, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    assert host.real_path("/one") in ("/one", "/two")
    assert not host.exists("/one")


def test_names_of_a_directory_are_sorted_and_absent_ones_empty(host: Host, tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    assert host.list_dir("/") == ["a", "b", "c"]
    assert host.list_dir("/nowhere") == []
    assert host.list_dir("/a") == []


def test_when_a_file_was_written(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    os.utime(tmp_path / "file", ns=(1, 1_700_000_000_123_456_789))
    (tmp_path / "link").symlink_to("/file")
    assert host.modified("/file") == host.modified("/link") == 1_700_000_000_123_456_789
    assert host.modified("/gone") is None


def test_what_a_link_says(host: Host, tmp_path: Path) -> None:
    (tmp_path / "driver").symlink_to("../../../bus/pci/drivers/vfio-pci")
    (tmp_path / "file").touch()
    assert host.link_name("/driver") == "vfio-pci"
    assert host.link_name("/file") is None
    assert host.link_name("/nowhere") is None


# -- reading -------------------------------------------------------------------------------------------------


def test_undecodable_bytes_survive_reading(host: Host, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"caf\xe9")
    assert host.read_text("/file").encode("utf-8", "surrogateescape") == b"caf\xe9"


def test_an_unreadable_file_is_named_as_the_machine_sees_it(host: Host, tmp_path: Path) -> None:
    with pytest.raises(PassthroughError, match=r"^/nowhere cannot be read: No such file") as caught:
        host.read_text("/nowhere")
    assert caught.value.code == "file_unreadable"
    assert str(tmp_path) not in str(caught.value)


def test_attributes_are_stripped_and_may_be_absent(host: Host, tmp_path: Path) -> None:
    (tmp_path / "vendor").write_text("0x8086\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / "odd").write_bytes(b"\xff\n")
    assert host.attribute("/vendor") == "0x8086"
    assert host.attribute("/empty") == ""
    assert host.attribute("/odd") == "\N{REPLACEMENT CHARACTER}"
    assert host.attribute("/nowhere") is None
    assert host.attribute("/vendor/below") is None
    assert host.attribute("/") is None


def test_an_attribute_longer_than_a_page_is_read_whole(host: Host, tmp_path: Path) -> None:
    (tmp_path / "uevent").write_text("x" * 10_000)
    assert len(host.attribute("/uevent") or "") == 10_000


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a Linux /proc")
def test_an_attribute_the_kernel_refuses_to_read_is_none() -> None:
    assert Host().attribute("/proc/self/mem") is None  # EIO at offset 0


def test_a_process_that_ends_between_opening_and_reading_has_no_attribute() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        descriptor = os.open(f"/proc/{process.pid}/stat", os.O_RDONLY)
        process.kill()
    try:
        with pytest.raises(ProcessLookupError):
            os.read(descriptor, 1)
        assert Host().attribute(f"/proc/self/fd/{descriptor}") is None  # opens it again, reads, and gets the same
    finally:
        os.close(descriptor)


def test_another_failure_to_read_an_attribute_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("one")  # ELOOP
    with pytest.raises(PassthroughError, match="/one cannot be read: Too many levels") as caught:
        host.attribute("/one")
    assert caught.value.code == "file_unreadable"


def test_attributes_read_in_time(host: Host, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("vfio-pci\n")
    (tmp_path / "long").write_text("x" * 300_000)  # more than a pipe holds
    found = host.attributes_in_time(["/one", "/absent", "/long"])
    assert found == {"/one": "vfio-pci", "/absent": None, "/long": "x" * 300_000}
    assert host.attributes_in_time([]) == {}


def test_attributes_are_read_where_no_proc_tells_what_is_open(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all descriptors there may be are closed in the child, but for the one it answers by."""
    monkeypatch.setattr(child, "_open_descriptors", lambda: list(range(256)))
    (tmp_path / "one").write_text("vfio-pci\n")
    (tmp_path / "two").write_text("")
    assert host.attributes_in_time(["/one"], timeout=5) == {"/one": "vfio-pci"}
    host.write_attribute("/two", "1", timeout=5)
    assert (tmp_path / "two").read_text() == "1"


def test_an_attribute_that_hangs_is_named(host: Host, tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    os.mkfifo(tmp_path / "driver_override")  # opening it for reading blocks until somebody writes
    started = time.monotonic()
    with pytest.raises(PassthroughError) as caught:
        host.attributes_in_time(["/one", "/driver_override", "/absent"], timeout=0.2)
    assert time.monotonic() - started < 1.0
    result = caught.value.as_result()
    assert (result["code"], result["path"]) == ("attribute_read_timeout", "/driver_override")
    assert result["reboot_required"] is True
    assert "within 0.2 s" in result["msg"]


def test_another_failure_to_read_in_time_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("one")  # ELOOP
    with pytest.raises(PassthroughError, match="/one cannot be read: Too many levels") as caught:
        host.attributes_in_time(["/one"])
    assert caught.value.code == "file_unreadable"


def test_parts_of_a_binary_attribute(host: Host, tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(bytes(range(256)))
    with host.reader("/config") as read:
        assert read(16, 4) == bytes((16, 17, 18, 19))
        assert read(254, 4) == bytes((254, 255))
        assert read(256, 4) == b""
    for nothing in ("/absent", "/"):
        with host.reader(nothing) as read:
            assert read(0, 4) == b""


def test_another_failure_to_read_parts_is_told(host: Host, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(PassthroughError) as caught, host.reader("/loop"):
        pass
    assert caught.value.code == "file_unreadable"


# -- writing kernel attributes ---------------------------------------------------------------------------------


def test_an_attribute_is_written_like_the_shell_does(host: Host, tmp_path: Path) -> None:
    (tmp_path / "driver_override").write_text("vfio-pci\n")
    host.write_attribute("/driver_override", "\n")
    assert (tmp_path / "driver_override").read_text() == "\n"


@pytest.mark.parametrize(
    ("path", "value", "name"),
    [
        ("/nowhere", "1", "ENOENT"),
        ("/directory", "1", "EISDIR"),
        ("/file/below", "1", "ENOTDIR"),
    ],
)
def test_a_refused_write_names_value_path_and_errno(
    host: Host, tmp_path: Path, path: str, value: str, name: str
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(PassthroughError) as caught:
        host.write_attribute(path, value)
    result = caught.value.as_result()
    assert (result["code"], result["errno"], result["path"], result["value"]) == (
        "attribute_write_failed", name, path, value,
    )  # fmt: skip
    assert f"'1' for {path}: {os.strerror(getattr(errno, name))} ({name})" in result["msg"]


def test_the_errno_of_the_write_itself_is_told() -> None:
    with pytest.raises(PassthroughError) as caught:
        Host().write_attribute("/proc/self/oom_score_adj", "not a number\n")
    assert caught.value.as_result()["errno"] == "EINVAL"
    assert caught.value.as_result()["value"] == "not a number"


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="no /dev/full")
def test_no_space_is_told() -> None:
    with pytest.raises(PassthroughError, match="ENOSPC"):
        Host().write_attribute("/dev/full", "1")


def test_a_read_only_attribute(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everything")
    (tmp_path / "ro").write_text("")
    (tmp_path / "ro").chmod(0o400)
    with pytest.raises(PassthroughError, match="EACCES"):
        Host(str(tmp_path)).write_attribute("/ro", "1")


def test_a_value_that_cannot_be_written_is_never_taken_for_written(host: Host) -> None:
    with pytest.raises(PassthroughError) as caught:
        host.write_attribute("/bad\0path", "1")
    assert caught.value.code == "attribute_write_failed"


def test_a_write_that_hangs_ends_in_time_and_leaves_nothing_behind(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "unbind")  # opening it for writing blocks until somebody reads
    started = time.monotonic()
    with pytest.raises(PassthroughError) as caught:
        host.write_attribute("/unbind", "0000:01:00.0\n", timeout=0.2)
    assert time.monotonic() - started < 1.0
    result = caught.value.as_result()
    assert result["code"] == "attribute_write_timeout"
    assert result["reboot_required"] is True
    assert (result["path"], result["value"]) == ("/unbind", "0000:01:00.0")
    assert "within 0.2 s" in result["msg"]


def test_a_full_fifo_hangs_in_the_write_itself(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(PassthroughError) as caught:
            host.write_attribute("/fifo", "x" * 200_000, timeout=0.2)
    finally:
        os.close(reader)
    assert caught.value.code == "attribute_write_timeout"


def test_a_slow_write_that_succeeds_in_time_is_a_success(host: Host, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    with subprocess.Popen(["sh", "-c", f"sleep 0.3; cat {tmp_path}/slow"], stdout=subprocess.PIPE) as process:
        host.write_attribute("/slow", "1", timeout=10)
        assert process.stdout is not None
        assert process.stdout.read() == b"1"


def test_a_time_limit_beyond_what_the_kernel_can_count(host: Host, tmp_path: Path) -> None:
    (tmp_path / "unbind").touch()
    host.write_attribute("/unbind", "1", timeout=1e12)
    assert (tmp_path / "unbind").read_text() == "1"


def test_the_child_that_hangs_keeps_no_descriptor_of_ours(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would keep the lock of the host for ever, and Ansible would wait for the end of standard output."""
    os.mkfifo(tmp_path / "unbind")
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    seen: list[list[str]] = []

    def look_first(pid: int, number: int) -> None:  # as if the child could not be ended: D state
        seen.append([os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")])
        os.close(lock)
        second = os.open(tmp_path / "lock", os.O_RDWR)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises when the child still holds it
        os.close(second)
        kill(pid, number)

    kill = os.kill
    monkeypatch.setattr(os, "kill", look_first)
    with pytest.raises(PassthroughError):
        host.write_attribute("/unbind", "1", timeout=0.2)
    assert len(seen) == 1
    assert all(name.startswith("pipe:") for name in seen[0])
    assert len(seen[0]) == 1


def test_a_child_that_finishes_after_the_caller_gave_up_ends_silently(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It must never return into its copy of the caller's code, even when nobody hears its answer any more."""
    os.mkfifo(tmp_path / "unbind")
    pids: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: pids.append(pid))  # a child that no signal reaches
    with pytest.raises(PassthroughError):
        host.write_attribute("/unbind", "late", timeout=0.1)
    monkeypatch.undo()
    assert (tmp_path / "unbind").read_text() == "late"  # now it goes on
    _unused, status = os.waitpid(pids[0], 0)
    assert status == 0
    assert capfd.readouterr() == ("", "")


# -- commands ------------------------------------------------------------------------------------------------


def _program(root: Path, name: str, mode: int = 0o755) -> None:
    path = root / name.lstrip("/")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)


def test_programs_are_found_where_the_system_has_them(host: Host, tmp_path: Path) -> None:
    _program(tmp_path, "/bin/tool")
    _program(tmp_path, "/usr/sbin/tool")
    _program(tmp_path, "/usr/bin/data", 0o644)
    (tmp_path / "usr/bin/folder").mkdir()
    assert host.which("tool") == "/usr/sbin/tool"
    assert host.which("data") is None
    assert host.which("folder") is None
    assert host.which("nothing") is None


def test_output_is_untranslated_and_no_shell_reads_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    monkeypatch.setenv("LANGUAGE", "de")
    monkeypatch.setenv("PATH", "/somewhere")
    done = Host().run(
        ["sh", "-c", 'echo "$LC_ALL $LANGUAGE $PATH"; printf %s "$1"; cat >&2', "sh", "$(id); *"], stdin="in"
    )
    assert done.stdout.startswith("C C /usr/local/sbin:")
    assert done.stdout.endswith("\n$(id); *")
    assert done.stderr == "in"
    assert done.argv[0] == "sh"


def test_a_command_never_waits_for_input() -> None:
    assert Host().run(["cat"], timeout=5).stdout == ""


def test_undecodable_output_and_input() -> None:
    assert Host().run(["printf", r"a\377b"]).stdout == "a\N{REPLACEMENT CHARACTER}b"
    raw = b"caf\xe9".decode("utf-8", "surrogateescape")
    assert Host().run(["od", "-An", "-tx1"], stdin=raw).stdout.split() == ["63", "61", "66", "e9"]


def test_a_missing_command_names_the_program_and_what_it_was_for() -> None:
    with pytest.raises(PassthroughError) as caught:
        Host().run(["no-such-program-here", "--flag"])
    assert caught.value.code == "command_missing"
    assert "no-such-program-here is not installed" in str(caught.value)
    assert "--flag" in str(caught.value)


def test_a_command_that_cannot_be_started(tmp_path: Path) -> None:
    _program(tmp_path, "tool", 0o644)
    with pytest.raises(PassthroughError, match="could not be started: Permission denied") as caught:
        Host().run([str(tmp_path / "tool")])
    assert caught.value.code == "command_not_started"


def test_a_failure_tells_status_and_the_end_of_what_was_printed() -> None:
    with pytest.raises(PassthroughError) as caught:
        Host().run(["sh", "-c", "yes | head -c 5000; echo the reason >&2; exit 3"])
    result = caught.value.as_result()
    assert (result["code"], result["rc"]) == ("command_failed", 3)
    assert result["msg"].endswith("ended with status 3: the reason")
    with pytest.raises(PassthroughError) as caught:
        Host().run(["sh", "-c", "yes | head -c 5000; echo the end; exit 1"])
    assert str(caught.value).endswith("the end")
    assert len(str(caught.value)) < 2200
    with pytest.raises(PassthroughError, match="status 1: it printed nothing"):
        Host().run(["false"])


def test_a_status_may_be_looked_at_instead() -> None:
    assert Host().run(["sh", "-c", "exit 3"], check=False).rc == 3


def test_a_command_that_takes_too_long_is_ended_with_everything_it_started(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(PassthroughError, match=r"did not end within 0\.5 s and was stopped") as caught:
        Host().run(["sh", "-c", f"sh -c 'echo $$ >{tmp_path}/helper; sleep 60; echo; :' & wait"], timeout=0.5)
    assert caught.value.code == "command_timeout"
    assert time.monotonic() - started < 5
    helper = int((tmp_path / "helper").read_text())
    for _unused in range(100):
        if re.search(r"^State:\s+[ZX]", _status(helper), re.MULTILINE) or not _status(helper):
            break
        time.sleep(0.02)
    else:
        os.kill(helper, signal.SIGKILL)
        pytest.fail("the helper of the command goes on")


def _status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def test_commands_go_through_the_runner_that_was_given(tmp_path: Path) -> None:
    seen = []

    def runner(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        seen.append((list(argv), timeout, stdin))
        return Completed(tuple(argv), 0, "out", "")

    host = Host(str(tmp_path), runner)
    assert host.run(["a", "b"], timeout=7, stdin="x").stdout == "out"
    assert seen == [(["a", "b"], 7, "x")]


def test_the_time_is_utc_in_whole_seconds() -> None:
    assert Host(clock=lambda: 86_400.9).now() == "1970-01-02T00:00:00Z"


def test_a_temporary_directory_is_gone_afterwards_whatever_happens(tmp_path: Path) -> None:
    host = Host(str(tmp_path))

    def fail_with_it() -> None:
        with host.temporary_directory("test") as directory:
            assert directory.startswith("/run/kvm-passthrough-test-")
            Path(host.path(f"{directory}/file")).write_text("x")
            raise RuntimeError("odd")

    with pytest.raises(RuntimeError, match="odd"):
        fail_with_it()
    assert host.list_dir("/run") == []
