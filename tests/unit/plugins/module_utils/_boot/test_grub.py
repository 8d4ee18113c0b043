# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.boot import (
    CONFIG,
    DEBIAN_12,
    DEBIAN_13,
    DEFAULTS,
    UBUNTU_CLOUD,
    UBUNTU_CLOUD_DROP_INS,
    GrubHost,
)
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import refused, revert, run
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

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


# -- what is refused, before anything is touched -----------------------------------------------------------


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
    assert not debian.path(STATE_PATH).exists()
    assert debian.read(DEFAULTS) == DEBIAN_13
