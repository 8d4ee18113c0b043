# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot loaders this collection knows when it sees them, but does not configure: refused by name, with their evidence.

Many of them drive another one (OSTree writes GRUB's or systemd-boot's entries), whose own traces are then there,
too; ``drives`` names those.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

from .._core.host import Host
from . import bootc, ostree, rpm_ostree
from .cmdline import running
from .transactional_update import driven_by_sdbootutil
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
    if host.which(rpm_ostree.PROGRAM) or host.which(bootc.PROGRAM):
        return []
    return ostree.present(host, ostree.BOOTED)


def _composefs(host: Host) -> list[str]:
    if not host.which(bootc.PROGRAM) or host.exists(ostree.BOOTED):
        return []
    return [f"/proc/cmdline has {parameter}" for parameter in running(host).named("composefs")]


def _zipl_with_grub(host: Host) -> list[str]:
    return [mark for path in GRUB_MARKS for mark in ostree.present(host, path)] if host.exists(IPL_TYPE) else []


_KNOWN: tuple[tuple[str, str, tuple[str, ...], Callable[[Host], list[str]]], ...] = (
    ("ostree", "OSTree without rpm-ostree or bootc", tuple(ostree.DRIVEN), _ostree),
    ("bootc-composefs", "bootc with its composefs backend", tuple(ostree.DRIVEN), _composefs),
    ("zipl-grub", "GRUB that zipl starts (SUSE on IBM Z)", ("zipl", "grub", "grub-bls"), _zipl_with_grub),
    (
        "sdbootutil",
        "transactional-update with entries by sdbootutil (systemd-boot or GRUB)",
        ("grub", "grub-bls", "systemd-boot", "uki"),
        driven_by_sdbootutil,
    ),
)
