# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot import extlinux_conf
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.extlinux import (
    BY_HAND,
    CONFIG,
    DEFAULTS,
    HEADER,
    ROOT,
    VERSION,
    ExtlinuxHost,
)
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import failed, refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import unwritable
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

DROP_IN = "/etc/u-boot-menu/conf.d/a.conf"
PACKAGED = "/usr/share/u-boot-menu/conf.d/board.conf"
OVERRIDE = "/etc/u-boot-menu/conf.d/zz-kvm-passthrough.conf"

HOSTS: dict[str, dict[str, Any]] = {
    "as Debian ships it": {"defaults": '#U_BOOT_PARAMETERS="ro quiet"\n'},
    "no settings": {},
    "double quotes": {"defaults": 'U_BOOT_PARAMETERS="ro quiet intel_iommu=off"\n'},
    "single quotes": {"defaults": "U_BOOT_PARAMETERS='ro quiet dyndbg=\"file x +p\"' # why\n"},
    "no quotes": {"defaults": "U_BOOT_PARAMETERS=quiet\nU_BOOT_TIMEOUT=10"},
    "no final newline": {"defaults": "U_BOOT_TIMEOUT=10"},
    "set twice": {"defaults": 'U_BOOT_PARAMETERS="intel_iommu=off"\nU_BOOT_PARAMETERS="quiet"\n'},
    "appended": {"defaults": 'U_BOOT_PARAMETERS="quiet"\nU_BOOT_PARAMETERS="$U_BOOT_PARAMETERS intel_iommu=off x"\n'},
    "continuation line": {"defaults": 'U_BOOT_PARAMETERS="quiet \\\n intel_iommu=off"\n'},
    "carriage returns": {"defaults": 'U_BOOT_PARAMETERS="quiet"\r\n'},
    "not ASCII": {"defaults": '# Größe\nU_BOOT_PARAMETERS="vconsole.font=ö quiet"\n'},
    "command substitution": {"defaults": 'U_BOOT_PARAMETERS="quiet `echo x=1` intel_iommu=off"\n'},
    "drop-in": {"defaults": 'U_BOOT_PARAMETERS="a"\n', "files": {DROP_IN: 'U_BOOT_PARAMETERS="quiet b"\n'}},
    "of a package": {"defaults": "", "files": {PACKAGED: 'U_BOOT_PARAMETERS="quiet board=1"\n'}},
    "kernel-install's file": {"defaults": "", "files": {"/etc/kernel/cmdline": "root=/dev/vda2 ro quiet\n"}},
    "by hand": {"files": {CONFIG: BY_HAND}},
    "by hand, carriage returns": {"files": {CONFIG: BY_HAND.replace("\n", "\r\n")}},
    "by hand, no final newline": {"files": {CONFIG: f"label x\nlinux /x\nappend {ROOT} a"}},
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "quoted": (['dyndbg="file drivers/vfio/* +p; module x +p"', "vfio-pci.ids=8086:10ca,1234:11e8"], ["intel_iommu"]),
}


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> ExtlinuxHost:
    return ExtlinuxHost(tmp_path, 'U_BOOT_PARAMETERS="ro quiet intel_iommu=off"\n')


# -- the four runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", HOSTS)
def test_check_run_check_run(tmp_path: Path, name: str, wanted: str) -> None:
    on = ExtlinuxHost(tmp_path, **HOSTS[name])
    request = Request.of(*REQUESTS[wanted])
    before = tree_listing(on.root)
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_listing(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    assert expected["changed"]
    assert expected["reboot_required"]

    found = configuration(on.host)
    assert expected["configured"]["after"] == {"normal": str(found.normal), "recovery": str(found.recovery)}
    assert [entry.as_result() for entry in found.entries] == expected["entries"]["after"]
    changeable = [entry for entry in found.entries if entry.generated or entry.in_place]
    assert changeable
    for entry in changeable:
        assert not request.unmet(entry.command_line)
    assert os.listdir(on.path("/run")) == ["kvm-passthrough.lock"]

    after = tree_listing(on.root)
    for check in (True, False):
        again = run(on, *REQUESTS[wanted], check=check)
        assert (again["changed"], again["actions"]) == (False, [])
        assert again["entries"]["before"] == again["entries"]["after"] == expected["entries"]["after"]
    assert tree_listing(on.root) == after


# -- where a parameter is written --------------------------------------------------------------------------


def test_only_the_words_change(on: ExtlinuxHost) -> None:
    on.write(DEFAULTS, '# mine\nU_BOOT_PARAMETERS="ro  quiet intel_iommu=off" # why\nU_BOOT_TIMEOUT=1\n')
    result = run(on, ["intel_iommu=on"])
    assert on.read(DEFAULTS) == '# mine\nU_BOOT_PARAMETERS="ro  quiet intel_iommu=on" # why\nU_BOOT_TIMEOUT=1\n'
    assert [action["target"] for action in result["actions"]] == [DEFAULTS, CONFIG]
    assert on.lines()[:2] == [f"{ROOT} ro  quiet intel_iommu=on", f"{ROOT} ro  intel_iommu=on single"]


def test_rescue_labels_are_told_apart(on: ExtlinuxHost) -> None:
    result = run(on, ["iommu=pt"])
    assert [entry["recovery"] for entry in result["entries"]["after"]] == [False, True] * 2
    assert result["configured"]["after"] == {
        "normal": "ro quiet intel_iommu=off iommu=pt",
        "recovery": "ro intel_iommu=off iommu=pt single",
    }


def test_the_last_file_wins(tmp_path: Path) -> None:
    on = ExtlinuxHost(tmp_path, **HOSTS["drop-in"])
    run(on, ["iommu=pt"])
    assert on.read(DROP_IN) == 'U_BOOT_PARAMETERS="quiet b iommu=pt"\n'
    assert on.read(DEFAULTS) == 'U_BOOT_PARAMETERS="a"\n'


def test_the_file_of_a_package_is_overridden_and_not_edited(tmp_path: Path) -> None:
    on = ExtlinuxHost(tmp_path, **HOSTS["of a package"])
    run(on, ["iommu=pt"])
    assert on.read(PACKAGED) == 'U_BOOT_PARAMETERS="quiet board=1"\n'
    assert on.read(OVERRIDE) == 'U_BOOT_PARAMETERS="quiet board=1 iommu=pt"\n'
    run(on, ["iommu=off"])
    assert on.read(OVERRIDE) == 'U_BOOT_PARAMETERS="quiet board=1 iommu=off"\n'


def test_the_default_of_the_program_is_kept(tmp_path: Path) -> None:
    on = ExtlinuxHost(tmp_path, "U_BOOT_TIMEOUT=10\n")
    run(on, ["iommu=pt"])
    assert on.read(DEFAULTS) == 'U_BOOT_TIMEOUT=10\nU_BOOT_PARAMETERS="ro quiet iommu=pt"\n'
    (record,) = StateStore(on.host).all("kernel_parameter")
    assert (record.before, record.after) == ({}, {"U_BOOT_PARAMETERS": ["iommu=pt"]})


def test_a_menu_by_hand_is_changed_in_place(tmp_path: Path) -> None:
    on = ExtlinuxHost(tmp_path, **HOSTS["by hand"])
    result = run(on, ["intel_iommu=on"])
    assert on.read(CONFIG) == BY_HAND.replace("rw  intel_iommu=off", "rw  intel_iommu=on").replace(
        "kernel /boot/vmlinuz.old\n", "kernel /boot/vmlinuz.old\n\tappend intel_iommu=on\n"
    )
    entries = result["entries"]["after"]
    assert [entry["title"] for entry in entries] == ["Debian", "plain", "elsewhere"]
    assert [(entry["generated"], entry["in_place"]) for entry in entries] == [
        (False, True),
        (False, True),
        (False, False),
    ]
    assert "which nothing generates" in result["actions"][0]["description"]
    (record,) = StateStore(on.host).all("kernel_parameter")
    assert record.before == {f"{CONFIG}:linux": ["intel_iommu=off"], f"{CONFIG}:elsewhere": ["intel_iommu=off"]}


def test_a_stale_menu_is_generated_again(on: ExtlinuxHost) -> None:
    on.write(DEFAULTS, 'U_BOOT_PARAMETERS="ro quiet intel_iommu=on"\n')
    result = run(on, ["intel_iommu=on"])
    assert [action["target"] for action in result["actions"]] == [CONFIG]
    assert not run(on, ["intel_iommu=on"])["changed"]


def test_the_next_kernel_has_it_too(on: ExtlinuxHost) -> None:
    run(on, ["intel_iommu=on"])
    on.kernels.append("6.12.99")
    on.update(on.path(CONFIG).parent)
    assert len(on.lines()) == 6
    assert not run(on, ["intel_iommu=on"])["changed"]


# -- what proves it ----------------------------------------------------------------------------------------


def test_the_device_tree_and_the_root_prove_it(on: ExtlinuxHost) -> None:
    assert detect(on.host).evidence == (
        "the device tree says U-Boot 2025.01-dirty",
        f"label l0 of {CONFIG} has the root= that runs",
    )


def test_syslinux_proves_itself(on: ExtlinuxHost) -> None:
    on.path(VERSION).unlink()
    on.write("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-6.12.57 initrd=/boot/initrd.img-6.12.57 ro\n")
    assert detect(on.host).name == "extlinux"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/sys/firmware/efi/fw_platform_size", "64\n"),
        (VERSION, ""),
        ("/proc/cmdline", "root=/dev/sdx ro\n"),
        ("/proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz-6.12.57 root=/dev/vda2 ro\n"),
    ],
)
def test_a_menu_alone_proves_nothing(on: ExtlinuxHost, path: str, text: str) -> None:
    on.write(path, text)
    assert refused(on, "bootloader_unproved", ["iommu=pt"]).problems[0].details["evidence"] == []
    assert detect(on.host, "extlinux").name == "extlinux"


def test_what_a_killed_run_left_is_removed(on: ExtlinuxHost) -> None:
    left = "/boot/extlinux/.extlinux.conf.abc.kvm-passthrough.tmp"
    on.write(left, "half")
    result = run(on, ["intel_iommu=off"])
    assert [action["description"].split()[0] for action in result["actions"]] == ["remove"]
    assert not on.path(left).exists()
    assert not run(on, ["intel_iommu=off"])["changed"]


# -- what is refused, before anything is touched -----------------------------------------------------------


@pytest.mark.parametrize(
    "defaults",
    [
        'U_BOOT_PARAMETERS="quiet `echo intel_iommu=off`"\n',
        '[ -e / ] && U_BOOT_PARAMETERS="other"\n',
        'OFF="off z"; U_BOOT_PARAMETERS="intel_iommu=$OFF"\n',
        'eval "U_BOOT_PARAMETERS=fixed"\n',
        'cat >/dev/null <<EOF\nEOF\nU_BOOT_PARAMETERS="quiet"\n',
    ],
)
def test_settings_that_cannot_be_edited_safely(tmp_path: Path, defaults: str) -> None:
    error = refused(ExtlinuxHost(tmp_path, defaults), "settings_too_clever", ["intel_iommu=on"])
    assert "U_BOOT_PARAMETERS" in str(error)


def test_settings_no_shell_can_source(on: ExtlinuxHost) -> None:
    on.write(DROP_IN, "X=(\n")
    message = str(refused(on, "settings_not_evaluated", ["iommu=pt"]))
    assert "u-boot-update would fail the same way" in message
    assert "GRUB" not in message
    assert "grub" not in message


def test_several_lines_break_the_menu(tmp_path: Path) -> None:
    on = ExtlinuxHost(
        tmp_path, "", {"/etc/kernel/cmdline": "# why\nro quiet\n", CONFIG: HEADER + "label l0\nlinux /x\n"}
    )
    on.write("/proc/cmdline", "ro\n")
    assert "several lines" in str(refused(on, "settings_not_understood", ["iommu=pt"], bootloader="extlinux"))


def test_a_generator_that_is_switched_off(on: ExtlinuxHost) -> None:
    on.write(DEFAULTS, "U_BOOT_UPDATE=false\n")
    assert "switched off" in str(refused(on, "settings_not_understood", ["iommu=pt"]))


def test_a_generator_of_another_distribution(tmp_path: Path) -> None:
    on = ExtlinuxHost(tmp_path, **HOSTS["by hand"])
    on.write("/sbin/update-extlinux", "", 0o755)
    assert "update-extlinux" in str(refused(on, "bootloader_unsupported", ["iommu=pt"]))


def test_no_label_of_this_system(tmp_path: Path) -> None:
    on = ExtlinuxHost(tmp_path, files={CONFIG: "label x\nkernel /x\nappend root=/dev/vdb1\nlabel y\nlocalboot 1\n"})
    refused(on, "boot_entries_missing", ["iommu=pt"], bootloader="extlinux")


@pytest.mark.parametrize("name", ["double quotes", "by hand"])
def test_a_command_line_longer_than_the_kernel_reads(tmp_path: Path, name: str) -> None:
    on = ExtlinuxHost(tmp_path, **HOSTS[name])
    refused(on, "command_line_too_long", [f"a{number}={'x' * 100}" for number in range(20)])


# -- failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "rc", "code"),
    [
        (None, 1, "command_failed"),
        (None, 0, "generator_failed"),
        ("", 0, "boot_entries_missing"),
        ("label l0\nlinux /boot/vmlinuz-6.12.57\nappend quiet\n", 0, "boot_entries_wrong"),
        ("label l0\nlinux /other\nappend intel_iommu=on\n", 0, "boot_entries_wrong"),
    ],
)
def test_a_failing_generator_leaves_everything_as_it_was(
    on: ExtlinuxHost, made: str | None, rc: int, code: str
) -> None:
    def answer(argv: Sequence[str]) -> Completed | None:
        if argv[0] != "unshare":
            return None
        if made is not None:
            Path(argv[6], "extlinux.conf").write_text(made)
        return Completed(tuple(argv), rc, "", "no space left")

    on.intercept = answer
    failed(on, code, ["intel_iommu=on"])
    on.intercept = None
    assert run(on, ["intel_iommu=on"])["changed"]


def test_a_menu_that_changes_all_the_time_is_left_alone(on: ExtlinuxHost) -> None:
    def answer(argv: Sequence[str]) -> None:
        if argv[0] == "unshare":
            on.write(CONFIG, on.read(CONFIG) + "# theirs\n")

    on.intercept = answer
    with pytest.raises(PassthroughError) as caught:
        run(on, ["intel_iommu=on"])
    assert caught.value.code == "file_changed_meanwhile"
    assert on.read(CONFIG).endswith("# theirs\n")
    assert "off" in on.read(DEFAULTS)


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("name", ["double quotes", "by hand"])
def test_a_boot_partition_that_is_read_only_or_full(tmp_path: Path, name: str, error: int) -> None:
    on = ExtlinuxHost(tmp_path, **HOSTS[name])
    with unwritable(on.path("/boot"), error):
        found = failed(on, "file_unwritable", ["intel_iommu=on"])
    assert os.strerror(error) in str(found)


# -- the menu itself ---------------------------------------------------------------------------------------


def test_labels_of_a_menu() -> None:
    found = extlinux_conf.labels(BY_HAND)
    assert [(label.name, label.title, label.kernel, str(label.command_line)) for label in found] == [
        ("linux", "Debian", "/boot/vmlinuz", "root=/dev/vda2 rw intel_iommu=off"),
        ("plain", "plain", "/boot/vmlinuz.old", ""),
        ("elsewhere", "elsewhere", "/boot/other", "root=/dev/vdb1 intel_iommu=off"),
    ]


def test_the_last_append_line_counts() -> None:
    text = "label a\nappend x\nlinux /k\nappend y\nmenu default\n"
    assert [str(label.command_line) for label in extlinux_conf.labels(text)] == ["y"]


PIECES = ["label a\n", "linux /x\n", "append ", "q=1 ", "iommu=off", "\n", "\r\n", '"', "#", " "]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_an_edit_of_any_menu_is_right(text: str) -> None:
    request = Request.of(["iommu=pt"], ["q"])
    before = extlinux_conf.labels(text)
    names = frozenset(label.name for label in before)
    if any(str(label.command_line).count('"') % 2 for label in before):
        with pytest.raises(PassthroughError, match="never closed"):
            extlinux_conf.with_request(text, request, names)
        return
    after = extlinux_conf.labels(extlinux_conf.with_request(text, request, names))
    assert [label.command_line for label in after] == [request.apply(label.command_line) for label in before]
