# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot import zipl_conf
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import CommandLine, Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build, configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import failed, refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing
from ansible_collections.kvm.passthrough.tests.unit.support.zipl import (
    CONFIG,
    DEBIAN,
    KERNELS,
    LINE,
    RHEL,
    ROOT,
    SETTINGS,
    UBUNTU,
    ZiplHost,
    entry,
    entry_path,
)

ENTRIES = {version: entry(version) for version in KERNELS}
RESCUE = "0-rescue"
PARMFILE = "/boot/parmfile"
WITH_PARMFILE = DEBIAN.replace(f"parameters = {LINE}", f"parmfile = {PARMFILE}")

HOSTS: dict[str, dict[str, Any]] = {
    "Debian": {},
    "Ubuntu, a menu": {"config": UBUNTU},
    "entries": {"config": RHEL, "entries": ENTRIES},
    "entries and kernel-install's file": {"config": RHEL, "entries": ENTRIES, "files": {SETTINGS: f"{LINE}\n"}},
    "entries and sections": {"config": f"{RHEL}\n{DEBIAN[DEBIAN.index('[debian]') :]}", "entries": ENTRIES},
    "parmfile": {"config": WITH_PARMFILE, "files": {PARMFILE: f"{ROOT}\nquiet\n\nintel_iommu=off\n"}},
    "parmfile at an address": {
        "config": WITH_PARMFILE.replace(PARMFILE, f"{PARMFILE},0x1000"),
        "files": {PARMFILE: LINE},
    },
    "no final newline": {"config": DEBIAN.rstrip("\n")},
    "tabs and blanks": {"config": DEBIAN.replace("parameters = ", "\t parameters\t=\t ").replace("off", "off \t")},
    "comments": {"config": f"# Größe\n{DEBIAN}  # parameters = no\n"},
    "set twice": {"config": DEBIAN.replace("quiet", "intel_iommu=on iommu=off quiet")},
    "single quotes": {"config": DEBIAN.replace(LINE, f"'{LINE} dyndbg=\"file x +p\"'")},
    "quotes in plain": {"config": DEBIAN.replace(LINE, f'{LINE} dyndbg="file x +p"')},
    "default with target": {"config": DEBIAN.replace("default = debian", "default = debian\ntarget = /boot")},
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "quoted": (['dyndbg="file drivers/vfio/* +p; module x +p"', "vfio-pci.ids=8086:10ca,1234:11e8"], ["intel_iommu"]),
}


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> ZiplHost:
    return ZiplHost(tmp_path)


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", HOSTS)
def test_check_run_check_run(tmp_path: Path, name: str, wanted: str) -> None:
    on = ZiplHost(tmp_path, **HOSTS[name])
    before = tree_listing(on.root)
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_listing(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    assert expected["changed"]
    ours = {name: line for name, line in on.installed().items() if name != "elsewhere"}
    request = Request.of(*REQUESTS[wanted])
    assert ours
    assert [request.unmet(CommandLine.parse(line)) for line in ours.values()] == [()] * len(ours)
    after = tree_listing(on.root)
    for check in (True, False):
        assert not run(on, *REQUESTS[wanted], check=check)["changed"]
    assert tree_listing(on.root) == after
    ours_now = [entry for entry in configuration(on.host).entries if entry.in_place or entry.generated]
    assert {entry.title for entry in ours_now} >= set(ours)
    assert on.commands == [("zipl", "--noninteractive", "--dry-run"), ("zipl", "--noninteractive")]


def test_only_words_are_changed(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, UBUNTU)
    run(on, ["intel_iommu=on"])
    wanted = UBUNTU.replace(LINE, LINE.replace("=off", "=on"))
    assert on.read(CONFIG) == wanted
    assert "intel_iommu=off" in on.installed()["elsewhere"]
    assert "old" not in on.installed()


def test_a_section_without_parameters(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, DEBIAN.replace(f"parameters = {LINE}\n", ""))
    run(on, ["iommu=pt"])
    assert 'image = /boot/vmlinuz\nparameters = "iommu=pt"\nramdisk' in on.read(CONFIG)


def test_a_new_kernel_gets_them_too(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, RHEL, ENTRIES)
    result = run(on, ["intel_iommu=on"])
    assert on.read(SETTINGS) == f"{ROOT} quiet intel_iommu=on\n"
    assert result["configured"]["after"]["normal"] == f"{ROOT} quiet intel_iommu=on"
    assert all(entry["generated"] for entry in result["entries"]["after"])


def test_the_rescue_entry_gets_nothing_new(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, RHEL, {**ENTRIES, RESCUE: entry(RESCUE)})
    run(on, ["intel_iommu=on", "iommu=pt"])
    assert f"options {ROOT} quiet intel_iommu=on\n" in on.read(entry_path(RESCUE))
    assert "iommu=pt" in on.read(entry_path(KERNELS[0]))


def test_the_default_section_alone(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, UBUNTU, files={"/boot/vmlinuz.old": "", "/boot/initrd.img.old": ""})
    run(on, ["intel_iommu=on"], kernels="default")
    assert "intel_iommu=on" in on.installed()["ubuntu"]
    assert "intel_iommu=off" in on.installed()["old"]
    assert not run(on, ["intel_iommu=on"], kernels="default")["changed"]


@pytest.mark.parametrize("name", ["entries", "parmfile"])
def test_the_default_kernel_where_it_is_no_section(tmp_path: Path, name: str) -> None:
    refused(ZiplHost(tmp_path, **HOSTS[name]), "kernels_default_unsupported", ["iommu=pt"], kernels="default")


@pytest.mark.parametrize("name", ["Debian", "entries", "parmfile"])
def test_right_files_that_were_not_installed_are_a_change(tmp_path: Path, name: str) -> None:
    on = ZiplHost(tmp_path, **HOSTS[name])
    for path in (CONFIG, PARMFILE, SETTINGS, *map(entry_path, KERNELS)):
        if on.path(path).exists():
            on.write(path, on.read(path).replace("=off", "=on"))
    if name == "entries":
        on.write(SETTINGS, f"{LINE.replace('=off', '=on')}\n")
    result = run(on, ["intel_iommu=on"])
    assert [action["target"] for action in result["actions"]] == ["the boot record"]
    assert "intel_iommu=off" not in str(on.installed())


def test_a_boot_map_that_is_gone(on: ZiplHost) -> None:
    run(on, ["intel_iommu=on"])
    on.path("/boot/bootmap").unlink()
    assert run(on, ["intel_iommu=on"])["changed"]
    assert on.path("/boot/bootmap").exists()


def test_what_is_remembered(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, RHEL, {KERNELS[0]: entry(KERNELS[0])}, files={SETTINGS: f"{LINE}\n"})
    run(on, ["intel_iommu=on"])
    (record,) = StateStore(on.host).all("kernel_parameter")
    assert record.before == {SETTINGS: ["intel_iommu=off"]}
    assert record.after == {SETTINGS: ["intel_iommu=on"]}
    assert record.restore == {"bootloader": "zipl"}


def test_what_is_remembered_of_sections(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, UBUNTU)
    run(on, ["intel_iommu=on"])
    (record,) = StateStore(on.host).all("kernel_parameter")
    places = [f"{CONFIG}:old", f"{CONFIG}:ubuntu"]
    assert record.before == {place: ["intel_iommu=off"] for place in places}
    assert record.after == {place: ["intel_iommu=on"] for place in places}


# -- detection ---------------------------------------------------------------------------------------------


def test_evidence(on: ZiplHost) -> None:
    assert detect(on.host).name == "zipl"
    assert detect(on.host).evidence == ("/sys/firmware/ipl/ipl_type says 'ccw'",)


@pytest.mark.parametrize("path", ["/boot/zipl/config", "/etc/default/zipl2grub.conf.in"])
def test_grub_that_zipl_starts(on: ZiplHost, path: str) -> None:
    on.write(path, "")
    error = refused(on, "bootloader_unsupported", ["iommu=pt"])
    assert "SUSE" in str(error)
    assert path in str(error)


@pytest.mark.parametrize("path", ["/usr/sbin/zipl", CONFIG])
def test_something_is_missing(on: ZiplHost, path: str) -> None:
    on.path(path).unlink()
    refused(on, "bootloader_incomplete", ["iommu=pt"])


# -- refused -----------------------------------------------------------------------------------------------

BROKEN = {
    "unclosed quotes": (DEBIAN.replace(LINE, f'"{LINE}'), "quotation marks"),
    "something after the quotes": (DEBIAN.replace(LINE, f'"{LINE}" more'), "quotation marks"),
    "a carriage return after the quotes": (DEBIAN.replace(LINE, f'"{LINE}"\r'), "quotation marks"),
    "twice": (f"{DEBIAN}parameters = x\n", "twice"),
    "two sections of a name": (DEBIAN + DEBIAN, "twice"),
    "before the first section": (f"target = /boot\n{DEBIAN}", "before the first section"),
    "no heading": (DEBIAN.replace("[debian]", "[debian"), "no heading"),
    "no assignment": (DEBIAN.replace("target = /boot", "target /boot"), "no assignment"),
    "no default": (DEBIAN.replace("default = debian", "prompt = 1"), "does not say"),
    "no such default": (DEBIAN.replace("default = debian", "default = x"), "does not say"),
    "no such menu": (UBUNTU.replace(":menu", ":other"), "menu"),
    "no parmfile": (WITH_PARMFILE, "parmfile"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_configuration_zipl_refuses(on: ZiplHost, name: str) -> None:
    config, shown = BROKEN[name]
    on.write(CONFIG, config)
    assert on.host.run(["zipl"], check=False).rc
    assert shown in str(refused(on, "settings_not_understood", ["iommu=pt"]))


def test_both_kinds_of_parameters(tmp_path: Path) -> None:
    config = DEBIAN + f"parmfile = {PARMFILE}\n"
    on = ZiplHost(tmp_path, config, files={PARMFILE: "iommu=off\n"})
    assert "joins" in str(refused(on, "settings_too_clever", ["iommu=pt"]))


def test_a_variable(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, DEBIAN.replace("quiet", "${more}"))
    assert "zipl-editenv" in str(refused(on, "settings_too_clever", ["iommu=pt"]))


def test_both_kinds_of_quotation_marks(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, DEBIAN.replace(LINE, f'"{LINE} x=it\'s"'))
    refused(on, "value_not_representable", ['dyndbg="file x +p"'])


def test_what_the_kernel_would_take_for_ebcdic(on: ZiplHost) -> None:
    assert "vconsole.font=größe" in str(refused(on, "value_not_representable", ["vconsole.font=größe"]))
    on.write(CONFIG, DEBIAN.replace("quiet", "vconsole.font=größe quiet"))
    error = refused(on, "value_not_representable", ["iommu=pt"])
    assert "EBCDIC" in str(error)
    assert CONFIG in str(error.as_result())
    refused(on, "value_not_representable", ["intel_iommu=off"])  # nothing to write, but zipl would install it
    run(on, [], ["vconsole.font"])
    assert "ö" not in on.installed()["debian"]


def test_another_system(on: ZiplHost) -> None:
    on.write("/proc/cmdline", "root=/dev/dasdz1\n")
    refused(on, "boot_entries_missing", ["iommu=pt"])


@pytest.mark.parametrize(("length", "longest"), [(4000, 4096), (800, 896)])
def test_long_but_not_too_long(tmp_path: Path, length: int, longest: int) -> None:
    on = ZiplHost(tmp_path, longest=longest)
    run(on, [f"x={'y' * length}"])
    assert "yyy" in on.installed()["debian"]


def test_too_long(on: ZiplHost) -> None:
    refused(on, "command_line_too_long", [f"x={'y' * 4096}"])


# -- failing -----------------------------------------------------------------------------------------------


def test_too_long_for_this_kernel(tmp_path: Path) -> None:
    on = ZiplHost(tmp_path, longest=896)
    assert "exceeds the allowed maximum" in str(failed(on, "command_failed", [f"x={'y' * 900}"]))
    assert on.commands == [("zipl", "--noninteractive", "--dry-run")]


@pytest.mark.parametrize("name", ["Debian", "entries"])
def test_zipl_that_fails_has_the_old_configuration_installed_again(tmp_path: Path, name: str) -> None:
    on = ZiplHost(tmp_path, **HOSTS[name])

    def fail_once(argv: Sequence[str]) -> Completed | None:
        if "--dry-run" in argv or on.commands.count(("zipl", "--noninteractive")) > 1:
            return None
        on.write("/boot/bootmap", "half of it")
        return Completed(tuple(argv), 1, "", "Error: Could not write to device")

    on.intercept = fail_once
    failed(on, "command_failed", ["intel_iommu=on"])
    assert on.commands.count(("zipl", "--noninteractive")) == 2


def test_a_file_somebody_else_changes_meanwhile(on: ZiplHost) -> None:
    procedure = build(on.host, ["intel_iommu=on"])
    observed = procedure.observe()
    plan = procedure.plan(observed)
    theirs = f"{DEBIAN}# more\n"
    on.write(CONFIG, theirs)
    with pytest.raises(PassthroughError) as caught:
        plan.actions[0].apply(on.host)
    assert caught.value.code == "file_changed_meanwhile"
    assert on.read(CONFIG) == theirs


# -- the file ----------------------------------------------------------------------------------------------

WORDS = st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\""), min_size=1))


@given(WORDS, st.sampled_from(["", "'", '"']), st.sampled_from([["iommu=pt"], ['a="b c"'], ["console=x", "console=y"]]))
def test_an_edit_says_what_is_wanted_and_nothing_else(words: list[str], quote: str, present: list[str]) -> None:
    line = " ".join(words)
    text = f"[a]\nimage=/x\nparameters = {quote}{line}{quote}\ntarget=/boot\n[b]\nparameters=z\nimage=/y\n"
    request = Request.of(present, [])
    before = zipl_conf.sections(text)
    after = zipl_conf.sections(zipl_conf.with_request(text, request, ["a"]))
    wanted = request.apply(CommandLine.parse(before[0].text("parameters")))
    assert CommandLine.parse(after[0].text("parameters")) == wanted
    assert after[0].text("target") == "/boot"
    assert after[1].text("parameters") == "z"


@given(st.text(st.sampled_from("[]:ab=1'\" \n#,\t\r")))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(zipl_conf.ZiplSyntaxError):
        found = zipl_conf.sections(text)
        for section in found:
            for value in section.values.values():
                assert text[value.start : value.end].strip("'\"") in ("defaultauto", value.text.strip("'\""))
        zipl_conf.installed(found)
