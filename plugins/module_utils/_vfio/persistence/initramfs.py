# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tools that build an initramfs have in common here, and which hosts cannot have settings for the next boot.

A driver that is in the initramfs comes before everything on the root file system. So the rules, the settings of
modprobe, and the modules they load, have to be in there, too, for every kernel that is installed and for those that
will be.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Callable, Protocol

from ..._boot.efi import LOADER_GUID, VARIABLES
from ..._core import files
from ..._core.errors import PassthroughError, Problem
from ..._core.files import FileState
from ..._core.host import Host
from .images import Image, unified_images

# Each image compressed by a slow machine, and hooks of boot loaders that copy it.
BUILD_TIMEOUT = 1800.0

Inspect = Callable[[Sequence[Image]], None]
"""Looks into images and raises when one is not as it is to be."""

# systemd-stub(7): set by the part of a unified kernel image that starts it.
_STUB_INFO = f"{VARIABLES}/StubInfo-{LOADER_GUID}"
_OSTREE = "/run/ostree-booted"


class Initramfs(Protocol):
    """One tool that builds initramfs images."""

    name: str

    def is_used(self, host: Host) -> bool:
        """Whether this tool builds the images of a host."""

    def obstacle(self, host: Host) -> Problem | None:
        """What in the tool's own set-up keeps it from taking settings of ours; None for nothing."""

    def settings(self, drivers: Collection[str], carried: Collection[str]) -> Mapping[str, FileState]:
        """The tool's own settings files that put these files and drivers into every image; no drivers: no files."""

    def images(self, host: Host) -> list[Image]:
        """The images that it builds for the installed kernels."""

    def build(self, host: Host, inspect: Inspect) -> None:
        """Build all of them again.

        Killed or failing at any moment, each image is the whole old one or a whole new one. Where the tool itself does
        not see to that, it builds in another place, and what it made has to pass ``inspect`` before it replaces
        anything.

        :raises PassthroughError: when an image cannot be built, replaced, or does not pass
        """


def replace_images(host: Host, command: Callable[[str], list[str]], images: Sequence[Image], inspect: Inspect) -> None:
    """Build one image with a tool that writes in place, and put it in the place of all images that are copies of it.

    :param command: the command that builds it, given the path to write to, as the running process sees it
    :param images: the old ones; a new one has their names, modes and owners
    :raises PassthroughError: what :meth:`Host.run`, ``inspect`` and :func:`files.put` raise; no image is then a part
    """
    first = images[0]
    with host.temporary_directory("initramfs") as directory:
        made = f"{directory}/{os.path.basename(first.path)}"
        host.run(command(host.path(made)), timeout=BUILD_TIMEOUT)
        if not host.exists(made):
            raise PassthroughError(
                "initramfs_incomplete",
                f"{' '.join(command(made))!r} ended well, but made no image.",
                "Run it by hand and look at what it says.",
                image=first.path,
            )
        inspect([replace(first, path=made)])
        content = host.read_bytes(made)
    for image in images:
        files.put(host, image.path, replace(files.observe(host, image.path), content=content))


def unsupported(host: Host, tool: Initramfs | None) -> Problem | None:
    """Why no settings for the next boot can be made on a host; None where they can.

    :param tool: the one that builds its images; None without any that is known
    """
    if host.exists(_OSTREE):
        return _unsupported(
            "This host runs from an image of the whole system (ostree), and its initramfs comes with that image",
            program="ostree",
        )
    unified = unified_images(host) if host.exists(_STUB_INFO) else []
    if unified:
        return _unsupported(
            f"This host boots a unified kernel image ({', '.join(unified)}), which has its initramfs inside",
            images=unified,
        )
    if tool is not None:
        return tool.obstacle(host)
    if host.which("booster") is not None:
        return _unsupported(
            "The initramfs of this host is built by booster, for which vfio_devices can make no settings",
            program="booster",
        )
    return None


def _unsupported(what: str, **details: object) -> Problem:
    return Problem(
        "persistence_unsupported",
        f"{what}, and a driver in the initramfs would take the devices before any rule on the root file system is "
        "read.",
        "Set persistent to false to bind the devices until the next reboot only.",
        details,
    )
