# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.detect import LOADERS, detect
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.grub import Grub
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.tests.unit.support.boot import CONFIG, DEFAULTS, GENERATOR, GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.systemd_boot import LOADER_INFO, STUB_INFO, efi_text
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash


def refused(on: GrubHost, wanted: str = "auto") -> PassthroughError:
    before = tree_hash(on.root)
    with pytest.raises(PassthroughError) as caught:
        detect(on.host, wanted)
    assert tree_hash(on.root) == before
    return caught.value


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path) -> GrubHost:
    return GrubHost(tmp_path)


@pytest.mark.parametrize("wanted", ["auto", "grub"])
def test_grub_is_proved_by_the_kernel_it_started(on: GrubHost, wanted: str) -> None:
    found = detect(on.host, wanted)
    assert found.name == "grub"
    assert found.evidence == (f"/proc/cmdline has BOOT_IMAGE=/boot/vmlinuz-6.1.0-13-amd64, a kernel of {CONFIG}",)


def test_a_device_before_the_path_does_not_matter(on: GrubHost) -> None:
    on.write("/proc/cmdline", "BOOT_IMAGE=(hd0,gpt2)/boot/vmlinuz-6.1.0-13-amd64 quiet\n")
    assert detect(on.host).name == "grub"


def test_grub_is_proved_by_its_efi_variable(on: GrubHost) -> None:
    on.write("/proc/cmdline", "quiet\n")
    on.write(LOADER_INFO, efi_text("GRUB 2.12"))
    assert detect(on.host).evidence == ("the EFI variable LoaderInfo says 'GRUB 2.12'",)


@pytest.mark.parametrize("cmdline", ["quiet", "BOOT_IMAGE=/elsewhere/vmlinuz quiet", "quiet -- BOOT_IMAGE=x"])
def test_a_grub_cfg_alone_proves_nothing(on: GrubHost, cmdline: str) -> None:
    on.write("/proc/cmdline", f"{cmdline}\n")
    error = refused(on)
    assert error.code == "bootloader_unproved"
    assert "BOOT_IMAGE" in str(error)
    assert "bootloader: grub" in str(error)
    assert detect(on.host, "grub").name == "grub"


@pytest.mark.parametrize("wanted", ["auto", "grub"])
def test_a_loader_that_drives_grub_is_named_and_refused(on: GrubHost, wanted: str) -> None:
    on.write("/run/ostree-booted", "")
    error = refused(on, wanted)
    assert error.code == "bootloader_unsupported"
    assert "ostree" in str(error)
    assert error.as_result()["found"]
    assert error.as_result()["evidence"]


@pytest.mark.parametrize(("wanted", "code"), [("auto", "bootloader_unsupported"), ("grub", "bootloader_incomplete")])
def test_a_grub_cfg_without_entries_of_its_own_is_not_generated_from_settings(
    on: GrubHost, wanted: str, code: str
) -> None:
    on.write(CONFIG, "insmod blscfg\nblscfg\n")
    error = refused(on, wanted)
    assert error.code == code
    assert "it runs blscfg" in str(error)


OTHERS = {
    "systemd-boot": (LOADER_INFO, efi_text("systemd-boot 257.8"), "'systemd-boot 257.8'"),
    "uki": (STUB_INFO, efi_text("systemd-stub 257.8"), "'systemd-stub 257.8'"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_two_that_look_active(on: GrubHost, name: str) -> None:
    path, content, shown = OTHERS[name]
    on.write(path, content)
    error = refused(on)
    assert error.code == "bootloader_ambiguous"
    assert "/proc/cmdline has BOOT_IMAGE=" in str(error)
    assert shown in str(error)
    assert error.as_result()["found"] == ["grub", name]
    assert detect(on.host, "grub").evidence[0].startswith("/proc/cmdline has BOOT_IMAGE=")


@pytest.mark.parametrize("name", OTHERS)
def test_the_word_of_a_task_does_not_outweigh_what_booted(on: GrubHost, name: str) -> None:
    path, content, shown = OTHERS[name]
    on.write(path, content)
    on.write("/proc/cmdline", "root=/dev/vda2 quiet\n")
    error = refused(on, "grub")
    assert error.code == "bootloader_unsupported"
    assert shown in str(error)
    assert error.as_result()["found"] == [name]


def test_systemd_boot_that_started_a_unified_kernel_image_is_one_loader(on: GrubHost) -> None:
    on.write("/proc/cmdline", "root=/dev/vda2 quiet\n")
    for path, content, _unused in OTHERS.values():
        on.write(path, content)
    error = refused(on)
    assert error.code == "bootloader_incomplete"
    assert list(error.as_result()["missing"]) == ["systemd-boot"]


def test_a_loader_before_grub_does_not_matter(on: GrubHost) -> None:
    on.write(LOADER_INFO, efi_text("rEFInd 0.14"))
    assert detect(on.host).name == "grub"


def test_an_extlinux_conf_is_no_sign_of_its_use(on: GrubHost) -> None:
    on.write("/boot/extlinux/extlinux.conf", "label l0\nlinux /x\n")
    assert detect(on.host).name == "grub"
    on.write("/proc/cmdline", "root=/dev/mmcblk0p1\n")
    error = refused(on)
    assert error.code == "bootloader_unproved"
    assert "bootloader: grub or extlinux" in str(error)


def test_syslinux_writes_boot_image_too_but_with_the_initrd(on: GrubHost) -> None:
    kernel = "BOOT_IMAGE=/boot/vmlinuz-6.1.0-13-amd64"
    on.write("/proc/cmdline", f"{kernel} initrd=/boot/initrd.img-6.1.0-13-amd64 root=/dev/vda1 quiet\n")
    error = refused(on)
    assert error.code == "bootloader_unproved"
    assert "initrd=" in str(error)
    on.write("/boot/extlinux/extlinux.conf", "label l0\nlinux /boot/vmlinuz-6.1.0-13-amd64\n")
    assert detect(on.host).name == "extlinux"
    assert "and not with grub" in str(refused(on, "grub"))


def test_transactional_update_needs_a_read_only_root(on: GrubHost) -> None:
    on.write("/usr/sbin/transactional-update", "", 0o755)
    on.write("/proc/self/mounts", "none /proc proc ro 0 0\n/dev/vda / btrfs rw,relatime 0 0\n")
    assert detect(on.host).name == "grub"
    on.write("/proc/self/mounts", "/dev/vda / btrfs ro,relatime 0 0\n")
    assert "transactional-update" in str(refused(on))


CONTAINERS = pytest.mark.parametrize(
    ("path", "content"),
    [
        ("/run/systemd/container", "podman\n"),
        ("/run/.containerenv", ""),
        ("/proc/1/environ", "PATH=/bin\0container=lxc\0"),
    ],
)


@CONTAINERS
def test_a_container_has_no_boot_loader(on: GrubHost, path: str, content: str) -> None:
    on.write(path, content)
    error = refused(on)
    assert error.code == "no_boot_loader"
    assert "container" in str(error)


@CONTAINERS
def test_in_a_container_a_name_means_the_files_of_that_boot_loader(on: GrubHost, path: str, content: str) -> None:
    """Whatever started the kernel: that was the boot loader of the container's host."""
    on.write(path, content)
    on.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz-of-the-host quiet\n")
    found = detect(on.host, "grub")
    assert found.name == "grub"
    assert found.container is not None
    assert any("container" in text for text in found.evidence)


def test_in_a_container_the_files_have_to_be_there(on: GrubHost) -> None:
    on.write("/run/.containerenv", "")
    error = refused(on, "extlinux")
    assert error.code == "bootloader_incomplete"
    assert str(error).startswith("This container")


def test_the_mark_of_a_container_image_does_not_outweigh_what_booted(on: GrubHost) -> None:
    on.write("/.dockerenv", "")
    assert detect(on.host).name == "grub"
    on.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz-of-the-host quiet\n")
    assert refused(on).code == "no_boot_loader"


@pytest.mark.parametrize("path", [CONFIG, DEFAULTS, GENERATOR])
@pytest.mark.parametrize("wanted", ["auto", "grub"])
def test_grub_that_is_not_complete(on: GrubHost, path: str, wanted: str) -> None:
    on.path(path).unlink()
    error = refused(on, wanted)
    assert error.code in ("bootloader_incomplete", "bootloader_unsupported")
    assert path.rsplit("/", 1)[-1] in str(error)
    assert error.as_result()["missing"]


def test_a_damaged_grub_cfg_is_no_proof(on: GrubHost) -> None:
    on.write(CONFIG, "menuentry 'x")
    assert refused(on).code == "bootloader_unproved"


class Lilo(Grub):
    """Another boot loader, with GRUB's files and evidence of its own."""

    name = "lilo"
    title = "LILO"

    def evidence(self) -> list[str]:
        return ["/proc/cmdline has BOOT_IMAGE=Linux"] if "BOOT_IMAGE=Linux" in self._host.read_text(CMDLINE) else []

    def doubt(self) -> str:
        return "nobody uses it any more"


CMDLINE = "/proc/cmdline"


def test_a_boot_loader_is_one_class_and_one_line(on: GrubHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOADERS, "lilo", Lilo)
    assert detect(on.host).name == "grub"
    on.write(CMDLINE, "BOOT_IMAGE=Linux quiet\n")
    assert detect(on.host).name == "lilo"
    assert "set bootloader: auto or bootloader: lilo" in str(refused(on, "grub")).lower().replace("\n", " ")
    on.write(CMDLINE, "quiet\n")
    error = refused(on)
    assert error.code == "bootloader_unproved"
    assert "nobody uses it any more" in str(error)
    assert "bootloader: grub or lilo" in str(error)
    assert detect(on.host, "lilo").evidence[0].startswith("the task says bootloader: lilo")
