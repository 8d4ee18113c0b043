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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._boot import grub
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import CommandLine, Parameter, Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.grub_script import boot_entries
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.shell import evaluate
from ansible_collections.kvm.passthrough.plugins.module_utils._core import files
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.boot import (
    CONFIG,
    DEBIAN_12,
    DEBIAN_13,
    DEFAULTS,
    GENERATOR,
    UBUNTU_CLOUD,
    UBUNTU_CLOUD_DROP_INS,
    GrubHost,
)
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import failed, refused, revert, run
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing

STATE = "var/lib/kvm-passthrough/state.json"
UBUNTU: dict[str, Any] = {"defaults": UBUNTU_CLOUD, "drop_ins": UBUNTU_CLOUD_DROP_INS}

ODD = {
    "single quotes": "GRUB_CMDLINE_LINUX_DEFAULT='quiet intel_iommu=off'\n",
    "no quotes": "GRUB_CMDLINE_LINUX_DEFAULT=quiet\nGRUB_CMDLINE_LINUX=intel_iommu=off\n",
    "no assignment at all": "GRUB_TIMEOUT=5\n",
    "no final newline": 'GRUB_CMDLINE_LINUX="quiet"',
    "empty": "",
    "continuation line": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet \\\n  intel_iommu=off \\\n  splash"\n',
    "set twice": 'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=off"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n',
    "appended": (
        'GRUB_CMDLINE_LINUX="x"\nGRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX intel_iommu=off"\n'
        'GRUB_CMDLINE_LINUX_DEFAULT="${GRUB_CMDLINE_LINUX_DEFAULT} quiet"\n'
    ),
    "off in both": 'GRUB_CMDLINE_LINUX_DEFAULT="a intel_iommu=off b"\nGRUB_CMDLINE_LINUX="c intel_iommu=off d"\n',
    "through another variable": 'IOMMU="intel_iommu=off"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet $IOMMU"\n',
    "trailing comment and export": 'export GRUB_CMDLINE_LINUX_DEFAULT="quiet" # intel_iommu=off\n',
    "command substitution beside it": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet `echo x=1 y=2` intel_iommu=off"\n',
    "carriage returns": 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\r\n',
    "quoted value": "GRUB_CMDLINE_LINUX_DEFAULT='dyndbg=\"file x +p\" intel_iommu=off'\n",
    "escaped dollar": 'GRUB_CMDLINE_LINUX_DEFAULT="memmap=4G\\\\\\$16G quiet"\n',
    "not ASCII": '# Größe\nGRUB_CMDLINE_LINUX_DEFAULT="vconsole.font=ö quiet"\n',
    "something is built on top": (
        'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
        'if true; then\n  GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=off z"\nfi\n'
    ),
}


def values(on: GrubHost) -> dict[str, str]:
    paths = [on.path(DEFAULTS), *sorted(on.path(f"{DEFAULTS}.d").glob("*.cfg"))]
    texts = {str(path): path.read_text(errors="surrogateescape") for path in paths}
    return evaluate(Host(), texts, ["GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"])


@pytest.fixture(name="debian")
def debian_fixture(tmp_path: Path) -> GrubHost:
    return GrubHost(tmp_path, DEBIAN_13)


# -- the four runs -----------------------------------------------------------------------------------------

HOSTS: dict[str, dict[str, Any]] = {
    "debian 12": {"defaults": DEBIAN_12},
    "debian 13": {"defaults": DEBIAN_13},
    "ubuntu cloud image": UBUNTU,
    **{name: {"defaults": text} for name, text in ODD.items()},
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "quoted": (['dyndbg="file drivers/vfio/* +p; module x +p"', "vfio-pci.ids=8086:10ca,1234:11e8"], ["intel_iommu"]),
}


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", HOSTS)
def test_check_run_check_run(tmp_path: Path, name: str, wanted: str) -> None:
    on = GrubHost(tmp_path, **HOSTS[name])
    request = Request.of(*REQUESTS[wanted])
    before = tree_hash(on.root)
    comments = re.findall(r"^#.*$", on.read(DEFAULTS), re.MULTILINE)
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_hash(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    assert expected["changed"]
    assert expected["reboot_required"]

    found = configuration(on.host)
    assert expected["configured"]["after"] == {"normal": str(found.normal), "recovery": str(found.recovery)}
    assert [entry.as_result() for entry in found.entries] == expected["entries"]["after"]
    assert not request.unmet(found.normal)
    assert not request.contradicted(found.recovery)
    for entry in found.entries:
        if entry.generated:
            line = found.recovery if entry.recovery else found.normal
            assert not request.differing(entry.command_line, line)
    assert re.findall(r"^#.*$", on.read(DEFAULTS), re.MULTILINE) == comments
    assert sorted(os.listdir(on.path("/run"))) == ["kvm-passthrough.lock"]
    assert not list(on.root.rglob("*.tmp"))

    on.reboot()
    after = tree_hash(on.root)
    for check in (True, False):
        again = run(on, *REQUESTS[wanted], check=check)
        assert not again["changed"]
        assert not again["reboot_required"]
        assert not again["actions"]
        assert again["configured"]["before"] == again["configured"]["after"] == expected["configured"]["after"]
    assert tree_hash(on.root) == after


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


def test_what_the_generator_adds_to_recovery_entries_is_not_ours_to_remove(debian: GrubHost) -> None:
    assert not run(debian, [], ["single", "nomodeset"])["changed"]
    assert "ro single console" in debian.read(CONFIG)


def test_an_assignment_that_no_longer_counts_is_left_alone(tmp_path: Path) -> None:
    on = GrubHost(tmp_path, ODD["set twice"])
    run(on, ["intel_iommu=on"])
    assert on.read(DEFAULTS) == ODD["set twice"].replace('"quiet"', '"quiet intel_iommu=on"')


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
VARIABLE_NAMES = st.sampled_from(grub.VARIABLES)
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
    shown = "".join(f'printf "%s\\0" "${name}"; ' for name in grub.VARIABLES)
    script = f'. "$1"; {shown}'
    done = subprocess.run(["sh", "-e", "-c", script, "sh", on.path(DEFAULTS)], capture_output=True, check=True, env={})
    texts = done.stdout.decode().split("\0")
    return {name: CommandLine.parse(text) for name, text in zip(grub.VARIABLES, texts)}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert not request.unmet(CommandLine.of(str(p) for name in grub.NORMAL_ENTRY for p in after[name].parameters))
    assert not request.contradicted(
        CommandLine.of(str(p) for name in grub.RECOVERY_ENTRY for p in after[name].parameters)
    )
    for name in grub.VARIABLES:
        others = [[p.text for p in found[name].parameters if p.key not in request.keys] for found in (before, after)]
        assert others[0] == others[1]
    normal = [str(p) for name in grub.NORMAL_ENTRY for p in after[name].parameters]
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


def test_a_grub_cfg_written_by_hand_is_not_destroyed(debian: GrubHost) -> None:
    debian.write(CONFIG, "menuentry x {\n\tlinux\t/boot/vmlinuz-6.1.0-13-amd64 root=/dev/sda1\n}\n")
    refused(debian, "boot_entries_missing", ["iommu=pt"])


def test_a_grub_cfg_that_was_cut_off(debian: GrubHost) -> None:
    text = debian.read(CONFIG)
    debian.write(CONFIG, text[: text.rindex("initrd")])
    refused(debian, "boot_entries_not_understood", ["iommu=pt"], bootloader="grub")


def test_single_entries_have_no_parameters_of_their_own(debian: GrubHost) -> None:
    error = refused(debian, "kernels_default_unsupported", ["iommu=pt"], kernels="default")
    assert "kernels: default cannot be had with GRUB 2" in str(error)


def test_a_command_line_longer_than_the_kernel_reads(debian: GrubHost) -> None:
    refused(debian, "command_line_too_long", [f"a{number}={'x' * 100}" for number in range(20)])


# -- entries -----------------------------------------------------------------------------------------------


def test_entries_that_were_not_generated_again_are(debian: GrubHost) -> None:
    debian.write(DEFAULTS, DEBIAN_13.replace("intel_iommu=off", "intel_iommu=on"))
    expected = run(debian, ["intel_iommu=on"], check=True)
    assert [action["target"] for action in expected["actions"]] == [CONFIG]
    assert expected["configured"]["before"] == expected["configured"]["after"]
    assert run(debian, ["intel_iommu=on"]) == expected
    assert "off" not in re.sub(r"(?s)### BEGIN /etc/grub.d/40_custom.*", "", debian.read(CONFIG))
    assert not debian.path(STATE).exists()
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


# -- running and reboot_required ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("running", "present", "absent", "expected"),
    [
        ("quiet intel_iommu=on", ["intel_iommu=on"], [], False),
        ("quiet intel-iommu=on", ["intel_iommu=on"], [], False),
        ("quiet intel_iommu=on,sm_on", ["intel_iommu=on"], [], True),
        ("quiet amd_iommu=pt", ["iommu=pt"], [], True),
        ("quiet", ["intel_iommu=on"], [], True),
        ("quiet intel_iommu=off intel_iommu=on", ["intel_iommu=on"], [], True),
        ("quiet splash", [], ["splash"], True),
        ("quiet splashes", [], ["splash"], False),
        ('"dyndbg=file x +p"', ['dyndbg="file x +p"'], [], False),
        ("quiet -- splash", [], ["splash"], False),
        ("quiet", [], [], False),
    ],
)
def test_reboot_required_is_about_the_running_kernel(
    debian: GrubHost, running: str, present: list[str], absent: list[str], expected: bool
) -> None:
    debian.write("/proc/cmdline", f"BOOT_IMAGE=/boot/vmlinuz-6.1.0-13-amd64 root=x ro {running}\n")
    first = run(debian, present, absent)
    second = run(debian, present, absent)
    assert not second["changed"]
    assert first["reboot_required"] == second["reboot_required"] == expected
    assert second["running"].endswith(running)


def test_in_a_container_no_reboot_gives_the_kernel_what_it_lacks(debian: GrubHost) -> None:
    debian.write("/run/.containerenv", "")
    for changed in (True, False):
        result = run(debian, ["intel_iommu=on"], bootloader="grub")
        assert (result["changed"], result["reboot_required"]) == (changed, False)
        assert "container" in " ".join(result["warnings"])
    taken_back = revert(debian, bootloader="grub")
    assert (taken_back["changed"], taken_back["reboot_required"]) == (True, False)


# -- what is remembered ------------------------------------------------------------------------------------


def test_records_say_what_a_revert_has_to_bring_back(debian: GrubHost) -> None:
    run(debian, ["intel_iommu=on", "vfio-pci.ids=1:2", "quiet"], ["console=tty0"])
    records = {record.key: record for record in StateStore(debian.host).all("kernel_parameter")}
    assert {key: (record.before, record.after) for key, record in records.items()} == {
        "intel_iommu": (
            {"GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=off"]},
            {"GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=on"]},
        ),
        "vfio_pci.ids": ({}, {"GRUB_CMDLINE_LINUX_DEFAULT": ["vfio-pci.ids=1:2"]}),
        "console": (
            {"GRUB_CMDLINE_LINUX": ["console=tty0", "console=ttyS0,115200"]},
            {"GRUB_CMDLINE_LINUX": ["console=ttyS0,115200"]},
        ),
    }
    assert {record.restore["bootloader"] for record in records.values()} == {"grub"}
    assert not StateStore(debian.host).all("file")


def test_a_second_change_keeps_the_first_before_and_the_way_back_settles(debian: GrubHost) -> None:
    run(debian, ["intel_iommu=on"])
    run(debian, ["intel_iommu=on,sm_on"])
    (record,) = StateStore(debian.host).all("kernel_parameter")
    assert record.before == {"GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=off"]}
    assert record.after == {"GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=on,sm_on"]}
    assert not record.diverged
    run(debian, ["intel_iommu=off"])
    assert not debian.path(STATE).exists()
    assert debian.read(DEFAULTS) == DEBIAN_13


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
def test_the_real_grub_mkconfig(tmp_path: Path) -> None:
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
    os.environ["EUID"] = "0"
    try:
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
    finally:
        del os.environ["EUID"]
