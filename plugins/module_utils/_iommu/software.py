# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kernel, libvirt and QEMU a host has, asked of the programs themselves, without a connection to a daemon."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError
from .machine import Machine

Version = Optional[tuple[int, ...]]

# What IBM Z needs for PCI passthrough, from the announcements of it (libvirt 4.10.0, Linux 4.14, QEMU 2.11).
ZPCI_MINIMUM: dict[str, tuple[int, ...]] = {"kernel": (4, 14), "libvirt": (4, 10), "qemu": (2, 11)}

LIBVIRT_PROGRAMS = ("virtqemud", "libvirtd", "virsh")
# QEMU's name for an architecture, where it is not the kernel's (QEMU's configure, ``cpu`` to ``target``).
_QEMU_NAMES = {"i686": "i386", "i586": "i386", "i486": "i386", "ppc64le": "ppc64", "armv7l": "arm"}
QEMU_KVM = "/usr/libexec/qemu-kvm"  # Red Hat's, outside of PATH

_TIMEOUT = 15.0
_VERSION = re.compile(r"\b([0-9]{1,9})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?")


@dataclass(frozen=True)
class Versions:
    """Versions as numbers; None for what is not installed, or does not say."""

    kernel: Version
    libvirt: Version
    qemu: Version

    def as_result(self) -> dict[str, str | None]:
        """The versions as people write them."""
        return {"kernel": shown(self.kernel), "libvirt": shown(self.libvirt), "qemu": shown(self.qemu)}


def installed_versions(machine: Machine) -> Versions:
    """The versions; at most two programs are run."""
    which = machine.host.which
    libvirt = next((path for path in map(which, LIBVIRT_PROGRAMS) if path is not None), None)
    emulator = f"qemu-system-{_QEMU_NAMES.get(machine.architecture, machine.architecture)}"
    qemu = which(emulator) or which("qemu-kvm") or (QEMU_KVM if machine.host.exists(QEMU_KVM) else None)
    return Versions(version_in(machine.kernel or ""), _answer(machine, libvirt), _answer(machine, qemu))


def _answer(machine: Machine, program: str | None) -> Version:
    if program is None:
        return None
    try:
        return version_in(machine.host.run([program, "--version"], timeout=_TIMEOUT).stdout)
    except PassthroughError:
        return None


def version_in(text: str) -> Version:
    """The first version number in a text: two or three numbers (``6.12.48+deb13-amd64``); None without one."""
    match = _VERSION.search(text)
    return None if match is None else tuple(int(number) for number in match.groups() if number is not None)


def shown(version: Version) -> str | None:
    """A version as people write it."""
    return None if version is None else ".".join(map(str, version))
