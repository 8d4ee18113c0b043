# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot import grub_settings
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import CommandLine, Parameter, Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.shell import evaluate
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.tests.unit.support.boot import (
    CONFIG,
    DEBIAN_13,
    DEFAULTS,
    GENERATOR,
    UBUNTU_CLOUD,
    UBUNTU_CLOUD_DROP_INS,
    GrubHost,
)
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

UBUNTU: dict[str, Any] = {"defaults": UBUNTU_CLOUD, "drop_ins": UBUNTU_CLOUD_DROP_INS}


def values(on: GrubHost) -> dict[str, str]:
    paths = [on.path(DEFAULTS), *sorted(on.path(f"{DEFAULTS}.d").glob("*.cfg"))]
    texts = {str(path): path.read_text(errors="surrogateescape") for path in paths}
    return evaluate(Host(), texts, ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"])


# -- where a parameter is written --------------------------------------------------------------------------


def test_only_the_words_change(debian: GrubHost) -> None:
    run(debian, ["intel_iommu=on", "iommu=pt"])
    assert debian.read(DEFAULTS) == DEBIAN_13.replace('"quiet intel_iommu=off"', '"quiet intel_iommu=on iommu=pt"')


def test_a_new_name_goes_to_normal_entries_and_a_present_one_keeps_its_variable(debian: GrubHost) -> None:
    result = run(debian, ["console=tty0", "console=ttyS1", "iommu=pt"])
    assert values(debian) == {
        "GRUB_CMDLINE_LINUX": "console=tty0 console=ttyS1",
        "GRUB_CMDLINE_LINUX_DEFAULT": "quiet intel_iommu=off iommu=pt",
    }
    recovery = [entry["command_line"] for entry in result["entries"]["after"] if entry["recovery"]]
    assert recovery == ["root=UUID=1234-abcd ro single console=tty0 console=ttyS1"] * 2


def test_cloud_image_drop_in_is_edited_and_the_one_of_a_package_is_not(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, **UBUNTU)
    result = run(on, ["intel_iommu=on"])
    assert on.read(DEFAULTS) == UBUNTU_CLOUD
    assert on.read(f"{DEFAULTS}.d/kdump-tools.cfg") == UBUNTU_CLOUD_DROP_INS["kdump-tools.cfg"]
    assert [action["target"] for action in result["actions"]] == [f"{DEFAULTS}.d/50-cloudimg-settings.cfg", CONFIG]
    assert result["configured"]["after"]["normal"] == (
        "console=tty1 console=ttyS0 intel_iommu=on crashkernel=512M-:192M"
    )


def test_a_contradiction_is_replaced_wherever_it_stands(tmp_path: Path) -> None:
    on = GrubHost(
        tmp_path,
        'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=off"\nGRUB_CMDLINE_LINUX="a intel_iommu=off"\n',
        {"x.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel-iommu=sm_on b"\n', "not-read": "("},
    )
    result = run(on, ["intel_iommu=on"])
    assert values(on) == {"GRUB_CMDLINE_LINUX": "a intel_iommu=on", "GRUB_CMDLINE_LINUX_DEFAULT": " b"}
    assert [action["target"] for action in result["actions"]] == [DEFAULTS, f"{DEFAULTS}.d/x.cfg", CONFIG]
    assert {entry["command_line"].count("intel") for entry in result["entries"]["after"] if entry["generated"]} == {1}


def test_recovery_entries_have_a_variable_of_their_own_since_grub_2_12(tmp_path: Path) -> None:
    text = 'GRUB_CMDLINE_LINUX_RECOVERY="single intel_iommu=off iommu=pt"\nGRUB_CMDLINE_LINUX="x"\n'
    on = GrubHost(tmp_path, text)
    expected = run(on, ["intel_iommu=on", "iommu=pt"], ["single"], check=True)
    assert run(on, ["intel_iommu=on", "iommu=pt"], ["single"]) == expected
    assert on.read(DEFAULTS) == (
        'GRUB_CMDLINE_LINUX_RECOVERY="iommu=pt"\nGRUB_CMDLINE_LINUX="x"\n'
        'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=on iommu=pt"\n'
    )
    found = configuration(on.host)
    assert [str(e.command_line) for e in found.entries if e.recovery] == ["root=UUID=1234-abcd ro iommu=pt x"] * 2
    assert [entry.as_result() for entry in found.entries] == expected["entries"]["after"]
    assert not run(on, ["intel_iommu=on", "iommu=pt"], ["single"])["changed"]
    on.write(DEFAULTS, on.read(DEFAULTS).replace('RECOVERY="', 'RECOVERY="intel_iommu=off '))
    assert run(on, ["intel_iommu=on"])["changed"]
    assert "off" not in on.read(DEFAULTS)


def test_an_emptied_recovery_variable_has_the_default_of_the_generator(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, 'GRUB_CMDLINE_LINUX_RECOVERY="intel_iommu=off"\nGRUB_CMDLINE_LINUX="x"\n')
    expected = run(on, ["intel_iommu=on"], check=True)
    assert run(on, ["intel_iommu=on"]) == expected
    found = configuration(on.host).entries
    assert [entry.as_result() for entry in found] == expected["entries"]["after"]
    assert [str(e.command_line) for e in found if e.recovery] == ["root=UUID=1234-abcd ro single x"] * 2


def test_a_recovery_variable_of_which_a_space_is_left_is_not_empty(tmp_path: Path) -> None:
    """What comes before the last assignment is not ours to edit, and the generator asks whether there is any text."""
    on = GrubHost(
        tmp_path,
        'GRUB_CMDLINE_LINUX_RECOVERY=" "\n'
        'GRUB_CMDLINE_LINUX_RECOVERY="${GRUB_CMDLINE_LINUX_RECOVERY} iommu=pt"\nGRUB_CMDLINE_LINUX="x"\n',
    )
    expected = run(on, [], ["iommu=pt"], check=True)
    assert run(on, [], ["iommu=pt"]) == expected
    found = configuration(on.host).entries
    assert [entry.as_result() for entry in found] == expected["entries"]["after"]
    assert [str(e.command_line) for e in found if e.recovery] == ["root=UUID=1234-abcd ro x"] * 2


def test_what_the_generator_adds_to_recovery_entries_is_not_ours_to_remove(debian: GrubHost) -> None:
    assert not run(debian, [], ["single", "nomodeset"])["changed"]
    assert "ro single console" in debian.read(CONFIG)


def test_an_assignment_that_no_longer_counts_is_left_alone(tmp_path: Path) -> None:
    text = 'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=off"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
    on = GrubHost(tmp_path, text)
    run(on, ["intel_iommu=on"])
    assert on.read(DEFAULTS) == text.replace('"quiet"', '"quiet intel_iommu=on"')


def test_drop_ins_count_only_where_the_generator_reads_them(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n', {"a.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="a=1"\n'})
    on.write(GENERATOR, re.sub(r"^for x in .*?^done\n", "", on.read(GENERATOR), count=1, flags=re.M | re.S), 0o755)
    on.update_grub()
    assert run(on, ["iommu=pt"])["configured"]["after"]["normal"] == "quiet iommu=pt"
    assert "iommu" not in on.read(f"{DEFAULTS}.d/a.cfg")


def test_a_drop_in_that_was_switched_off_says_nothing(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, **UBUNTU)
    drop_in = on.path(f"{DEFAULTS}.d/50-cloudimg-settings.cfg")
    drop_in.unlink()
    drop_in.symlink_to("/dev/null")
    on.path("/dev").mkdir()
    os.mkfifo(on.path("/dev/null"))  # like the real one no regular file
    on.update_grub()
    on.reboot()
    assert run(on, ["iommu=pt"])["configured"]["after"]["normal"] == "quiet splash iommu=pt crashkernel=512M-:192M"
    assert os.readlink(drop_in) == "/dev/null"
    assert not run(on, ["iommu=pt"])["changed"]


def test_owner_and_mode_of_the_files_are_kept(debian: GrubHost) -> None:
    debian.path(DEFAULTS).chmod(0o640)
    debian.path(CONFIG).chmod(0o400)
    run(debian, ["iommu=pt"])
    assert debian.path(DEFAULTS).stat().st_mode & 0o7777 == 0o640
    assert debian.path(CONFIG).stat().st_mode & 0o7777 == 0o400


# Names and values that contain each other, or are the same to the kernel only.
CLOSE = [
    "iommu=pt",
    "amd_iommu=pt",
    "intel_iommu=on",
    "intel_iommu=on,sm_on",
    "intel_iommu=off",
    "vfio-pci.ids=8086:10ca",
    "vfio_pci.ids=1234:11e8",
    "vfio_pci.disable_idle_d3",
    "quiet",
    "vconsole.font=\u00f6",
]
VARIABLE_NAMES = st.sampled_from(grub_settings.VARIABLES)
SOME = st.lists(st.sampled_from(CLOSE), max_size=4).map(" ".join)
CLEAR_LINES = st.one_of(
    st.builds('{}="{}"'.format, VARIABLE_NAMES, SOME),
    st.builds("{}='{}'".format, VARIABLE_NAMES, SOME),
    st.builds('export {}="{}" # was "intel_iommu=off"'.format, VARIABLE_NAMES, SOME),
    st.builds('{0}="${0} {1}"'.format, VARIABLE_NAMES, SOME),
    st.builds('{0}="${{{0}}}  {1}"'.format, VARIABLE_NAMES, SOME),
    st.builds('{}="{} \\\n  {}"'.format, VARIABLE_NAMES, SOME, SOME),
    st.builds("EXTRA='{1}'\n{0}=\"{2} $EXTRA\"".format, VARIABLE_NAMES, SOME, SOME),
    st.builds('{}="{}"\r'.format, VARIABLE_NAMES, SOME),
    st.sampled_from(["", "# don't: intel_iommu=on", "GRUB_TIMEOUT=5", "GRUB_DISTRIBUTOR=`( echo ${NAME:-x} )`"]),
)
CLEVER_LINES = st.one_of(
    st.builds('{}="{} $(echo iommu=soft)"'.format, VARIABLE_NAMES, SOME),
    st.builds('[ -e /nowhere ] || {}="{}"'.format, VARIABLE_NAMES, SOME),
    st.builds('if true; then\n  {0}="${0} {1}"\nfi'.format, VARIABLE_NAMES, SOME),
    st.builds('eval "{}=iommu=off"'.format, VARIABLE_NAMES),
)


def sourced(on: GrubHost) -> dict[str, CommandLine]:
    """What a shell makes of the settings, asked past the code under test."""
    shown = "".join(f'printf "%s\\0" "${name}"; ' for name in grub_settings.VARIABLES)
    script = f'. "$1"; {shown}'
    done = subprocess.run(["sh", "-e", "-c", script, "sh", on.path(DEFAULTS)], capture_output=True, check=True, env={})
    texts = done.stdout.decode().split("\0")
    return {name: CommandLine.parse(text) for name, text in zip(grub_settings.VARIABLES, texts)}


@settings(max_examples=40)
@given(data=st.data())
def test_an_edit_leads_exactly_to_what_is_wanted_or_nothing_is_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    clever = data.draw(st.booleans())
    lines = data.draw(st.lists(CLEAR_LINES | CLEVER_LINES if clever else CLEAR_LINES, max_size=5))
    text = "\n".join(lines) + data.draw(st.sampled_from(["", "\n"]))
    present = data.draw(st.lists(st.sampled_from(CLOSE), max_size=3))
    keys = {Parameter.parse(word).key for word in present}
    absent = [
        word
        for word in data.draw(st.lists(st.sampled_from(CLOSE), max_size=2))
        if Parameter.parse(word).key not in keys
    ]
    request = Request.of(present, absent)
    on = GrubHost(tmp_path_factory.mktemp("host"), text, kernels=["6.1.0-13-amd64"])
    before, tree = sourced(on), tree_listing(on.root)
    refusal = None
    try:
        result = run(on, present, absent)
    except PassthroughError as error:
        refusal = error
    if refusal is not None:
        assert (refusal.code, clever) == ("settings_too_clever", True)
        assert tree_listing(on.root) == tree
        return
    after = sourced(on)
    assert not request.unmet(
        CommandLine.of(str(p) for name in grub_settings.NORMAL_ENTRY for p in after[name].parameters)
    )
    assert not request.contradicted(
        CommandLine.of(str(p) for name in grub_settings.RECOVERY_ENTRY for p in after[name].parameters)
    )
    for name in grub_settings.VARIABLES:
        others = [[p.text for p in found[name].parameters if p.key not in request.keys] for found in (before, after)]
        assert others[0] == others[1]
    normal = [str(p) for name in grub_settings.NORMAL_ENTRY for p in after[name].parameters]
    assert result["configured"]["after"]["normal"].split() == normal
    other_lines = [
        [
            line
            for line in written.replace("\\\n", "").split("\n")
            if line.strip(' "') and "GRUB_CMDLINE" not in line and "EXTRA" not in line and line[0] != " "
        ]
        for written in (text, on.read(DEFAULTS))
    ]
    assert other_lines[0] == other_lines[1]
    assert [entry.as_result() for entry in configuration(on.host).entries] == result["entries"]["after"]
    assert not run(on, present, absent)["changed"]


# -- what is refused, before anything is touched -----------------------------------------------------------


@pytest.mark.parametrize(
    "defaults",
    [
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet `echo intel_iommu=off`"\n',
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n[ -e / ] && GRUB_CMDLINE_LINUX_DEFAULT="other"\n',
        'cat >/dev/null <<EOF\nEOF\nGRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=off"\n',
        'eval "GRUB_CMDLINE_LINUX_DEFAULT=fixed"\n: "${GRUB_CMDLINE_LINUX:=x}"\neval "GRUB_CMDLINE_LINUX=y"\n'
        'GRUB_CMDLINE_LINUX_DEFAULT="a"; eval "GRUB_CMDLINE_LINUX_DEFAULT=b"\n',
        'OFF="off z"; GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=$OFF"\n',
        'GRUB_CMDLINE_LINUX="-- init"\n',
    ],
)
def test_settings_that_cannot_be_edited_safely(tmp_path: Path, defaults: str) -> None:
    error = refused(GrubHost(tmp_path, defaults), "settings_too_clever", ["intel_iommu=on"])
    assert "GRUB_CMDLINE_LINUX" in str(error)
    assert "intel_iommu" in str(error)


@pytest.mark.parametrize("value", ["quiet; reboot", "a\nb", "'a", "a #b"])
def test_settings_grub_would_misread(tmp_path: Path, value: str) -> None:
    on = GrubHost(tmp_path)
    on.write(DEFAULTS, f'GRUB_CMDLINE_LINUX="{value}"\n')
    refused(on, "settings_not_understood", ["iommu=pt"])


def test_settings_no_shell_can_source(debian: GrubHost) -> None:
    debian.write(f"{DEFAULTS}.d/broken.cfg", "GRUB_TIMEOUT=(\n")
    assert "broken.cfg" in str(refused(debian, "settings_not_evaluated", ["iommu=pt"]))
