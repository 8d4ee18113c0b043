# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``kernel_parameters`` on hosts that really boot: what it set is what the next kernel is started with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from tests import lab

from .controller import Controller, quadruple

SWITCHED_ON = "intel_iommu=on"
SWITCHED_OFF = "intel_iommu=off"
# All that a value may have: blanks, equals signs, and what means something to shells, GRUB or sed.
HOSTILE = 'lab.note="x=1; file a/b +p & c | <d> (e) {f} # * ? ! ~ % ^ @ é"'
TAME = "lab.note=tame"
# A real one that has to have its quotes, and a name with a dash, for which the kernel takes an underscore, too.
DYNAMIC_DEBUG = 'dyndbg="file drivers/vfio/* +p"'
DASHED, UNDERSCORED = "vfio-pci.ids=1234:11e8", "vfio_pci.ids=1b36:0005"


@dataclass(frozen=True)
class Loader:
    """What is to be seen on a machine."""

    name: str
    evidence: str
    """What its evidence begins with."""
    boot: str = "/boot"
    """Where its entries are, a directory that is made read-only."""
    made: tuple[str, ...] = ()
    """The settings that the module makes where there are none, and that stay."""
    quotes_whole: bool = False
    """Whether it puts a parameter with blanks into quotes as a whole, as GRUB does."""

    def spelled(self, text: str) -> str:
        """A parameter as it stands in /proc/cmdline."""
        name, _equals, value = text.partition("=")
        return f'"{name}={value[1:-1]}"' if self.quotes_whole and value.startswith('"') else text


LOADERS = {
    "intel": Loader("grub", "/proc/cmdline has BOOT_IMAGE=/boot/vmlinuz-", quotes_whole=True),
    "grub-efi": Loader("grub", "/proc/cmdline has BOOT_IMAGE=/boot/vmlinuz-", quotes_whole=True),
    "systemd-boot": Loader(
        "systemd-boot",
        "the EFI variable LoaderInfo says 'systemd-boot ",
        boot="/boot/efi",
        made=("/etc/kernel/cmdline",),
    ),
    "extlinux": Loader("extlinux", "/proc/cmdline has BOOT_IMAGE=/vmlinuz and initrd="),
}

# Every file of the boot loader and its settings, with its content and its mode, and what was left behind. systemd makes
# a new seed at every boot.
FINGERPRINT = """
sudo find /boot /etc/default /etc/kernel -type f ! -name random-seed -printf '%m %u:%g ' -exec sha256sum {} ';' |
    sort -k3
find /vmlinuz* /initrd.img* -printf '%p -> %l\\n' 2>/dev/null || true
"""
LEFT_BEHIND = """
sudo find /run /tmp /var/tmp /boot /etc -name '*kvm-passthrough*' ! -name '*.lock' ! -path '/run/ansible*'
findmnt --raw --noheadings --output TARGET,OPTIONS | grep -E '^/(boot|run/kvm)' | grep -v '^/boot/efi rw'
"""


# Three reboots of a complete host take minutes, and another image takes some to build. From day to day one has to do.
DAILY = (lab.DEFAULT,)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.lab(name), *([] if name in DAILY else [pytest.mark.full])])
        for name in LOADERS
    ],
)
def test_parameters_reach_every_kernel_until_they_are_removed(large_machine: lab.Machine, name: str) -> None:
    loader, machine, ansible = LOADERS[name], large_machine, Controller(large_machine)
    before = fingerprint(machine, loader)
    first_kernel = machine.ssh("uname -r").stdout.strip()

    refused_when_read_only(machine, ansible, loader)
    assert fingerprint(machine, loader) == before

    # Set: one that contradicts what is there, and one of each kind that is hard to spell.
    result = quadruple(
        ansible, "kernel_parameters", {"present": [SWITCHED_ON, HOSTILE, DYNAMIC_DEBUG, DASHED], "absent": ["nosuch"]}
    )
    assert result["bootloader"]["name"] == loader.name
    assert result["bootloader"]["evidence"][0].startswith(loader.evidence), result["bootloader"]
    assert result["reboot_required"]
    machine.reboot()
    running = command_line(machine)
    for parameter in (SWITCHED_ON, HOSTILE, DYNAMIC_DEBUG, DASHED):
        assert f" {loader.spelled(parameter)} " in running, running
    assert SWITCHED_OFF not in running
    assert machine.ssh("ls /sys/kernel/iommu_groups").stdout

    # Replaced, the other spelling of a name included; a kernel that is installed afterwards has it, too, and is booted.
    quadruple(ansible, "kernel_parameters", {"present": [SWITCHED_ON, TAME, UNDERSCORED], "absent": ["dyndbg"]})
    second_kernel = machine.install_second_kernel()
    settled = ansible.module("kernel_parameters", {"present": [SWITCHED_ON, TAME, UNDERSCORED], "absent": ["dyndbg"]})
    assert not settled.changed, settled.result
    kernels = {kernel_of(entry, first_kernel, second_kernel) for entry in settled.result["entries"]["after"]}
    assert kernels >= ({""} if loader.name == "extlinux" else {first_kernel, second_kernel})
    machine.reboot()
    running = command_line(machine)
    assert machine.ssh("uname -r").stdout.strip() == second_kernel != first_kernel
    for parameter in (SWITCHED_ON, TAME, UNDERSCORED):
        assert f" {parameter} " in running, running
    for absent in ("lab.note=x", 'lab.note="x', "dyndbg", DASHED, SWITCHED_OFF):
        assert absent not in running, running

    # Removed, from the entries of both kernels, by name or as all that was ever done.
    removal = {"present": [SWITCHED_OFF], "absent": ["lab.note", "vfio-pci.ids", "dyndbg"]}
    if loader.name == "grub":
        quadruple(ansible, "kernel_parameters", {"revert": True})
    elif loader.name == "systemd-boot":
        # The second kernel is a real-time one, which has no EFI variables (without efi=runtime), and nothing else is
        # proof of systemd-boot.
        refused = ansible.module("kernel_parameters", removal)
        assert refused.result["code"] == "bootloader_unproved", refused.result
        quadruple(ansible, "kernel_parameters", {**removal, "bootloader": "systemd-boot"})
    else:
        quadruple(ansible, "kernel_parameters", removal)
    machine.reboot()
    running = command_line(machine)
    assert machine.ssh("uname -r").stdout.strip() == second_kernel
    assert f" {SWITCHED_OFF} " in running
    for absent in ("lab.note", "vfio", SWITCHED_ON):
        assert absent not in running, running

    # With the second kernel gone, every file is what it was before all this.
    machine.remove_second_kernel()
    assert fingerprint(machine, loader) == before
    assert machine.ssh(LEFT_BEHIND, check=False).stdout == ""


def command_line(machine: lab.Machine) -> str:
    """What the running kernel was started with, each parameter between blanks."""
    return f" {machine.ssh('cat /proc/cmdline').stdout.strip()} "


def kernel_of(entry: dict[str, Any], *releases: str) -> str:
    """The release in the name of an entry's kernel; empty when it is none of these."""
    found = [release for release in releases if release in entry["kernel"].replace("/", "-").split("-", 1)[-1]]
    return max(found, key=len, default="")


def fingerprint(machine: lab.Machine, loader: Loader) -> list[str]:
    """Every file that counts at boot, without what this machine had to be given."""
    lines = machine.ssh(FINGERPRINT).stdout.splitlines()
    return [line for line in lines if not line.endswith(loader.made)] if loader.made else lines


@contextmanager
def read_only(machine: lab.Machine, directory: str) -> Iterator[None]:
    """Make what is in a directory read-only, as a mount of its own that is."""
    machine.ssh(f"sudo mount --bind {directory} {directory} && sudo mount -o remount,bind,ro {directory}")
    try:
        yield
    finally:
        machine.ssh(f"sudo umount {directory}")


def refused_when_read_only(machine: lab.Machine, ansible: Controller, loader: Loader) -> None:
    """On a read-only boot partition, check mode and run say so, and nothing is changed."""
    with read_only(machine, loader.boot):
        for check in (True, False):
            task = ansible.module("kernel_parameters", {"present": [SWITCHED_ON]}, check=check)
            assert task.status == "failed", task.result
            assert [problem["code"] for problem in task.result["problems"]] == ["file_unwritable"], task.result
            assert loader.boot in task.result["msg"]


# As an administrator goes from boot entries to unified kernel images.
SWITCH_TO_IMAGES = """
set -eu
release=$(uname -r)
sudo kernel-install remove $release
echo layout=uki | sudo tee -a /etc/kernel/install.conf >/dev/null
sudo kernel-install add $release /boot/vmlinuz-$release /boot/initrd.img-$release
sudo ls /boot/efi/EFI/Linux
"""
FILL = """
sudo dd if=/dev/zero of=/boot/efi/filler bs=64k status=none
sync
test $(sudo df --output=avail /boot/efi | tail -1) = 0
"""
START_IT_DIRECTLY = (
    "sudo efibootmgr --create --disk /dev/vda --part 1 --label image --loader '\\EFI\\Linux\\{image}' >/dev/null"
)


@pytest.mark.full
@pytest.mark.lab("systemd-boot")
def test_unified_kernel_images_are_built_again_and_boot_through_systemd_boot_and_without(
    large_machine: lab.Machine,
) -> None:
    machine, ansible = large_machine, Controller(large_machine)
    (image,) = machine.ssh(SWITCH_TO_IMAGES, timeout=600).stdout.split()
    # The second kernel is a real-time one, which needs the last one to have EFI variables.
    present = [SWITCHED_ON, HOSTILE, "efi=runtime"]

    # The boot partition is full: nothing is lost, and the host boots.
    machine.ssh(FILL, timeout=300)
    before = machine.ssh(FINGERPRINT).stdout
    full = ansible.module("kernel_parameters", {"present": present})
    assert full.status == "failed", full.result
    assert [problem["code"] for problem in full.result["problems"]] == ["file_unwritable"], full.result
    assert "No space left" in full.result["msg"]
    assert machine.ssh(FINGERPRINT).stdout == before
    machine.reboot()
    assert f" {SWITCHED_OFF} " in command_line(machine)
    assert image in machine.ssh("sudo bootctl status").stdout
    machine.ssh("sudo rm /boot/efi/filler")

    result = quadruple(ansible, "kernel_parameters", {"present": present})
    assert result["bootloader"]["name"] == "systemd-boot"
    assert [entry["generated"] for entry in result["entries"]["after"]] == [True]

    # The image of a kernel that is installed afterwards has them, too. It is started without systemd-boot.
    second_kernel = machine.install_second_kernel()
    (second_image,) = (name for name in machine.ssh("sudo ls /boot/efi/EFI/Linux").stdout.split() if name != image)
    assert second_kernel in second_image
    machine.ssh(START_IT_DIRECTLY.format(image=second_image))
    machine.reboot()
    assert machine.ssh("uname -r").stdout.strip() == second_kernel
    running = command_line(machine)
    for parameter in present:
        assert f" {parameter} " in running, running
    again = ansible.module("kernel_parameters", {"present": present})
    assert again.status == "ok", again.result
    assert not again.changed
    assert not again.result["reboot_required"]
    assert again.result["bootloader"]["name"] == "uki"
    assert again.result["bootloader"]["evidence"][0].startswith("the EFI variable StubInfo says 'systemd-stub ")

    removed = quadruple(ansible, "kernel_parameters", {"absent": ["intel_iommu", "lab.note", "efi"]})
    assert len(removed["entries"]["after"]) == 2
    assert not any("lab.note" in entry["command_line"] for entry in removed["entries"]["after"])
    assert machine.ssh(LEFT_BEHIND, check=False).stdout == ""
