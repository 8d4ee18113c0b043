# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import CommandLine, Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.grubby import (
    CONFIG,
    DEFAULTS,
    ENTRIES,
    ENVIRONMENT,
    FEDORA,
    FLAVOURS,
    LINE,
    MACHINE_ID,
    RHEL_8,
    RHEL_9,
    ROOT,
    SETTINGS,
    GrubbyHost,
    entry_path,
)
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import failed, refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import LOADER_INFO, efi_text
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

OTHER_MACHINE = "f" * 32
RESCUE = f"{ENTRIES}/{MACHINE_ID}-0-rescue.conf"
OLD, NEW = (entry_path(version) for version in RHEL_9.kernels)

HOSTS: dict[str, dict[str, Any]] = {
    "all settings": {},
    "no /etc/kernel/cmdline": {"settings": None},
    "no /etc/default/grub": {"defaults": None},
    "neither": {"settings": None, "defaults": None},
    "tuned": {"suffix": " $tuned_params", "variables": {"tuned_params": "skew_tick=1 tsc=reliable"}},
    "hostile values": {"line": f'{LINE} dyndbg="file drivers/vfio/*  +p; x" a.b=c=d,e=f vconsole.font=ö'},
    "given twice": {"line": f"intel_iommu=off {LINE} iommu=on intel_iommu=off quiet"},
    "for init": {"line": f"{LINE} -- intel_iommu=on 3"},
    "settings without a final newline": {"settings": LINE},
    "settings on two lines": {"settings": f"{ROOT}\n quiet\tintel_iommu=off\n"},
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "repeated": (["console=tty0", "console=ttyS0,115200", "hugepagesz=1G", "hugepages=4", "hugepagesz=2M"], []),
    "quoted": (['ice.dyndbg="module x +p; y*"', "vfio-pci.ids=8086:10ca,1234:11e8"], ["intel_iommu"]),
}


def targets(result: dict[str, Any]) -> list[str]:
    return [action["target"] for action in result["actions"]]


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> GrubbyHost:
    return GrubbyHost(tmp_path)


@pytest.fixture(name="rhel8")
def rhel8_fixture(tmp_path: Path) -> GrubbyHost:
    return GrubbyHost(tmp_path, RHEL_8)


# -- the four runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_check_run_check_run(tmp_path: Path, flavour: str, name: str, wanted: str) -> None:
    on = GrubbyHost(tmp_path, FLAVOURS[flavour], **HOSTS[name])
    request = Request.of(*REQUESTS[wanted])
    before = tree_listing(on.root)
    others = {key: _others(entry["command_line"], request) for key, entry in _entries(on).items()}
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_listing(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    assert expected["changed"]

    found = configuration(on.host)
    assert expected["configured"]["after"]["normal"] == str(found.normal)
    assert [entry.as_result() for entry in found.entries] == expected["entries"]["after"]
    assert not request.unmet(found.normal)
    for entry in found.entries:
        assert not (request.contradicted if entry.recovery else request.unmet)(entry.command_line)
    assert {key: _others(entry["command_line"], request) for key, entry in _entries(on).items()} == others
    assert not list(on.root.rglob("*.tmp"))

    after = tree_listing(on.root)
    for check in (True, False):
        again = run(on, *REQUESTS[wanted], check=check)
        assert (again["changed"], again["actions"]) == (False, [])
    assert tree_listing(on.root) == after

    on.install_kernel("9.9.9")
    assert not run(on, *REQUESTS[wanted], check=True)["changed"]


def _entries(on: GrubbyHost) -> dict[str, dict[str, Any]]:
    return {entry.title: entry.as_result() for entry in configuration(on.host).entries}


def _others(line: str, request: Request) -> list[str]:
    parsed = CommandLine.parse(line)
    kept = [parameter.text for parameter in parsed.parameters if parameter.key not in request.keys]
    return [*kept, *parsed.init_arguments]


# -- where a parameter is written --------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", [RHEL_9, FEDORA])
def test_settings_and_the_options_of_entries_change_and_nothing_else(tmp_path: Path, flavour: Any) -> None:
    on = GrubbyHost(tmp_path, flavour)
    paths = [RESCUE, *map(entry_path, flavour.kernels)]
    before = {path: on.read(path) for path in [DEFAULTS, SETTINGS, *paths]}
    result = run(on, ["intel_iommu=on"])
    assert targets(result) == list(before)
    for path, text in before.items():
        assert on.read(path) == text.replace("intel_iommu=off", "intel_iommu=on")
    records = StateStore(on.host).all("kernel_parameter")
    assert [(record.key, record.before) for record in records] == [
        ("intel_iommu", {place: ["intel_iommu=off"] for place in (SETTINGS, "GRUB_CMDLINE_LINUX", RESCUE)})
    ]


def test_rhel_8_has_its_parameters_in_grubenv(rhel8: GrubbyHost) -> None:
    before = rhel8.read(ENVIRONMENT)
    result = run(rhel8, ["intel_iommu=on", "iommu=pt"])
    assert targets(result) == [ENVIRONMENT, DEFAULTS]
    after = rhel8.read(ENVIRONMENT)
    assert len(after) == len(before) == 1024
    assert after.rstrip("#") == before.rstrip("#").replace("intel_iommu=off", "intel_iommu=on iommu=pt")
    assert all(line.split()[-1] == "iommu=pt" for line in rhel8.lines().values())
    assert rhel8.options(RHEL_8.kernels[0]) == "$kernelopts"
    assert not rhel8.path(SETTINGS).exists()


def test_what_grub_reads_is_written_back_for_it(on: GrubbyHost) -> None:
    on.intercept = _failing_from(2)
    failed(on, "command_failed", ["intel_iommu=on"])
    synced = [command[-1] for command in on.commands if command[:2] == ("sync", "-f")]
    paths = [str(on.path(path)) for path in (RESCUE, OLD, NEW)]
    assert synced == [*paths, *reversed(paths)]


def test_what_an_entry_of_rhel_8_adds_itself_is_taken_away(rhel8: GrubbyHost) -> None:
    path = entry_path(RHEL_8.kernels[0])
    rhel8.write(path, rhel8.read(path).replace("$kernelopts", "$kernelopts intel_iommu=off only.here=1"))
    result = run(rhel8, ["intel_iommu=on"])
    assert targets(result) == [ENVIRONMENT, DEFAULTS, path]
    assert rhel8.options(RHEL_8.kernels[0]) == "$kernelopts only.here=1"


def test_grubenv_without_kernelopts_gets_those_of_grub_cfg(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, RHEL_8)
    on.write(ENVIRONMENT, "# GRUB Environment Block\n" + "#" * 999)
    on.write(CONFIG, f'if [ -z "${{kernelopts}}" ]; then\n  set kernelopts="{LINE}"\nfi\nblscfg\n')
    run(on, ["intel_iommu=on"])
    assert f"kernelopts={LINE.replace('=off', '=on')}\n" in on.read(ENVIRONMENT)


def test_kernelopts_that_no_entry_reads_is_not_made_on_others(on: GrubbyHost) -> None:
    on.write(CONFIG, f'if [ -z "${{kernelopts}}" ]; then\n  set kernelopts="{LINE}"\nfi\nblscfg\n')
    before = on.read(ENVIRONMENT)
    run(on, ["intel_iommu=on"])
    assert on.read(ENVIRONMENT) == before


def test_missing_settings_are_made_from_the_entry_that_runs(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, settings=None, suffix=" $tuned_params", variables={"tuned_params": "skew_tick=1"})
    on.write(OLD, on.read(OLD).replace("quiet", "quiet old.one=1"))
    result = run(on, ["intel_iommu=on"])
    assert "which was missing, from the entry in use" in result["actions"][1]["description"]
    assert on.read(SETTINGS) == LINE.replace("=off", "=on") + "\n"
    assert on.options(RHEL_9.kernels[0]).endswith("quiet old.one=1 intel_iommu=on $tuned_params")


def test_missing_settings_are_not_made_without_need(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, settings=None)
    assert not run(on, ["intel_iommu=off"], ["iommu"])["changed"]
    assert not on.path(SETTINGS).exists()


def test_settings_stay_newer_than_those_of_grub(on: GrubbyHost) -> None:
    on.write(DEFAULTS, 'GRUB_CMDLINE_LINUX="quiet"\n')
    run(on, [], ["intel_iommu"])
    on.write(DEFAULTS, 'GRUB_CMDLINE_LINUX="quiet intel_iommu=off"\n')
    result = run(on, [], ["intel_iommu"])
    assert targets(result) == [DEFAULTS, SETTINGS]
    assert "unchanged" in result["actions"][1]["description"]
    on.install_kernel("9.9.9")  # which would assert


def test_settings_stay_newer_when_all_is_undone(on: GrubbyHost) -> None:
    on.intercept = _failing_from(2)
    failed(on, "command_failed", ["intel_iommu=on"])
    assert on.path(SETTINGS).stat().st_mtime_ns >= on.path(DEFAULTS).stat().st_mtime_ns


def test_one_stale_entry_is_enough(on: GrubbyHost) -> None:
    run(on, ["intel_iommu=on"])
    on.write(OLD, on.read(OLD).replace("=on", "=off"))
    assert targets(run(on, ["intel_iommu=on"])) == [OLD]


def test_a_stale_source_alone_is_a_change(on: GrubbyHost) -> None:
    run(on, ["intel_iommu=on"])
    on.write(SETTINGS, f"{LINE}\n")
    assert targets(run(on, ["intel_iommu=on"])) == [SETTINGS]


def test_names_match_as_wholes_and_dashes_as_underscores(tmp_path: Path) -> None:
    line = f"{ROOT} amd_iommu=pt vfio-pcixids=1 vfio_pci.ids=1:2 my.iommu=1 intel_iommu=on,sm_on iommu"
    on = GrubbyHost(tmp_path, line=line)
    run(on, ["iommu=pt", "vfio-pci.ids=3:4", "intel_iommu=on"])
    wanted = f"{ROOT} amd_iommu=pt vfio-pcixids=1 vfio-pci.ids=3:4 my.iommu=1 intel_iommu=on iommu=pt"
    assert on.options(RHEL_9.kernels[1]) == wanted
    assert on.read(SETTINGS) == f"{wanted}\n"


def test_a_rescue_entry_gets_nothing_new(on: GrubbyHost) -> None:
    result = run(on, ["intel_iommu=on", "iommu=pt"])
    assert on.lines()[RESCUE.rpartition("/")[2]] == LINE.replace("=off", "=on")
    assert [entry["recovery"] for entry in result["entries"]["after"]] == [True, False, False]


def test_duplicate_entries_are_all_changed(on: GrubbyHost) -> None:
    on.write(f"{ENTRIES}/{MACHINE_ID}-copy.conf", on.read(NEW))
    on.write(f"{ENTRIES}/by-hand.conf", on.read(NEW))
    run(on, ["intel_iommu=on"])
    assert not [name for name, line in on.lines().items() if "intel_iommu=off" in line]


def test_entries_of_an_image_keep_the_machine_id_of_its_builder(on: GrubbyHost) -> None:
    path = entry_path(RHEL_9.kernels[1], OTHER_MACHINE)
    on.path(NEW).rename(on.path(path))
    run(on, ["intel_iommu=on"])
    assert "intel_iommu=on" in on.read(path)


def test_entries_of_another_system_are_left_alone(on: GrubbyHost) -> None:
    path = entry_path("5.14.0-1.el9.x86_64", OTHER_MACHINE)
    on.write(path, on.read(NEW).replace("rhel-root", "other-root"))
    before = on.read(path)
    result = run(on, ["intel_iommu=on"])
    assert on.read(path) == before
    assert [entry["generated"] for entry in result["entries"]["after"]] == [True, True, True, False]


# -- one entry only ----------------------------------------------------------------------------------------


def test_the_default_entry_alone(on: GrubbyHost) -> None:
    expected = run(on, ["intel_iommu=on"], kernels="default", check=True)
    assert run(on, ["intel_iommu=on"], kernels="default") == expected
    assert targets(expected) == [NEW]
    assert on.options(RHEL_9.kernels[1]) == LINE.replace("=off", "=on")
    assert not run(on, ["intel_iommu=on"], kernels="default")["changed"]
    (record,) = StateStore(on.host).all("kernel_parameter")
    assert (record.before, record.after) == ({NEW: ["intel_iommu=off"]}, {NEW: ["intel_iommu=on"]})


def test_the_default_entry_of_rhel_8_gets_parameters_of_its_own(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, RHEL_8, suffix=" $tuned_params", variables={"tuned_params": "skew_tick=1"})
    result = run(on, ["intel_iommu=on"], kernels="default")
    assert targets(result) == [entry_path(RHEL_8.kernels[1])]
    assert on.options(RHEL_8.kernels[1]).split() == [*LINE.replace("=off", "=on").split(), "$tuned_params"]
    assert on.options(RHEL_8.kernels[0]) == "$kernelopts $tuned_params"
    assert not run(on, ["intel_iommu=on"], kernels="default")["changed"]


def test_another_default_entry(on: GrubbyHost) -> None:
    on.write(ENVIRONMENT, on.read(ENVIRONMENT).replace(RHEL_9.kernels[1], RHEL_9.kernels[0]))
    assert targets(run(on, ["intel_iommu=on"], kernels="default")) == [OLD]


def test_no_default_entry_without_grubby_naming_it(on: GrubbyHost) -> None:
    on.intercept = lambda argv: Completed(tuple(argv), 0, 'index=0\nkernel="/x"\n', "") if "grubby" in argv else None
    refused(on, "kernels_default_unsupported", ["intel_iommu=on"], kernels="default")


# -- what is refused ---------------------------------------------------------------------------------------


def test_a_parameter_of_tuned_is_tuneds(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, suffix=" $tuned_params", variables={"tuned_params": "intel_iommu=off"})
    error = refused(on, "parameter_set_elsewhere", ["intel_iommu=on"])
    assert "$tuned_params" in str(error)
    assert "tuned-adm" in str(error)


def test_blanks_that_the_next_kernel_would_not_have(on: GrubbyHost) -> None:
    refused(on, "value_not_representable", ['x="two  blanks"'])


def test_what_tuned_sets_in_grub_cfg_counts(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, suffix=" $tuned_params")
    on.write(CONFIG, 'set tuned_params="skew_tick=1 iommu=pt"\nblscfg\n')
    assert "iommu=pt" in str(configuration(on.host).entries[0].command_line)
    refused(on, "parameter_set_elsewhere", ["iommu=on"])


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("options ", "options x=1\noptions ", "2 options lines"),
        ("options ", "# options ", "0 options lines"),
        ("quiet", "quiet; reboot", "GRUB cannot read"),
        ("quiet", "'quiet", "GRUB cannot read"),
    ],
)
def test_an_entry_that_is_not_what_it_looks_like(on: GrubbyHost, old: str, new: str, words: str) -> None:
    on.write(OLD, on.read(OLD).replace(old, new))
    assert words in str(refused(on, "boot_entries_not_understood", ["intel_iommu=on"]))


def test_an_edit_that_would_touch_other_parameters(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, replace(RHEL_9, has_identity=False))
    on.write(OLD, on.read(OLD).replace("quiet", "x=y\\ intel_iommu=off"))
    assert "single quotes" in str(refused(on, "value_not_representable", ["intel_iommu=on"]))


def test_grubby_that_reads_other_entries(on: GrubbyHost) -> None:
    def without_the_old_one(argv: Sequence[str]) -> Completed | None:
        if argv[0] != "grubby":
            return None
        done = on.grubby(*argv[1:])
        return Completed(done.argv, 0, done.stdout.replace(RHEL_9.kernels[0], "x"), "")

    on.intercept = without_the_old_one
    assert RHEL_9.kernels[0] in str(refused(on, "boot_entries_wrong", ["intel_iommu=on"]))


def test_grubby_that_reads_other_parameters_after_the_change(on: GrubbyHost) -> None:
    stale = on.grubby("--info=ALL")
    on.intercept = lambda argv: stale if argv[0] == "grubby" else None
    assert "intel_iommu=off" in str(failed(on, "boot_entries_wrong", ["intel_iommu=on"]))


def test_an_old_grubby_that_does_not_name_entries(tmp_path: Path) -> None:
    on = GrubbyHost(tmp_path, RHEL_8)
    on.intercept = lambda argv: (
        Completed(tuple(argv), 0, 'index=0\nkernel=/vmlinuz\nargs="$kernelopts"\n', "") if argv[0] == "grubby" else None
    )
    assert run(on, ["intel_iommu=on"])["changed"]


def test_a_failing_grubby_leaves_all_as_it_was(on: GrubbyHost) -> None:
    on.intercept = _failing_from(1)
    refused(on, "command_failed", ["intel_iommu=on"])
    on.intercept = _failing_from(2)
    failed(on, "command_failed", ["intel_iommu=on"])


def _failing_from(number: int) -> Callable[[Sequence[str]], Completed | None]:
    """From its ``number``-th call on, grubby fails."""
    calls: list[Sequence[str]] = []

    def answer(argv: Sequence[str]) -> Completed | None:
        if argv[0] != "grubby":
            return None
        calls.append(argv)
        return Completed(tuple(argv), 1, "", "grubby: broken\n") if len(calls) >= number else None

    return answer


@pytest.mark.parametrize("kernels", ["all", "default"])
def test_kernelopts_that_nothing_sets(rhel8: GrubbyHost, kernels: str) -> None:
    rhel8.write(ENVIRONMENT, "# GRUB Environment Block\n" + "#" * 999)
    rhel8.write(CONFIG, f'set default_kernelopts="{LINE}"\nblscfg\n')
    error = refused(rhel8, "boot_entries_not_understood", ["intel_iommu=on"], kernels=kernels)
    assert "grub2-mkconfig" in str(error)


def test_an_environment_block_without_room(rhel8: GrubbyHost) -> None:
    error = refused(rhel8, "command_line_too_long", [f"x={'y' * 1000}"])
    assert ENVIRONMENT in str(error)


def test_no_entry_of_this_system(on: GrubbyHost) -> None:
    for name in os.listdir(on.path(ENTRIES)):
        on.write(f"{ENTRIES}/{name}", on.read(f"{ENTRIES}/{name}").replace("rhel-root", "other-root"))
        on.path(f"{ENTRIES}/{name}").rename(on.path(f"{ENTRIES}/{name.replace(MACHINE_ID, OTHER_MACHINE)}"))
    refused(on, "boot_entries_missing", ["intel_iommu=on"])


# -- beside grubby and other tools -------------------------------------------------------------------------


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_an_administrator_may_use_grubby_before_and_after(tmp_path: Path, flavour: str) -> None:
    on = GrubbyHost(tmp_path, FLAVOURS[flavour])
    assert on.grubby("--update-kernel=ALL", "--args=iommu=on x.y=1").rc == 0
    run(on, ["iommu=pt"])
    assert not [line for line in on.lines().values() if "iommu=on" in line or "x.y=1" not in line]
    assert on.grubby("--update-kernel=ALL", "--remove-args=iommu").rc == 0
    assert run(on, ["iommu=pt"])["changed"]
    assert all("iommu=pt" in line for name, line in on.lines().items() if "rescue" not in name)


# -- proof -------------------------------------------------------------------------------------------------


def test_it_is_proved_by_the_kernel_it_started(on: GrubbyHost) -> None:
    found = detect(on.host)
    assert found.name == "grub-bls"
    assert found.evidence == (
        f"{CONFIG} runs blscfg",
        f"/proc/cmdline has BOOT_IMAGE=/vmlinuz-{RHEL_9.kernels[1]}, a kernel of an entry in {ENTRIES}",
    )


def test_it_is_proved_by_its_efi_variable(on: GrubbyHost) -> None:
    on.write("/proc/cmdline", "quiet\n")
    on.write(LOADER_INFO, efi_text("GRUB 2.12"))
    assert detect(on.host).name == "grub-bls"


@pytest.mark.parametrize("cmdline", ["quiet", "BOOT_IMAGE=/elsewhere quiet"])
def test_entries_alone_prove_nothing(on: GrubbyHost, cmdline: str) -> None:
    on.write("/proc/cmdline", f"{cmdline}\n")
    error = refused(on, "bootloader_unproved", ["iommu=pt"])
    assert "bootloader: grub-bls when" in str(error)
    assert run(on, ["intel_iommu=on"], bootloader="grub-bls")["changed"]


def test_settings_of_grub_are_not_what_counts_here(on: GrubbyHost) -> None:
    assert "not with grub" in str(refused(on, "bootloader_unsupported", ["iommu=pt"], bootloader="grub"))


@pytest.mark.parametrize("path", ["/usr/sbin/grubby", ENTRIES])
def test_what_is_missing(on: GrubbyHost, path: str) -> None:
    on.write(LOADER_INFO, efi_text("GRUB 2.12"))
    real = on.path(path)
    real.rename(on.root / "gone")
    error = refused(on, "bootloader_incomplete", ["iommu=pt"])
    assert path.rpartition("/")[2] in str(error)


@pytest.mark.parametrize(
    ("path", "name", "code"),
    [
        ("/sys/firmware/ipl/ipl_type", "zipl", "bootloader_incomplete"),
        ("/run/ostree-booted", "rpm-ostree", "bootloader_unsupported"),
    ],
)
def test_who_drives_it_goes_first(on: GrubbyHost, path: str, name: str, code: str) -> None:
    on.write(path, "ccw\n")
    assert name in str(refused(on, code, ["iommu=pt"]))
