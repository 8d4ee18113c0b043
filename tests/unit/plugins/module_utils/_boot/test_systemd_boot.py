# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.cmdline import Request
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import configuration
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support.parameters import failed, refused, run
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import unwritable
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import (
    ESP,
    KERNELS,
    LINE,
    LOADER_INFO,
    MACHINE_ID,
    SELECTED_ENTRY,
    SETTINGS,
    STUB_INFO,
    SystemdBootHost,
    efi_text,
    entry_path,
    image_path,
    portable_executable,
)
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

SUFFIX = f" systemd.machine_id={MACHINE_ID}"

ARCH = """\
title   Arch Linux
linux   /vmlinuz-linux
initrd  /initramfs-linux.img
options root=UUID=aa rw
options intel_iommu=off
"""

HOSTS: dict[str, dict[str, Any]] = {
    "settings": {"settings": f"{LINE}\n"},
    "no settings": {},
    "comments and lines": {"settings": f"# why: intel_iommu=no\n{LINE}\n\n  # more\n\tx=1\n"},
    "no comments in systemd 252": {"settings": f"{LINE}\n", "has_comments": False},
    "entry token": {"settings": f"{LINE}\n", "token": "debian"},
    "no final newline": {"settings": LINE},
    "carriage returns": {"settings": f"{LINE}\r\n"},
    "empty settings": {"settings": ""},
    "only comments": {"settings": "# nothing\n"},
    "not ASCII": {"settings": f"# Größe\n{LINE} vconsole.font=ö\n"},
    "not even UTF-8": {"settings": f"{LINE} x=\udcff\n".encode("utf-8", "surrogateescape").decode("latin-1")},
    "given twice": {"settings": f"intel_iommu=off {LINE} iommu=on\n"},
    "images": {"settings": f"{LINE}\n", "layout": "uki"},
    "images without settings": {"layout": "uki"},
    "images and a comment": {"settings": f"# iommu=on\n{LINE}\n", "layout": "uki"},
}
REQUESTS: dict[str, tuple[list[str], list[str]]] = {
    "set": (["intel_iommu=on", "iommu=pt"], []),
    "replace and remove": (["intel_iommu=on"], ["quiet", "nothing_of_that_name"]),
    "quoted": (['dyndbg="file drivers/vfio/* +p; module x +p"', "vfio-pci.ids=8086:10ca,1234:11e8"], ["intel_iommu"]),
}


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> SystemdBootHost:
    return SystemdBootHost(tmp_path, f"{LINE}\n")


@pytest.fixture(name="images")
def images_fixture(tmp_path: Path) -> SystemdBootHost:
    return SystemdBootHost(tmp_path, f"{LINE}\n", layout="uki")


# -- the four runs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", REQUESTS)
@pytest.mark.parametrize("name", HOSTS)
def test_check_run_check_run(tmp_path: Path, name: str, wanted: str) -> None:
    on = SystemdBootHost(tmp_path, **HOSTS[name])
    request = Request.of(*REQUESTS[wanted])
    before = tree_listing(on.root)
    expected = run(on, *REQUESTS[wanted], check=True)
    assert tree_listing(on.root) == before
    assert run(on, *REQUESTS[wanted]) == expected
    assert expected["changed"]
    assert expected["reboot_required"]

    found = configuration(on.host)
    assert expected["configured"]["after"] == {"normal": str(found.normal), "recovery": ""}
    assert [entry.as_result() for entry in found.entries] == expected["entries"]["after"]
    assert not request.unmet(found.normal)
    assert len(found.entries) == 2
    for entry in found.entries:
        assert not request.unmet(entry.command_line)
    assert os.listdir(on.path("/run")) == ["kvm-passthrough.lock"]
    assert not list(on.root.rglob("*.tmp"))

    after = tree_listing(on.root)
    for check in (True, False):
        again = run(on, *REQUESTS[wanted], check=check)
        assert (again["changed"], again["actions"]) == (False, [])
        assert again["configured"]["before"] == again["configured"]["after"] == expected["configured"]["after"]
    assert tree_listing(on.root) == after

    on.install_kernel("6.12.99+deb13-amd64")
    assert not run(on, *REQUESTS[wanted], check=True)["changed"]


# -- where a parameter is written --------------------------------------------------------------------------


def test_settings_and_the_options_of_entries_change_and_nothing_else(on: SystemdBootHost) -> None:
    before = {path: on.read(path) for path in map(entry_path, KERNELS)}
    result = run(on, ["intel_iommu=on"])
    assert [action["target"] for action in result["actions"]] == [SETTINGS, *map(entry_path, KERNELS)]
    assert on.read(SETTINGS) == LINE.replace("=off", "=on") + "\n"
    for path, text in before.items():
        assert on.read(path) == text.replace("intel_iommu=off", "intel_iommu=on")
    assert [(entry["generated"], entry["in_place"]) for entry in result["entries"]["after"]] == [(True, False)] * 2


def test_missing_settings_are_made_from_the_entry_in_use(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path)
    on.write(entry_path(KERNELS[0]), on.read(entry_path(KERNELS[0])).replace("options    ", "options    first=1 "))
    on.write(SELECTED_ENTRY, efi_text(entry_path(KERNELS[0]).rpartition("/")[2]))
    result = run(on, ["intel_iommu=on"])
    assert "which was missing, from the entry in use" in result["actions"][0]["description"]
    assert on.read(SETTINGS) == "first=1 root=UUID=aa ro quiet intel_iommu=on\n"
    (record,) = StateStore(on.host).all("kernel_parameter")
    assert (record.before, record.after) == ({SETTINGS: ["intel_iommu=off"]}, {SETTINGS: ["intel_iommu=on"]})


def test_missing_settings_are_not_made_without_need(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path)
    assert not run(on, ["intel_iommu=off"], ["iommu"])["changed"]
    assert not on.path(SETTINGS).exists()


def test_settings_of_the_distribution_are_copied_and_not_edited(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path)
    on.write("/usr/lib/kernel/cmdline", "root=UUID=aa quiet\n")
    run(on, ["intel_iommu=on"])
    assert on.read("/usr/lib/kernel/cmdline") == "root=UUID=aa quiet\n"
    assert on.read(SETTINGS) == "root=UUID=aa quiet intel_iommu=on\n"


def test_one_stale_entry_is_enough(on: SystemdBootHost) -> None:
    run(on, ["intel_iommu=on"])
    on.write(entry_path(KERNELS[1]), on.read(entry_path(KERNELS[1])).replace("=on", "=off"))
    result = run(on, ["intel_iommu=on"])
    assert [action["target"] for action in result["actions"]] == [entry_path(KERNELS[1])]


def test_an_entry_keeps_what_it_has_more_than_the_settings(on: SystemdBootHost) -> None:
    path = entry_path(KERNELS[0])
    on.write(path, on.read(path).replace("quiet", "quiet only.here=1"))
    run(on, ["intel_iommu=on"])
    assert "quiet only.here=1 intel_iommu=on" in on.read(path)


def test_entries_on_trial_keep_their_counters(on: SystemdBootHost) -> None:
    path = entry_path(KERNELS[1])
    counted = path.replace(".conf", "+2-1.conf")
    on.path(path).rename(on.path(counted))
    run(on, ["intel_iommu=on"])
    assert "intel_iommu=on" in on.read(counted)
    assert not on.path(path).exists()


def test_entries_are_known_by_their_token_after_the_machine_id_has_changed(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path, f"{LINE}\n")
    on.write("/etc/kernel/entry-token", f"{MACHINE_ID}\n")
    on.write("/etc/machine-id", "22222222222222222222222222222222\n")
    result = run(on, ["intel_iommu=on"])
    assert all(entry["generated"] for entry in result["entries"]["after"])
    assert all("intel_iommu=on" in line for line in on.lines().values())


def test_duplicate_entries_are_all_changed(on: SystemdBootHost) -> None:
    text = on.read(entry_path(KERNELS[0]))
    for name in ("copy.conf", "COPY.CONF"):
        on.write(f"{ESP}/loader/entries/{name}", text)
    run(on, ["intel_iommu=on"])
    assert [path.name for path in on.root.glob("efi/loader/entries/*") if "=off" in path.read_text()] == []


def test_entries_by_hand_are_changed_in_place(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path, kernels=())
    on.write(f"{ESP}/loader/entries/arch.conf", ARCH)
    expected = run(on, ["intel_iommu=on", "iommu=pt"], check=True)
    assert run(on, ["intel_iommu=on", "iommu=pt"]) == expected
    assert on.read(f"{ESP}/loader/entries/arch.conf") == ARCH.replace("intel_iommu=off", "intel_iommu=on iommu=pt")
    assert not on.path(SETTINGS).exists()
    (entry,) = expected["entries"]["after"]
    assert (entry["generated"], entry["in_place"]) == (False, True)
    assert expected["configured"]["after"]["normal"] == "root=UUID=aa rw intel_iommu=on iommu=pt"
    assert "which kernel-install did not make" in expected["actions"][0]["description"]
    records = {record.key: record for record in StateStore(on.host).all("kernel_parameter")}
    assert records["intel_iommu"].before == {f"{ESP}/loader/entries/arch.conf": ["intel_iommu=off"]}
    assert not run(on, ["intel_iommu=on", "iommu=pt"])["changed"]


@pytest.mark.parametrize(
    "text",
    [
        "title x\nmachine-id 11111111111111111111111111111111\nlinux /a\noptions intel_iommu=off\n",
        "title x\nlinux /fedora/6.8.0/linux\noptions intel_iommu=off\n",
        "title x\nlinux /vmlinuz\noptions root=UUID=bb intel_iommu=off\n",
        "title x\nefi /shellx64.efi\noptions intel_iommu=off\n",
        "",
    ],
)
def test_entries_of_other_systems_are_left_alone(on: SystemdBootHost, text: str) -> None:
    path = f"{ESP}/loader/entries/fedora-6.8.0.conf"
    on.write(path, text)
    result = run(on, ["intel_iommu=on"])
    assert on.read(path) == text
    others = [entry for entry in result["entries"]["after"] if not entry["generated"]]
    assert all(not entry["in_place"] for entry in others)
    assert not run(on, ["intel_iommu=on"])["changed"]


def test_a_rescue_entry_gets_nothing_new_and_loses_a_contradiction(on: SystemdBootHost) -> None:
    path = entry_path("0-rescue")
    on.write(path, f"title Rescue\nlinux /{MACHINE_ID}/0-rescue/linux\noptions root=x intel_iommu=off\n")
    result = run(on, ["intel_iommu=on", "iommu=pt"])
    assert on.read(path).endswith("options root=x intel_iommu=on\n")
    assert [entry["recovery"] for entry in result["entries"]["after"]] == [True, False, False]
    assert not run(on, ["intel_iommu=on", "iommu=pt"])["changed"]


def test_images_are_built_again(images: SystemdBootHost) -> None:
    result = run(images, ["intel_iommu=on"])
    assert [action["target"] for action in result["actions"]] == [SETTINGS, *map(image_path, KERNELS)]
    assert set(images.lines().values()) == {f"root=UUID=aa ro quiet intel_iommu=on{SUFFIX}"}
    assert [name for name in images.host.list_dir(f"{ESP}/EFI/Linux") if not name.endswith(".efi")] == []


def test_images_of_other_systems_and_other_programs_are_left_alone(images: SystemdBootHost) -> None:
    for name, sections in {
        "fedora-6.8.efi": {".osrel": b"ID=fedora\n", ".cmdline": b"intel_iommu=off", ".linux": b"x"},
        "memtest.efi": {".text": b"x"},
    }.items():
        images.write(f"{ESP}/EFI/Linux/{name}", portable_executable(sections))
    run(images, ["intel_iommu=on"])
    assert images.lines()["fedora-6.8.efi"] == "intel_iommu=off"


def test_a_firmware_that_starts_the_image_itself(images: SystemdBootHost) -> None:
    images.path(LOADER_INFO).unlink()
    images.write(STUB_INFO, efi_text("systemd-stub 257.8"))
    result = run(images, ["intel_iommu=on"])
    assert result["bootloader"]["name"] == "uki"
    assert not run(images, ["intel_iommu=on"])["changed"]


def test_what_a_killed_run_left_is_removed(on: SystemdBootHost) -> None:
    left = f"{ESP}/loader/entries/.{entry_path(KERNELS[1]).rpartition('/')[2]}.abc.kvm-passthrough.tmp"
    on.write(left, "half")
    result = run(on, ["intel_iommu=off"])
    assert [action["description"].split()[0] for action in result["actions"]] == ["remove"]
    assert not on.path(left).exists()
    assert not run(on, ["intel_iommu=off"])["changed"]


# -- what is refused, before anything is touched -----------------------------------------------------------


def test_the_loader_without_proof(on: SystemdBootHost) -> None:
    on.path(LOADER_INFO).unlink()
    assert "LoaderInfo is not there" in str(refused(on, "bootloader_unproved", ["iommu=pt"]))
    assert detect(on.host, "systemd-boot").evidence[0].startswith("the task says")
    on.path("/usr/bin/bootctl").unlink()
    refused(on, "bootloader_incomplete", ["iommu=pt"], bootloader="systemd-boot")


def test_a_partition_nobody_finds(on: SystemdBootHost) -> None:
    on.intercept = lambda argv: Completed(tuple(argv), 1, "", "Couldn't find EFI system partition")
    assert "Couldn't find" in str(refused(on, "boot_partition_not_found", ["iommu=pt"]))


def test_no_entry_of_this_system(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path, kernels=())
    on.write(f"{ESP}/loader/entries/x.conf", "linux /y\noptions root=UUID=bb\n")
    assert "x.conf" in str(refused(on, "boot_entries_missing", ["iommu=pt"]))


@pytest.mark.parametrize("layout", ["", "uki"])
def test_values_kernel_install_would_squeeze(tmp_path: Path, layout: str) -> None:
    on = SystemdBootHost(tmp_path, f"{LINE}\n", layout=layout)
    assert "squeezes" in str(refused(on, "value_not_representable", ['dyndbg="file x  +p"']))


def test_a_command_line_longer_than_the_kernel_reads(on: SystemdBootHost) -> None:
    refused(on, "command_line_too_long", [f"a{number}={'x' * 100}" for number in range(20)])


@pytest.mark.parametrize("reason", ["the layout", "is not installed", "its name", "kernel-install is not installed"])
def test_images_kernel_install_does_not_build(images: SystemdBootHost, reason: str) -> None:
    if reason == "the layout":
        images.path("/etc/kernel/install.conf").unlink()
    elif reason == "is not installed":
        images.path(f"/boot/vmlinuz-{KERNELS[0]}").unlink()
    elif reason == "its name":
        images.path(image_path(KERNELS[0])).rename(images.path(f"{ESP}/EFI/Linux/arch-linux.efi"))
    else:
        images.path("/usr/bin/kernel-install").unlink()
    assert reason in str(refused(images, "image_not_rebuildable", ["intel_iommu=on"]))
    assert not run(images, ["intel_iommu=off"])["changed"]


def test_an_image_that_was_cut_off(images: SystemdBootHost) -> None:
    path = images.path(image_path(KERNELS[0]))
    path.write_bytes(path.read_bytes()[:300])
    refused(images, "boot_entries_not_understood", ["intel_iommu=on"])


# -- failures ----------------------------------------------------------------------------------------------


def test_a_plugin_that_adds_parameters_of_its_own(on: SystemdBootHost) -> None:
    def answer(argv: Sequence[str]) -> Completed | None:
        if "kernel-install" not in argv:
            return None
        on.intercept = None
        done = on.host.run(argv)
        (made,) = on.root.glob("run/*/loader/entries/*.conf")
        made.write_text(made.read_text().replace("intel_iommu=on", "intel_iommu=on,sm_on"))
        return done

    on.intercept = answer
    assert "sm_on" in str(failed(on, "boot_entries_wrong", ["intel_iommu=on"]))


def test_a_backslash_is_a_command_to_the_echo_of_the_plugin(tmp_path: Path) -> None:
    on = SystemdBootHost(tmp_path, f"{LINE} x=a\\nb\n")

    def answer(argv: Sequence[str]) -> Completed | None:
        if "kernel-install" not in argv:
            return None
        on.intercept = None
        done = on.host.run(argv)
        (made,) = on.root.glob("run/*/loader/entries/*.conf")
        made.write_text(made.read_text().replace("\\n", "\n"))
        return done

    on.intercept = answer
    failed(on, "boot_entries_wrong", ["intel_iommu=on"])


@pytest.mark.parametrize("name", ["settings", "images"])
def test_a_failing_kernel_install_leaves_everything_as_it_was(tmp_path: Path, name: str) -> None:
    on = SystemdBootHost(tmp_path, **HOSTS[name])
    on.intercept = lambda argv: Completed(tuple(argv), 1, "", "no space left") if "kernel-install" in argv else None
    assert "no space left" in str(failed(on, "command_failed", ["intel_iommu=on"]))
    on.intercept = lambda argv: Completed(tuple(argv), 0, "", "") if "kernel-install" in argv else None
    failed(on, "generator_failed", ["intel_iommu=on"])
    on.intercept = None
    assert run(on, ["intel_iommu=on"])["changed"]


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({".linux": b"x", ".cmdline": b"intel_iommu=on"}, "no .initrd"),
        ({".initrd": b"x", ".cmdline": b"intel_iommu=on"}, "no .linux"),
        ({".initrd": b"x", ".linux": b"x", ".cmdline": b"intel_iommu=off"}, "its kernel parameters"),
        ({".initrd": b"x", ".linux": b"x", ".cmdline": f"{LINE}".replace("off", "on").encode()}, "not signed"),
        (None, "no unified kernel image"),
    ],
)
def test_a_wrong_image_never_replaces_the_old_one(
    tmp_path: Path, sections: dict[str, bytes] | None, reason: str
) -> None:
    on = SystemdBootHost(tmp_path, f"{LINE}\n", layout="uki", kernels=())
    on.signed = reason == "not signed"
    on.install_kernel(KERNELS[0])

    def answer(argv: Sequence[str]) -> Completed | None:
        if "kernel-install" not in argv:
            return None
        directory = Path(argv[1].partition("=")[2]) / "EFI/Linux"
        directory.mkdir(parents=True)
        content = b"MZ" if sections is None else portable_executable(sections)
        (directory / "x.efi").write_bytes(content)
        return Completed(tuple(argv), 0, "", "")

    on.intercept = answer
    code = "boot_entries_not_understood" if sections is None else "boot_entries_wrong"
    assert reason in str(failed(on, code, ["intel_iommu=on"]))


@pytest.mark.parametrize("error", [errno.EROFS, errno.ENOSPC])
@pytest.mark.parametrize("name", ["settings", "no settings", "images"])
def test_a_boot_partition_that_is_read_only_or_full(tmp_path: Path, name: str, error: int) -> None:
    on = SystemdBootHost(tmp_path, **HOSTS[name])
    with unwritable(on.path(ESP), error):
        found = failed(on, "file_unwritable", ["intel_iommu=on"])
    assert os.strerror(error) in str(found)


def test_an_entry_that_somebody_else_changes_meanwhile(on: SystemdBootHost) -> None:
    path = entry_path(KERNELS[1])
    theirs = on.read(path) + "# theirs\n"

    def answer(argv: Sequence[str]) -> None:
        if "kernel-install" in argv:
            on.write(path, theirs)

    on.intercept = answer
    with pytest.raises(PassthroughError) as caught:
        run(on, ["intel_iommu=on"])
    assert caught.value.code == "file_changed_meanwhile"
    assert on.read(path) == theirs
    assert on.read(SETTINGS) == f"{LINE}\n"
    assert "intel_iommu=off" in on.read(entry_path(KERNELS[0]))


def test_where_a_kernel_counts_from_the_root_of_a_bind_mount(on: SystemdBootHost) -> None:
    path = entry_path(KERNELS[1])
    on.write(path, on.read(path).replace("linux      /", f"linux      {ESP}/"))
    run(on, ["intel_iommu=on"])
    assert any("kernel-install" in command for command in on.commands)
