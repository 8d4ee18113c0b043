# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot loaders this collection knows when it sees them, but does not configure: refused by name, with their evidence.

Many of them drive another one (rpm-ostree writes GRUB's or systemd-boot's entries), whose own traces are then there,
too; ``drives`` names those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from .._core.host import Host
from .grub_layout import find_layout, read_config
from .grub_script import GrubSyntaxError, uses_boot_loader_specification
from .zipl import GRUB_MARKS, IPL_TYPE


@dataclass(frozen=True)
class UnhandledLoader:
    """A boot loader that is only recognised; a :class:`~.loader.Candidate`."""

    name: str
    title: str
    drives: frozenset[str]
    find: Callable[[Host], list[str]]
    host: Host

    def evidence(self) -> list[str]:
        """What proves it."""
        return self.find(self.host)


def unhandled_loaders(host: Host) -> list[UnhandledLoader]:
    """All of them."""
    return [UnhandledLoader(name, title, frozenset(drives), find, host) for name, title, drives, find in _KNOWN]


def _ostree(host: Host) -> list[str]:
    return _present(host, "/run/ostree-booted")


def _zipl_with_grub(host: Host) -> list[str]:
    return [mark for path in GRUB_MARKS for mark in _present(host, path)] if host.exists(IPL_TYPE) else []


def _transactional_update(host: Host) -> list[str]:
    if host.which("transactional-update") and _root_is_read_only(host):
        return ["it is installed, and the root file system is read-only"]
    return []


def _grub_with_entries(host: Host) -> list[str]:
    try:
        if uses_boot_loader_specification(read_config(host)):
            return [f"{find_layout(host).config} runs blscfg"]
    except GrubSyntaxError:
        pass  # a damaged grub.cfg is reported where it is read for its entries
    return []


_KNOWN: tuple[tuple[str, str, tuple[str, ...], Callable[[Host], list[str]]], ...] = (
    ("ostree", "rpm-ostree or bootc", ("grub", "grub-bls", "systemd-boot", "uki", "extlinux"), _ostree),
    ("zipl-grub", "GRUB that zipl starts (SUSE on IBM Z)", ("zipl", "grub", "grub-bls"), _zipl_with_grub),
    (
        "transactional-update",
        "transactional-update",
        ("grub", "grub-bls", "systemd-boot", "uki"),
        _transactional_update,
    ),
    ("grub-bls", "GRUB with boot loader specification entries", ("grub",), _grub_with_entries),
)


def _present(host: Host, path: str) -> list[str]:
    return [f"{path} is there"] if host.exists(path) else []


def _root_is_read_only(host: Host) -> bool:
    for line in (host.attribute("/proc/self/mounts") or "").splitlines():
        fields = line.split()
        if len(fields) > 3 and fields[1] == "/":
            return "ro" in fields[3].split(",")
    return False
