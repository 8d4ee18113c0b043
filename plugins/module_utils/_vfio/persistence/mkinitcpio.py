# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""mkinitcpio (Arch Linux).

A drop-in adds modules and files; mkinitcpio reads it since version 38, and only where no other configuration is named
(``-c``). Presets, which are shell scripts of assignments, say which images there are and how each is built. As
mkinitcpio writes in place, each is built in another place with the very arguments that ``mkinitcpio -P`` would use.

Sources: mkinitcpio(8) ("About presets"), mkinitcpio.conf(5); mkinitcpio's ``process_preset`` and ``build_image``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..._core.errors import PassthroughError, Problem
from ..._core.files import FileState
from ..._core.host import Host
from . import images
from .images import Image
from .initramfs import Inspect, replace_images

DROP_IN_PATH = "/etc/mkinitcpio.conf.d/kvm-passthrough.conf"
PRESETS = "/etc/mkinitcpio.d"

# A question mark: no error with a kernel that has no such module, or has it built in.
_DROP_IN = """\
# Written by kvm.passthrough.vfio_devices, which replaces or removes the whole file.
MODULES+=({drivers})
FILES+=({files})
"""
_ASSIGNMENT = re.compile(r"\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)=(?P<value>.*)", re.DOTALL)


@dataclass(frozen=True)
class _Build:
    """One image of a preset: how it is built."""

    image: Image
    arguments: tuple[str, ...]
    """All but the path it is written to."""
    config: str | None

    def command(self, path: str) -> list[str]:
        """What builds it in another place."""
        return ["mkinitcpio", "-g", path, *self.arguments]


class Mkinitcpio:
    """A drop-in adds drivers and files; mkinitcpio builds the images, now and for each kernel to come."""

    name = "mkinitcpio"

    def is_used(self, host: Host) -> bool:
        """See :class:`.initramfs.Initramfs`."""
        return host.which("mkinitcpio") is not None

    def obstacle(self, host: Host) -> Problem | None:
        """A preset that cannot be read, or whose images would never have the drop-in."""
        try:
            builds = _builds(host)
        except PassthroughError as error:
            return error.problems[0]
        for build in builds:
            if build.config is not None:
                return Problem(
                    "initramfs_settings_ignored",
                    f"{build.image.path} is built with a configuration of its own ({build.config}, named in "
                    f"{PRESETS}), and mkinitcpio then reads no drop-in of /etc/mkinitcpio.conf.d.",
                    "Comment the line out (ALL_config, default_config, …) to use /etc/mkinitcpio.conf, as the presets "
                    "of Arch's packages do. Set persistent to false to bind the devices until the next reboot only.",
                    {"image": build.image.path, "config": build.config},
                )
        return None

    def settings(self, drivers: Collection[str], carried: Collection[str]) -> Mapping[str, FileState]:
        """See :class:`.initramfs.Initramfs`."""
        if not drivers:
            return {DROP_IN_PATH: FileState(None)}
        text = _DROP_IN.format(
            drivers=" ".join(f"'{driver}?'" for driver in sorted(drivers)), files=" ".join(sorted(carried))
        )
        return {DROP_IN_PATH: FileState(text.encode())}

    def images(self, host: Host) -> list[Image]:
        """See :class:`.initramfs.Initramfs`."""
        return [build.image for build in _builds(host)]

    def build(self, host: Host, inspect: Inspect) -> None:
        """See :class:`.initramfs.Initramfs`."""
        for build in _builds(host):
            replace_images(host, build.command, [build.image], inspect)


def _builds(host: Host) -> list[_Build]:
    """The images of all presets that are there, and those that kernel-install keeps on the boot partition.

    :raises PassthroughError: ``preset_unreadable``
    """
    found: dict[str, _Build] = {}
    for name in host.list_dir(PRESETS):
        if name.endswith(".preset"):
            for build in _preset(f"{PRESETS}/{name}", host.read_text(f"{PRESETS}/{name}")):
                if host.exists(build.image.path):
                    found.setdefault(build.image.path, build)
    for image in images.find(host):
        found.setdefault(image.path, _Build(image, ("-k", image.version), None))
    return list(found.values())


def _preset(path: str, text: str) -> list[_Build]:
    values = _assignments(path, text)

    def value(preset: str, name: str) -> str | None:
        words = values.get(f"{preset}_{name}") or values.get(f"ALL_{name}") or []
        return words[0] if words else None

    builds = []
    for preset in values.get("PRESETS", []):
        kernel, config = value(preset, "kver"), value(preset, "config")
        image = (values.get(f"{preset}_image") or [""])[0]
        if kernel and image:
            options = shlex.split(" ".join(values.get(f"{preset}_options", [])))
            arguments = ["-k", kernel, *(["-c", config] if config else []), *options]
            version = "" if kernel.startswith("/") else kernel
            builds.append(_Build(Image(version, image), tuple(arguments), config))
    return builds


def _assignments(path: str, text: str) -> dict[str, list[str]]:
    """Name -> its words, one for a plain assignment.

    :raises PassthroughError: ``preset_unreadable`` for anything that only a shell understands
    """
    found: dict[str, list[str]] = {}
    pending = ""
    for line in text.splitlines():
        pending += line
        statement = re.sub(r"(^|\s)#.*", "", pending)
        if not statement.strip():
            pending = ""
            continue
        match = _ASSIGNMENT.fullmatch(statement)
        if match is not None and match["value"].startswith("(") and not match["value"].rstrip().endswith(")"):
            pending += " "  # an array that goes on in the next line
            continue
        pending = ""
        try:
            if match is None or "$" in statement or "`" in statement:
                raise ValueError(statement)
            value = match["value"].strip()
            is_array = value.startswith("(")
            words = shlex.split(value[1:-1] if is_array else value)
            if not is_array and len(words) > 1:
                raise ValueError(statement)
        except ValueError as error:
            raise PassthroughError(
                "preset_unreadable",
                f"{path} has a line that only a shell understands: {statement.strip()!r}. So it is not known which "
                "images mkinitcpio builds, and how.",
                "Write plain assignments. Set persistent to false to bind the devices until the next reboot only.",
                path=path,
            ) from error
        found[match["name"]] = words
    return found
