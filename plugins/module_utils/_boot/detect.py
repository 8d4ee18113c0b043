# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which boot loader started this host, by what it left behind in the running system, not by which files lie around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable

from .._core.errors import PassthroughError
from .._core.host import Host
from . import grub
from .cmdline import CommandLine, running
from .grub_script import GrubSyntaxError, boot_entries, uses_boot_loader_specification
from .loader import BootLoader, Detection

AUTO = "auto"
LOADERS: dict[str, Callable[[Host], BootLoader[Any]]] = {grub.NAME: grub.Grub}

EFI_VARIABLES = "/sys/firmware/efi/efivars"
# The vendor GUID of the Boot Loader Interface (systemd.io/BOOT_LOADER_INTERFACE).
LOADER_GUID = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

# Syslinux and its kin write BOOT_IMAGE= as GRUB does, but with it the initrd, which GRUB hands over in another way
# (syslinux com32/elflink/ldlinux/kernel.c, new_linux_kernel; grub-core/loader).
_SYSLINUX_MARK = "initrd"

_SUPPORTED = "This release changes kernel parameters for GRUB 2 with /etc/default/grub (Debian, Ubuntu)."


def detect(host: Host, wanted: str = AUTO) -> Detection:
    """Find out what this host boots with.

    :param wanted: ``auto``, or the name of a loader that is to be taken without proof from the running system; what
        proves another loader, or shows that the files of this one are not there, is an error all the same
    :raises PassthroughError: ``no_boot_loader``, ``bootloader_unsupported``, ``bootloader_incomplete``,
        ``bootloader_unproved``
    """
    evidence = _grub_evidence(host)
    container = _container(host)
    if not container and not evidence and host.exists("/.dockerenv"):
        # A machine whose disk was made from a container image may have it, too, so it counts for little.
        container = "/.dockerenv is there"
    if container:
        raise PassthroughError(
            "no_boot_loader",
            f"This is a container ({container}): it has no boot loader, and its kernel is that of its host.",
            "Run this module on the machine that boots the kernel.",
            evidence=[container],
        )
    others = _other_loaders(host, evidence)
    if others:
        found = "; ".join(f"{name} ({why})" for name, why in others)
        against = f" GRUB 2 looks active, too ({'; '.join(evidence)})." if evidence else ""
        raise PassthroughError(
            "bootloader_unsupported",
            f"This host boots with something this release does not handle: {found}.{against} Nothing was changed.",
            f"{_SUPPORTED} Set the parameters with the tool of that boot loader.",
            found=[name for name, _unused in others],
            evidence=[why for _unused, why in others] + evidence,
        )
    missing = [path for path in (grub.CONFIG, grub.DEFAULTS) if not host.exists(path)]
    if host.which(grub.GENERATOR) is None:
        missing.append(grub.GENERATOR)
    if missing:
        raise PassthroughError(
            "bootloader_incomplete" if wanted == grub.NAME or evidence else "bootloader_unsupported",
            f"No boot loader this release handles was found: {', '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} not there"
            f"{' (is /boot mounted?)' if grub.CONFIG in missing else ''}. Looked for traces of GRUB 2, systemd-boot, "
            "unified kernel images, boot loader specification entries, rpm-ostree, proxmox-boot-tool, "
            "transactional-update, extlinux and zipl.",
            _SUPPORTED,
            evidence=evidence,
            missing=missing,
        )
    if wanted == grub.NAME and not evidence:
        evidence = ["the task says bootloader: grub; the running system neither proves nor contradicts it"]
    if not evidence:
        raise PassthroughError(
            "bootloader_unproved",
            f"{grub.CONFIG} is there, but nothing shows that GRUB started the running system with it: "
            f"{_unproved(host)}.",
            "Reboot through GRUB once (a kexec or an emulator's -kernel goes past it), or set bootloader: grub when "
            "you know that the next boot goes through it.",
            evidence=[],
        )
    return Detection(grub.NAME, tuple(evidence))


def _container(host: Host) -> str | None:
    """What shows that this is a container; None on a machine."""
    name = host.attribute("/run/systemd/container")
    if name:
        return f"/run/systemd/container says {name}"
    if host.exists("/run/.containerenv"):
        return "/run/.containerenv is there"
    for setting in (host.attribute("/proc/1/environ") or "").split("\0"):
        if setting.startswith("container=") and len(setting) > len("container="):
            return f"process 1 was started with {setting}"
    return None


def _other_loaders(host: Host, evidence: Sequence[str]) -> list[tuple[str, str]]:
    """What is proved to boot this host and is not GRUB with /etc/default/grub: names, each with its evidence.

    :param evidence: what speaks for GRUB
    """
    found = []
    if host.exists("/run/ostree-booted"):
        found.append(("rpm-ostree or bootc", "/run/ostree-booted is there"))
    if host.attribute("/etc/kernel/proxmox-boot-uuids"):
        found.append(("proxmox-boot-tool", "/etc/kernel/proxmox-boot-uuids lists boot partitions"))
    loader = _efi_text(host, "LoaderInfo")
    if loader.lower().startswith("systemd-boot"):
        found.append(("systemd-boot", f"the EFI variable LoaderInfo says {loader!r}"))
    stub = _efi_text(host, "StubInfo")
    if stub:
        found.append(("a unified kernel image", f"the EFI variable StubInfo says {stub!r}"))
    if host.exists("/sys/firmware/ipl/ipl_type"):
        found.append(("zipl (IBM Z)", "/sys/firmware/ipl/ipl_type is there"))
    if host.which("transactional-update") and _root_is_read_only(host):
        found.append(("transactional-update", "it is installed, and the root file system is read-only"))
    config = _grub_config(host)
    try:
        if uses_boot_loader_specification(config):
            found.append(("GRUB with boot loader specification entries", f"{grub.CONFIG} runs blscfg"))
    except GrubSyntaxError:
        pass  # a damaged grub.cfg is reported where it is read for its entries
    if host.exists("/boot/extlinux/extlinux.conf") and not evidence:
        found.append(("extlinux or U-Boot", "/boot/extlinux/extlinux.conf is there"))
    return found


def _grub_evidence(host: Host) -> list[str]:
    """What proves that GRUB started the running kernel from its grub.cfg."""
    evidence = []
    line = running(host)
    image = _boot_image(line)
    if image and image in _grub_kernels(host) and not line.named(_SYSLINUX_MARK):
        evidence.append(f"/proc/cmdline has BOOT_IMAGE={image}, a kernel of {grub.CONFIG}")
    loader = _efi_text(host, "LoaderInfo")
    if loader.startswith("GRUB"):
        evidence.append(f"the EFI variable LoaderInfo says {loader!r}")
    return evidence


def _unproved(host: Host) -> str:
    line = running(host)
    image = _boot_image(line)
    if not image:
        return "/proc/cmdline has no BOOT_IMAGE=, which GRUB puts there"
    if line.named(_SYSLINUX_MARK):
        return "/proc/cmdline has initrd= beside BOOT_IMAGE=, as Syslinux writes it and GRUB does not"
    kernels = sorted(_grub_kernels(host))
    return f"BOOT_IMAGE={image} in /proc/cmdline is not one of its kernels ({', '.join(kernels[:8]) or 'it has none'})"


def _boot_image(line: CommandLine) -> str | None:
    """The kernel file GRUB says it loaded, without the device it may name before it: ``(hd0,gpt2)/vmlinuz``."""
    for parameter in line.named("BOOT_IMAGE"):
        return _without_device(parameter.value or "")
    return None


def _grub_kernels(host: Host) -> set[str]:
    try:
        return {_without_device(entry.kernel) for entry in boot_entries(_grub_config(host))}
    except GrubSyntaxError:
        return set()


def _without_device(path: str) -> str:
    return path.partition(")")[2] if path.startswith("(") else path


def _grub_config(host: Host) -> str:
    return host.read_text(grub.CONFIG) if host.exists(grub.CONFIG) else ""


def _efi_text(host: Host, name: str) -> str:
    """A text variable of the Boot Loader Interface: four bytes of attributes, then UTF-16; empty when not there."""
    path = f"{EFI_VARIABLES}/{name}-{LOADER_GUID}"
    if not host.exists(path):
        return ""
    return host.read_bytes(path)[4:].decode("utf-16-le", "replace").rstrip("\0")


def _root_is_read_only(host: Host) -> bool:
    for line in (host.attribute("/proc/self/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1] == "/":
            return "ro" in fields[3].split(",")
    return False
