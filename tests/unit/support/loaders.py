# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host for every way in which a boot loader keeps its parameters, for tests of what holds for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import boot, extlinux, grubby, proxmox, systemd_boot, zipl
from .boot import GrubHost
from .extlinux import ExtlinuxHost
from .grubby import RHEL_8, RHEL_9, GrubbyHost
from .proxmox import ProxmoxHost
from .rpm_ostree import OstreeHost
from .systemd_boot import SystemdBootHost
from .transactional_update import TransactionalHost
from .zipl import ZiplHost


@dataclass(frozen=True)
class Kind:
    """One of them."""

    loader: str
    """The name of the option ``bootloader``."""
    make: Callable[[Path, str], Any]
    """Make a host in a directory; its settings, and every entry made from them, have these parameters."""
    written: tuple[str, ...] = ()
    """Files that are replaced when parameters change, those that GRUB or the firmware reads among them."""
    takes_spaces: bool = True
    """Whether a value may have spaces."""
    takes_all_of_unicode: bool = True
    boot: Callable[[Any], None] = field(default=lambda _unused: None)
    """Reboot, where a change has to be booted before the next one can be made."""


def _uki(root: Path, words: str) -> SystemdBootHost:
    """Started by the firmware itself, without systemd-boot."""
    on = SystemdBootHost(root, f"root=UUID=aa ro {words}\n", layout="uki")
    on.path(systemd_boot.LOADER_INFO).unlink()
    on.write(systemd_boot.STUB_INFO, systemd_boot.efi_text("systemd-stub 257.8-1~deb13u2"))
    return on


def _by_hand(root: Path, words: str) -> SystemdBootHost:
    """An entry nothing generates, as on Arch Linux."""
    on = SystemdBootHost(root, kernels=())
    entry = f"title Arch Linux\nlinux /vmlinuz-linux\ninitrd /initramfs-linux.img\noptions root=UUID=aa ro {words}\n"
    on.write(f"{systemd_boot.ESP}/loader/entries/arch.conf", entry)
    return on


def _grub_settings(words: str) -> str:
    escaped = words.replace('"', '\\"')
    return f'GRUB_DISTRIBUTOR="Debian"\nGRUB_CMDLINE_LINUX_DEFAULT="{escaped}"\n'


def _zipl(root: Path, words: str) -> ZiplHost:
    return ZiplHost(root, zipl.DEBIAN.replace(zipl.LINE, f"{zipl.ROOT} {words}"))


def _zipl_entries(root: Path, words: str) -> ZiplHost:
    found = {version: zipl.entry(version, f"{zipl.ROOT} {words}") for version in zipl.KERNELS}
    return ZiplHost(root, zipl.RHEL, found, {zipl.SETTINGS: f"{zipl.ROOT} {words}\n"})


_BLS_ENTRY = grubby.entry_path(RHEL_9.kernels[0])

KINDS = {
    "grub": Kind("grub", lambda root, words: GrubHost(root, _grub_settings(words)), (boot.DEFAULTS, boot.CONFIG)),
    "grub-bls, RHEL 9": Kind(
        "grub-bls",
        lambda root, words: GrubbyHost(root, line=f"{grubby.ROOT} {words}"),
        (grubby.DEFAULTS, grubby.SETTINGS, _BLS_ENTRY),
    ),
    "grub-bls, RHEL 8": Kind(
        "grub-bls",
        lambda root, words: GrubbyHost(root, RHEL_8, line=f"{grubby.ROOT} {words}"),
        (grubby.DEFAULTS, grubby.ENVIRONMENT),
    ),
    "systemd-boot": Kind(
        "systemd-boot",
        lambda root, words: SystemdBootHost(root, f"root=UUID=aa ro {words}\n"),
        (systemd_boot.SETTINGS, systemd_boot.entry_path(systemd_boot.KERNELS[0])),
    ),
    "systemd-boot, by hand": Kind("systemd-boot", _by_hand, (f"{systemd_boot.ESP}/loader/entries/arch.conf",)),
    "uki": Kind("uki", _uki, (systemd_boot.SETTINGS, systemd_boot.image_path(systemd_boot.KERNELS[0]))),
    "extlinux": Kind(
        "extlinux",
        lambda root, words: ExtlinuxHost(root, 'U_BOOT_PARAMETERS="{}"\n'.format(words.replace('"', '\\"'))),
        (extlinux.DEFAULTS, extlinux.CONFIG),
    ),
    "extlinux, by hand": Kind(
        "extlinux",
        lambda root, words: ExtlinuxHost(
            root,
            files={extlinux.CONFIG: f"label linux\n\tkernel /boot/vmlinuz\n\tappend {extlinux.ROOT} {words}\n"},
        ),
        (extlinux.CONFIG,),
    ),
    "rpm-ostree": Kind(
        "rpm-ostree",
        lambda root, words: OstreeHost(root, f"root=UUID=1234-abcd rw {words}"),
        takes_spaces=False,
    ),
    "transactional-update": Kind(
        "transactional-update",
        lambda root, words: TransactionalHost(root, _grub_settings(words)),
        (boot.DEFAULTS,),
        boot=TransactionalHost.boot_default,
    ),
    "proxmox-boot-tool": Kind(
        "proxmox-boot-tool",
        lambda root, words: ProxmoxHost(root, line=f"root=ZFS=rpool/ROOT/pve-1 boot=zfs {words}\n"),
        (proxmox.SETTINGS,),
    ),
    "proxmox-boot-tool, GRUB": Kind(
        "proxmox-boot-tool",
        lambda root, words: ProxmoxHost(root, proxmox.GRUB_LEGACY, defaults=_grub_settings(words)),
        (boot.DEFAULTS,),
    ),
    "zipl": Kind("zipl", _zipl, (zipl.CONFIG, zipl.BOOT_MAP), takes_all_of_unicode=False),
    "zipl, entries": Kind(
        "zipl",
        _zipl_entries,
        (zipl.SETTINGS, zipl.entry_path(zipl.KERNELS[0]), zipl.BOOT_MAP),
        takes_all_of_unicode=False,
    ),
}
"""By a name for tests. bootc is not among them: nothing is ever changed there."""
