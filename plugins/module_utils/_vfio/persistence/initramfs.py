# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tools that build an initramfs have in common here, and which one a host has.

A driver that is in the initramfs comes before everything on the root file system. So the rules, and the modules they
load, have to be in there, too, for every kernel that is installed and for those that will be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from ..._core.errors import Problem
from ..._core.files import FileState
from ..._core.host import Host


class Initramfs(Protocol):
    """One tool that builds initramfs images."""

    name: str

    def is_used(self, host: Host) -> bool:
        """Whether this tool builds the images of a host."""

    def settings(self, drivers: Collection[str]) -> Mapping[str, FileState]:
        """The tool's own settings files that put the rules and these drivers into every image; no drivers: no files."""

    def command(self) -> list[str]:
        """What builds the images of all installed kernels again."""

    def check(self, host: Host, drivers: Collection[str]) -> None:
        """Look into the images that were built.

        :raises PassthroughError: ``initramfs_incomplete`` when one lacks the rules or a driver, or (without drivers)
            still has the rules
        """


def unsupported(host: Host) -> Problem | None:
    """Why no settings for the next boot can be made where another tool builds the images; None where none does."""
    for program in ("dracut", "mkinitcpio", "booster"):
        if host.which(program) is not None:
            return Problem(
                "persistence_unsupported",
                f"The initramfs of this host is built by {program}, for which vfio_devices can make no settings, and a "
                "driver in the initramfs would take the devices before any rule on the root file system is read.",
                "Set persistent to false to bind the devices until the next reboot only.",
                {"program": program},
            )
    return None
