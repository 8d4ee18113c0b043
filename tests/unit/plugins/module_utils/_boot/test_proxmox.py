# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.boot import DEFAULTS, GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.proxmox import (
    BOTH,
    GRUB_LEGACY,
    GRUB_SETTINGS,
    GRUB_UEFI,
    KERNELS,
    LINE,
    MODES,
    PARTITIONS,
    SETTINGS,
    SYSTEMD_BOOT,
    TOOL,
    UUIDS,
    ProxmoxHost,
)
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import LOADER_INFO, efi_text
from ansible_collections.kvm.passthrough.tests.unit.support.tree import LOCK, tree_listing

HOSTS: dict[str, dict[str, Any]] = {
    **{mode: {"mode": mode} for mode in MODES},
    "no final newline": {"line": LINE.rstrip("\n")},
    "more lines": {"line": f"{LINE}a comment that is not read, intel_iommu=off\n"},
    "carriage return": {"line": LINE.replace("\n", "\r\n")},
    "blanks": {"line": f"  {LINE.replace(' ', '   ')}"},
    "set twice": {"line": LINE.replace("quiet", "intel_iommu=on iommu=off quiet intel_iommu=on,sm_on iommu=pt")},
    "quoted": {"line": LINE.replace("quiet", 'dyndbg="file x +p" quiet')},
    "not ASCII": {"line": LINE.replace("quiet", "vconsole.font=größe quiet")},
    "no file": {"line": None},
    "drop-in": {
        "mode": GRUB_LEGACY,
        "files": {f"{DEFAULTS}.d/z.cfg": 'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT iommu=off"\n'},
    },
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "quoted": (['dyndbg="file drivers/vfio/* +p; module x +p"', "vfio-pci.ids=8086:10ca,1234:11e8"], ["intel_iommu"]),
}


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> ProxmoxHost:
    return ProxmoxHost(tmp_path)


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", HOSTS)
def test_check_run_check_run(tmp_path: Path, name: str, wanted: str) -> None:
    on = ProxmoxHost(tmp_path, **HOSTS[name])
    before = tree_listing(on.root)
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_listing(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    assert expected["changed"]
    present, _unused = REQUESTS[wanted]
    for lines in on.lines().values():
        assert len(lines) >= len(KERNELS)
        for line in lines:
            assert "intel_iommu=off" not in line
            assert all(line.count(text) == 1 for text in present)
    after = tree_listing(on.root)
    for check in (True, False):
        assert not run(on, *REQUESTS[wanted], check=check)["changed"]
    assert tree_listing(on.root) == after
    entries = [entry for entry in configuration(on.host).entries if entry.generated]
    assert {entry.title.rsplit(" ", 1)[1] for entry in entries} == {f"({uuid})" for uuid in UUIDS}


def test_what_is_not_named_stays(on: ProxmoxHost) -> None:
    on.write(SETTINGS, f"{LINE}# the administrator's notes\n")
    run(on, ["intel_iommu=on", "iommu=pt"])
    assert on.read(SETTINGS) == (
        "root=ZFS=rpool/ROOT/pve-1 boot=zfs quiet intel_iommu=on iommu=pt\n# the administrator's notes\n"
    )


def test_only_the_settings_in_use_are_changed(tmp_path: Path) -> None:
    on = ProxmoxHost(tmp_path / "a", SYSTEMD_BOOT)
    run(on, ["iommu=pt"])
    assert on.read(DEFAULTS) == GRUB_SETTINGS
    on = ProxmoxHost(tmp_path / "b", GRUB_UEFI)
    run(on, ["iommu=pt"])
    assert on.read(SETTINGS) == LINE
    assert "iommu=pt" in on.read(DEFAULTS)
    on = ProxmoxHost(tmp_path / "c", BOTH)
    run(on, ["iommu=pt"])
    assert "iommu=pt" in on.read(SETTINGS)
    assert "iommu=pt" in on.read(DEFAULTS)


def test_a_missing_file_is_made_of_what_runs(tmp_path: Path) -> None:
    on = ProxmoxHost(tmp_path, line=None)
    run(on, ["intel_iommu=on"])
    assert on.read(SETTINGS) == "root=ZFS=rpool/ROOT/pve-1 boot=zfs quiet intel_iommu=on\n"


def test_what_is_remembered(tmp_path: Path) -> None:
    on = ProxmoxHost(tmp_path, BOTH)
    run(on, ["intel_iommu=on"])
    (record,) = StateStore(on.host).all("kernel_parameter")
    assert record.before == {SETTINGS: ["intel_iommu=off"], "GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=off"]}
    assert record.after == {SETTINGS: ["intel_iommu=on"], "GRUB_CMDLINE_LINUX_DEFAULT": ["intel_iommu=on"]}
    assert record.restore == {"bootloader": "proxmox-boot-tool"}


@pytest.mark.parametrize("mode", MODES)
def test_right_settings_with_old_entries_are_a_change(tmp_path: Path, mode: str) -> None:
    on = ProxmoxHost(tmp_path, mode)
    on.write(SETTINGS, LINE.replace("=off", "=on"))
    on.write(DEFAULTS, GRUB_SETTINGS.replace("=off", "=on"))
    result = run(on, ["intel_iommu=on"])
    assert [action["description"].split(",")[0] for action in result["actions"]] == ["run proxmox-boot-tool refresh"]
    assert all("intel_iommu=on" in line for lines in on.lines().values() for line in lines)


@pytest.mark.parametrize(
    ("mode", "path"), [(SYSTEMD_BOOT, "loader/entries/proxmox-{}.conf"), (GRUB_UEFI, "grub/grub.cfg")]
)
def test_an_entry_that_was_cut_off_is_written_again(tmp_path: Path, mode: str, path: str) -> None:
    on = ProxmoxHost(tmp_path, mode)
    run(on, ["intel_iommu=on"])
    whole = tree_listing(on.root)
    broken = f"/esp/{UUIDS[1]}/{path.format(KERNELS[1])}"
    with on.path(broken).open("r+") as stream:
        stream.truncate(40)
    assert run(on, ["intel_iommu=on"])["changed"]
    assert tree_listing(on.root) == whole


def test_an_entry_by_hand_is_named_and_left_alone(on: ProxmoxHost) -> None:
    path = f"/esp/{UUIDS[0]}/loader/entries/rescue.conf"
    text = "title Rescue\noptions root=/dev/sdz intel_iommu=off\nlinux /rescue\n"
    on.write(path, text)
    (warning,) = run(on, ["intel_iommu=on"])["warnings"]
    assert f"loader/entries/rescue.conf on the partition {UUIDS[0]}" in warning
    assert on.read(path) == text


# -- detection ---------------------------------------------------------------------------------------------


def test_evidence(on: ProxmoxHost) -> None:
    on.write(LOADER_INFO, efi_text("systemd-boot 252"))
    found = detect(on.host)
    assert found.name == "proxmox-boot-tool"
    assert found.evidence == (
        f"{PARTITIONS} lists AAAA-0001, BBBB-0002",
        "the EFI variable LoaderInfo says 'systemd-boot 252'",
    )


@pytest.mark.parametrize("listed", ["", "\n", "not a UUID\n", None])
def test_without_a_list_it_is_plain_grub(tmp_path: Path, listed: str | None) -> None:
    on = GrubHost(tmp_path)
    on.write(TOOL, "", 0o755)
    if listed is not None:
        on.write(PARTITIONS, listed)
    assert detect(on.host).name == "grub"
    assert run(on, ["iommu=pt"])["changed"]


def test_a_kernel_from_boot_was_not_started_by_the_tool(tmp_path: Path) -> None:
    on = GrubHost(tmp_path)
    on.write(PARTITIONS, "1234-ABCD\n")
    assert detect(on.host).name == "grub"


def test_the_tool_is_missing(on: ProxmoxHost) -> None:
    on.path(TOOL).unlink()
    assert "proxmox-boot-tool is not there" in str(refused(on, "bootloader_incomplete"))


# -- refused -----------------------------------------------------------------------------------------------


def test_a_partition_that_is_gone(on: ProxmoxHost) -> None:
    on.path(f"/dev/disk/by-uuid/{UUIDS[1]}").unlink()
    assert f"no /dev/disk/by-uuid/{UUIDS[1]}" in str(refused(on, "boot_partition_not_found", ["iommu=pt"]))


@pytest.mark.parametrize(("mode", "path"), [(SYSTEMD_BOOT, "loader/loader.conf"), (GRUB_LEGACY, "grub")])
def test_a_partition_the_tool_would_skip(tmp_path: Path, mode: str, path: str) -> None:
    on = ProxmoxHost(tmp_path, mode)
    at = on.path(f"/esp/{UUIDS[1]}/{path}")
    at.rename(at.with_name("gone"))
    assert f"has no {path}" in str(refused(on, "boot_partition_not_found", ["iommu=pt"]))


@pytest.mark.parametrize("line", ["# a comment\nroot=/dev/sda1 quiet\n", "quiet\n", ""])
def test_a_first_line_without_root(on: ProxmoxHost, line: str) -> None:
    on.write(SETTINGS, line)
    assert on.refresh().returncode == 1
    refused(on, "settings_not_understood", ["iommu=pt"])


def test_too_long(on: ProxmoxHost) -> None:
    refused(on, "command_line_too_long", [f"x={'y' * 2048}"])


def test_no_entries(on: ProxmoxHost) -> None:
    for path in on.path("/esp").glob("*/loader/entries/*"):
        path.unlink()
    refused(on, "boot_entries_missing", ["iommu=pt"])


# -- failing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_a_tool_that_fails_half_way(tmp_path: Path, mode: str) -> None:
    on = ProxmoxHost(tmp_path, mode)
    before = tree_listing(on.root)
    calls = []

    def fail_once(argv: Sequence[str]) -> Completed | None:
        if "proxmox-boot-tool" not in argv:
            return None
        calls.append(argv)
        if len(calls) > 1:
            return None
        on.refresh()
        return Completed(tuple(argv), 1, "", "No space left on device")

    on.intercept = fail_once
    with pytest.raises(PassthroughError) as caught:
        run(on, ["intel_iommu=on"])
    assert caught.value.code == "command_failed"
    assert not caught.value.extra["not_undone"]
    assert len(calls) == 2
    assert tree_listing(on.root) == before


def test_a_kernel_the_tool_skips_keeps_its_old_entry(on: ProxmoxHost) -> None:
    before = tree_listing(on.root, exclude=(LOCK, f"boot/initrd.img-{KERNELS[0]}"))
    on.path(f"/boot/initrd.img-{KERNELS[0]}").unlink()
    with pytest.raises(PassthroughError) as caught:
        run(on, ["intel_iommu=on"])
    assert caught.value.code == "boot_entries_wrong"
    assert KERNELS[0] in str(caught.value)
    assert tree_listing(on.root) == before
