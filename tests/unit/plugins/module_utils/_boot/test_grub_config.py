# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.grub_script import boot_entries
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core import files
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.tests.unit.support.boot import (
    CONFIG,
    DEBIAN_13,
    DEFAULTS,
    GENERATOR,
    GrubHost,
)
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import failed, refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

# -- entries -----------------------------------------------------------------------------------------------


def test_entries_that_were_not_generated_again_are(debian: GrubHost) -> None:
    debian.write(DEFAULTS, DEBIAN_13.replace("intel_iommu=off", "intel_iommu=on"))
    expected = run(debian, ["intel_iommu=on"], check=True)
    assert [action["target"] for action in expected["actions"]] == [CONFIG]
    assert expected["configured"]["before"] == expected["configured"]["after"]
    assert run(debian, ["intel_iommu=on"]) == expected
    assert "off" not in re.sub(r"(?s)### BEGIN /etc/grub.d/40_custom.*", "", debian.read(CONFIG))
    assert not debian.path(STATE_PATH).exists()
    assert not run(debian, ["intel_iommu=on"])["changed"]


def test_a_single_stale_entry_is_enough(debian: GrubHost) -> None:
    text = debian.read(CONFIG)
    place = text.rindex("quiet intel_iommu=off")
    debian.write(CONFIG, text[:place] + text[place:].replace("quiet intel_iommu=off", "quiet", 1))
    result = run(debian, ["intel_iommu=off"])
    assert len(result["actions"]) == 1
    assert debian.read(CONFIG) == text


def test_entries_by_hand_are_reported_and_left_alone(debian: GrubHost) -> None:
    result = run(debian, ["intel_iommu=on"])
    custom = [entry for entry in result["entries"]["after"] if not entry["generated"]]
    assert [(entry["title"], entry["command_line"]) for entry in custom] == [
        ("Rescue system", "root=/dev/sdb1 intel_iommu=off")
    ]
    assert custom[0] in result["entries"]["before"]
    (warning,) = result["warnings"]
    assert "'Rescue system' still has intel_iommu=off" in warning
    assert "/etc/grub.d/40_custom" in warning
    assert run(debian, ["intel_iommu=on"])["warnings"] == [warning]  # as long as it is so
    assert "warnings" not in run(debian, ["iommu=pt"])
    assert "warnings" not in run(debian, [], ["amd_iommu"])


def test_entries_of_other_systems_are_their_own_business(debian: GrubHost) -> None:
    debian.write(GENERATOR, debian.read(GENERATOR).replace("40_custom", "30_os-prober"), 0o755)
    debian.update_grub()
    assert "warnings" not in run(debian, ["intel_iommu=on"])


def test_a_line_by_hand_in_grub_cfg_itself_is_named_too(debian: GrubHost) -> None:
    debian.write(CONFIG, f"{debian.read(CONFIG)}menuentry mine {{\n linux /vmlinuz iommu=off\n}}\n")
    (warning,) = run(debian, ["iommu=pt"], check=True)["warnings"]
    assert "'mine' still has iommu=off" in warning


def test_a_kernel_installed_without_an_entry_gets_one(debian: GrubHost) -> None:
    debian.write("/boot/vmlinuz-6.1.0-14-amd64", "")
    run(debian, ["intel_iommu=on"])
    kernels = [entry.kernel for entry in configuration(debian.host).entries]
    assert kernels.count("/boot/vmlinuz-6.1.0-14-amd64") == 3
    assert not run(debian, ["intel_iommu=on"])["changed"]


def test_entries_are_generated_in_the_language_of_the_system(debian: GrubHost) -> None:
    debian.write("/etc/default/locale", '#  comment\nLANGUAGE=de\nLANG="de_DE.UTF-8"\n')
    run(debian, ["iommu=pt"])
    (command,) = [command for command in debian.commands if "grub-mkconfig" in command]
    assert command[:7] == ("env", "-u", "LC_ALL", "-u", "LANGUAGE", "LANG=de_DE.UTF-8", "grub-mkconfig")


# -- failures and sudden ends ------------------------------------------------------------------------------


def _generator(answer: Callable[[str], Completed | None]) -> Callable[[Sequence[str]], Completed | None]:
    return lambda argv: answer(argv[-1]) if "grub-mkconfig" in argv else None


def _failed(output: str) -> Completed:
    Path(output).write_text("menuentry 'half")
    return Completed(("grub-mkconfig",), 1, "", "no space left")


def _writes(text: str) -> Callable[[str], Completed]:
    def answer(output: str) -> Completed:
        Path(output).write_text(text)
        return Completed(("grub-mkconfig",), 0, "", "")

    return answer


def _times_out(output: str) -> Completed:
    raise subprocess.TimeoutExpired("grub-mkconfig", 1200)


HEADER = "### BEGIN /etc/grub.d/10_linux ###\n"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (_failed, "command_failed"),
        (_times_out, "command_timeout"),
        (lambda output: Completed(("grub-mkconfig",), 0, "", ""), "generator_failed"),
        (_writes(""), "boot_entries_missing"),
        (_writes("menuentry 'half"), "boot_entries_not_understood"),
        (_writes(HEADER + "menuentry x {\n linux /boot/vmlinuz quiet\n}\n"), "boot_entries_wrong"),
    ],
)
def test_a_failing_generator_leaves_everything_as_it_was(
    debian: GrubHost, answer: Callable[[str], Completed | None], code: str
) -> None:
    debian.intercept = _generator(answer)
    error = failed(debian, code, ["intel_iommu=on"])
    assert error.extra["undone"] == [f"change the kernel parameters in {DEFAULTS}"]
    debian.intercept = None
    assert run(debian, ["intel_iommu=on"])["changed"]


def test_a_kernel_that_is_installed_meanwhile_keeps_its_entry(debian: GrubHost) -> None:
    generated = 0

    def answer(output: str) -> Completed:
        nonlocal generated
        generated += 1
        debian.generate(output)
        if generated == 1:
            debian.write("/boot/vmlinuz-6.1.0-14-amd64", "new")
            debian.update_grub()
        return Completed(("grub-mkconfig",), 0, "", "")

    debian.intercept = _generator(answer)
    assert run(debian, ["iommu=pt"])["changed"]
    debian.intercept = None
    entries = [entry for entry in boot_entries(debian.read(CONFIG)) if entry.is_generated]
    assert {entry.kernel for entry in entries} >= {"/boot/vmlinuz-6.1.0-14-amd64"}
    assert not run(debian, ["iommu=pt"])["changed"]


def test_a_grub_cfg_that_changes_all_the_time_is_left_alone(debian: GrubHost) -> None:
    written: list[str] = []

    def answer(output: str) -> Completed:
        debian.generate(output)
        written.append(f"{debian.read(CONFIG)}# {len(written)}\n")
        debian.write(CONFIG, written[-1])
        return Completed(("grub-mkconfig",), 0, "", "")

    debian.intercept = _generator(answer)
    with pytest.raises(PassthroughError) as caught:
        run(debian, ["iommu=pt"])
    assert caught.value.code == "file_changed_meanwhile"
    assert (debian.read(CONFIG), debian.read(DEFAULTS)) == (written[-1], DEBIAN_13)


def test_a_script_check_that_fails_keeps_the_old_configuration(debian: GrubHost) -> None:
    debian.write("/usr/bin/grub-script-check", "#!/bin/sh\n", 0o755)
    before = debian.read(CONFIG)
    debian.intercept = lambda argv: (
        Completed(tuple(argv), 1, "", "syntax error at line 1") if argv[0] == "grub-script-check" else None
    )
    with pytest.raises(PassthroughError, match="syntax error at line 1"):
        run(debian, ["iommu=pt"])
    assert (debian.read(CONFIG), debian.read(DEFAULTS)) == (before, DEBIAN_13)


def test_what_does_not_hold_is_undone_with_the_old_grub_cfg(debian: GrubHost) -> None:
    original = debian.read(CONFIG)
    checks = 0

    def sabotage(argv: Sequence[str]) -> Completed | None:
        nonlocal checks
        if "sh" in argv:
            checks += 1
            if checks == 3:  # the look at the host after the change
                debian.write(CONFIG, original)
        return None

    debian.intercept = sabotage
    failed(debian, "not_converged", ["intel_iommu=on"])


def test_what_a_killed_run_left_beside_a_finished_file_goes(debian: GrubHost) -> None:
    run(debian, ["intel_iommu=on"])
    for path in (DEFAULTS, CONFIG):
        debian.write(f"{os.path.dirname(path)}/.{os.path.basename(path)}.x{files.TEMPORARY}", "GRUB_")
    before = tree_hash(debian.root)
    expected = run(debian, ["intel_iommu=on"], check=True)
    assert tree_hash(debian.root) == before
    assert [action["target"] for action in expected["actions"]] == [DEFAULTS, CONFIG]
    assert run(debian, ["intel_iommu=on"]) == expected
    assert not list(debian.root.rglob("*.tmp"))
    assert not run(debian, ["intel_iommu=on"])["changed"]


def test_the_file_system_with_grub_cfg_is_written_back_after_the_swap(debian: GrubHost) -> None:
    swapped = []

    def look(argv: Sequence[str]) -> Completed | None:
        if argv[0] != "sync":
            return None
        swapped.append((tuple(argv), debian.read(CONFIG)))
        return Completed(tuple(argv), 1, "", "sync: error")  # which is not ours to mend

    debian.intercept = look
    assert run(debian, ["intel_iommu=on"])["changed"]
    assert swapped == [(("sync", "-f", str(debian.path(CONFIG))), debian.read(CONFIG))]


@pytest.mark.parametrize("path", [DEFAULTS, CONFIG])
def test_a_read_only_file_system_is_refused_before_anything_is_done(
    debian: GrubHost, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    # What access(2) answers on a read-only mount, to root too.
    access = os.access
    directory = str(debian.path(path).parent)
    monkeypatch.setattr(
        os, "access", lambda place, mode: not (mode == os.W_OK and place == directory) and access(place, mode)
    )
    error = refused(debian, "file_unwritable", ["intel_iommu=on"])
    assert f"{path} cannot be replaced: {os.path.dirname(path)} is not writable" in str(error)
    assert "remount" in str(error.problems[0].remedy)
    assert not [command for command in debian.commands if "grub-mkconfig" in command]
    assert not run(debian, ["intel_iommu=off"])["changed"]  # nothing to write, nothing to complain about


def test_a_boot_file_system_that_fills_up_loses_nothing(debian: GrubHost, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree_hash(debian.root)
    boot_directory = str(debian.path(CONFIG).parent)
    written: list[bytes] = []
    fdopen = os.fdopen

    class Full:
        """A stream on a file system that takes the first bytes only."""

        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *_unused: object) -> None:
            self._stream.close()

        def write(self, content: bytes) -> int:
            written.append(content[:512])
            self._stream.write(content[:512])
            self._stream.flush()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(descriptor: int, mode: str) -> Any:
        stream = fdopen(descriptor, mode)
        return Full(stream) if os.readlink(f"/proc/self/fd/{descriptor}").startswith(boot_directory) else stream

    monkeypatch.setattr(os, "fdopen", opened)
    with pytest.raises(PassthroughError, match="No space left on device") as caught:
        run(debian, ["intel_iommu=on"])
    assert caught.value.code == "file_unwritable"
    assert caught.value.extra["undone"] == [f"change the kernel parameters in {DEFAULTS}"]
    assert len(written) == 1
    assert tree_hash(debian.root) == before
    monkeypatch.undo()
    assert run(debian, ["intel_iommu=on"])["changed"]


# -- the real generator ------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.exists(GENERATOR), reason="grub-mkconfig (package grub-common) is not installed here")
def test_the_real_grub_mkconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's own scripts, told to look into a directory instead of this machine's /etc and /boot."""
    on = GrubHost(tmp_path, DEBIAN_13, kernels=["6.1.0-13-amd64"])
    probe = tmp_path / "usr/sbin/grub-probe"
    on.write(
        "/usr/sbin/grub-probe",
        '#!/bin/sh\ncase "$*" in\n*fs_uuid*) echo 1234-abcd ;;\n*=fs*) echo ext2 ;;\n*=device*) echo /dev/vda1 ;;\n'
        "*=partmap*) echo msdos ;;\n*=hints_string*) ;;\n*=abstraction*) ;;\n*) echo x ;;\nesac\n",
        0o755,
    )
    on.write("/etc/os-release", "NAME=Debian\n")
    script = Path(GENERATOR).read_text()
    script = script.replace('sysconfdir="/etc"', f'sysconfdir="{tmp_path}/etc"')
    script = script.replace('grub_probe="${sbindir}/grub-probe"', f'grub_probe="{probe}"; export grub_probe')
    assert script.count(str(tmp_path)) >= 2
    on.write(GENERATOR, script, 0o755)
    for name in ("00_header", "10_linux", "40_custom"):
        text = Path("/etc/grub.d", name).read_text()
        if name == "10_linux":
            text = text.replace(" /boot/", f" {tmp_path}/boot/").replace(" /vmlinu", f" {tmp_path}/nowhere/vmlinu")
        on.write(f"/etc/grub.d/{name}", text, 0o755)
    monkeypatch.setenv("EUID", "0")
    on.update_grub()
    on.write("/proc/cmdline", f"BOOT_IMAGE={boot_entries(on.read(CONFIG))[0].kernel}\n")
    present = ["intel_iommu=on", 'dyndbg="file drivers/vfio/* +p; module x +p"']
    expected = run(on, present, check=True)
    assert len(expected["entries"]["before"]) == 3
    assert [entry["recovery"] for entry in expected["entries"]["before"]] == [False, False, True]
    assert run(on, present) == expected
    after = [entry.as_result() for entry in configuration(on.host).entries]
    assert after == expected["entries"]["after"]
    assert after[0]["command_line"].endswith(
        'console=tty0 console=ttyS0,115200 quiet intel_iommu=on "dyndbg=file drivers/vfio/* +p; module x +p"'
    )
    assert not run(on, present)["changed"]
