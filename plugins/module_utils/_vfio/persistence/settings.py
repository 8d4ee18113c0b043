# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that make bindings hold at every boot, and the initramfs images that carry them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..._core import files
from ..._core.errors import PassthroughError, Problem
from ..._core.files import FileState
from ..._core.host import Host
from ..._core.plan import Action, RemoveLeftovers, WriteFile
from . import images, modprobe
from .dracut import Dracut
from .images import Cargo, Image
from .initramfs import Initramfs, unsupported
from .initramfs_tools import InitramfsTools
from .mkinitcpio import Mkinitcpio
from .modprobe import MODPROBE_NAME, MODPROBE_PATH
from .options import LoadedOptions
from .rules import RULES_NAME, RULES_PATH, PersistentDevice, parse, render

MODULES_PATH = "/etc/modules-load.d/kvm-passthrough.conf"
STAMP_PATH = "/var/lib/kvm-passthrough/initramfs.json"
"""What the initramfs images were last built from, and when each was written. It tells images that are up to date from
those of a run that was killed before it could build them and from those that somebody else built since, and is there
only while images hold something of ours."""

TOOLS: tuple[Initramfs, ...] = (InitramfsTools(), Dracut(), Mkinitcpio())
"""The tools that are known, in the order in which they are looked for."""

# Where they are in an image: the directory before it differs from tool to tool, as /usr is merged or not.
_CARRIED = {RULES_PATH: f"udev/rules.d/{RULES_NAME}", MODPROBE_PATH: f"modprobe.d/{MODPROBE_NAME}"}

_MODULES_HEADER = "# Written by kvm.passthrough.vfio_devices, which replaces or removes the whole file.\n"


@dataclass(frozen=True)
class Wanted:
    """All files as they are to be for some persistent devices."""

    devices: tuple[PersistentDevice, ...]
    options: Mapping[str, str]
    first: Mapping[str, FileState]
    """What has to be there before any driver is loaded or bound, or before a device goes back to the host."""
    files: Mapping[str, FileState]
    cargo: Cargo
    stamp: Mapping[str, str]
    """Digests of what the images are made from; empty where they hold nothing of ours."""


@dataclass(frozen=True)
class BootSettings:
    """The settings as they are: files by path, the devices their rules name, and the tool that builds the initramfs."""

    host: Host
    files: Mapping[str, FileState]
    devices: tuple[PersistentDevice, ...]
    options: Mapping[str, str]
    """The options of vfio-pci that our file has."""
    loaded: LoadedOptions
    initramfs: Initramfs | None
    obstacle: Problem | None
    """Why no device can be made persistent here."""

    @classmethod
    def observe(cls, host: Host) -> BootSettings:
        """Read the settings.

        :raises PassthroughError: ``file_unreadable``
        """
        tool = next((tool for tool in TOOLS if tool.is_used(host)), None)
        paths = [RULES_PATH, MODULES_PATH, MODPROBE_PATH, STAMP_PATH]
        found = {path: files.observe(host, path) for path in [*paths, *(tool.settings((), ()) if tool else ())]}
        return cls(
            host,
            found,
            tuple(parse(found[RULES_PATH].text)),
            modprobe.parse_options(found[MODPROBE_PATH].text),
            LoadedOptions.observe(host),
            tool,
            unsupported(host, tool),
        )

    def wanted(self, devices: Collection[PersistentDevice], options: Mapping[str, str] | None) -> Wanted:
        """The files for exactly these devices.

        :param options: of vfio-pci; None for those that are set. Without devices there are none
        """
        listed = tuple(sorted(devices))
        kept = dict(self.options if options is None else options) if listed else {}
        drivers = sorted({device.driver for device in listed})
        softdeps = modprobe.own_softdeps(self.host, {name for device in listed for name in device.host_drivers})
        carried = {
            RULES_PATH: _file(render(listed)),
            MODPROBE_PATH: _file(modprobe.render(listed, kept, softdeps)),
        }
        there = [path for path, state in carried.items() if state.content is not None]
        tool = self.initramfs.settings(drivers, there) if self.initramfs is not None else {}
        sources = {**carried, **tool}
        cargo = Cargo({_CARRIED[path]: state.content or b"" for path, state in carried.items()}, tuple(drivers))
        first = {MODPROBE_PATH: carried[MODPROBE_PATH]}
        others = {RULES_PATH: carried[RULES_PATH], MODULES_PATH: _file(_modules(drivers)), **tool}
        digests = {
            path: hashlib.sha256(state.content).hexdigest()
            for path, state in sources.items()
            if state.content is not None
        }
        return Wanted(listed, kept, first, others, cargo, digests if self.initramfs is not None else {})

    def plan_first(self, wanted: Wanted) -> list[Action]:
        """What has to be done before a driver is loaded and before a device changes hands.

        :raises PassthroughError: ``file_unwritable``, before anything is changed
        """
        self._require_writable(wanted)
        return [*self._writes(wanted.first), *self.loaded.first(wanted.options)]

    def plan_last(self, wanted: Wanted, leaving: Collection[str] = ()) -> list[Action]:
        """What makes exactly these devices persistent, and nothing when they are.

        :param leaving: the devices that are given back, for the options of a driver that nobody needs any more
        """
        actions: list[Action] = [*self._writes(wanted.files)]
        stamp = _Stamp.parse(self.files[STAMP_PATH].text)
        if self.initramfs is not None and not self._up_to_date(self.initramfs, stamp, wanted):
            actions.append(BuildInitramfs(self.initramfs, wanted, self.files[STAMP_PATH]))
        if not self.loaded.first(wanted.options):
            actions += self.loaded.last(wanted.options, self.options, leaving)
        return actions

    def pending_options(self, wanted: Wanted) -> list[str]:
        """The options that the running kernel gets with the next boot only."""
        return [] if self.loaded.first(wanted.options) else self.loaded.differing(wanted.options)

    def _writes(self, wanted: Mapping[str, FileState]) -> Iterator[Action]:
        for path, state in wanted.items():
            if not self.files[path].is_like(state):
                yield WriteFile(path, self.files[path], state)
            elif files.has_leftovers(self.host, path):
                yield RemoveLeftovers(path)

    def _up_to_date(self, tool: Initramfs, stamp: _Stamp, wanted: Wanted) -> bool:
        """Whether every image has what it is to have. One that was written since it was looked into is looked into."""
        if not wanted.stamp:
            return self.files[STAMP_PATH].content is None
        if stamp.sources != wanted.stamp:
            return False
        unproved = [image for image in tool.images(self.host) if not stamp.proves(self.host, image)]
        return not images.complaints(self.host, unproved, wanted.cargo, tool.name)

    def _require_writable(self, wanted: Wanted) -> None:
        changing = [
            path for path, state in {**wanted.first, **wanted.files}.items() if not self.files[path].is_like(state)
        ]
        if changing and self.initramfs is not None:
            changing += [image.path for image in self.initramfs.images(self.host)]
        files.require_writable(self.host, changing)


@dataclass(frozen=True)
class _Stamp:
    sources: Mapping[str, str]
    images: Mapping[str, int]
    """Path -> when it was written, in nanoseconds."""

    @classmethod
    def parse(cls, text: str) -> _Stamp:
        try:
            data = json.loads(text) if text else {}
            return cls(dict(data.get("sources", {})), dict(data.get("images", {})))
        except (ValueError, TypeError, AttributeError):  # whoever spoilt it, the images are built again
            return cls({"": ""}, {})

    def proves(self, host: Host, image: Image) -> bool:
        return image.path in self.images and self.images[image.path] == host.modified(image.path)

    def render(self) -> str:
        data: dict[str, Any] = {"sources": dict(self.sources), "images": dict(self.images)}
        return json.dumps(data, indent=1, sort_keys=True) + "\n" if self.sources else ""


class BuildInitramfs(Action):
    """Build the initramfs images of all installed kernels again, look into them, and note what they were built from."""

    regenerates = True
    before = "stale"
    after = "regenerated"

    def __init__(self, tool: Initramfs, wanted: Wanted, stamp: FileState) -> None:
        """:param stamp: the file :data:`STAMP_PATH` as it was observed"""
        self.description = f"build the initramfs of all installed kernels with {tool.name}"
        self.target = "initramfs"
        self._tool = tool
        self._wanted = wanted
        self._stamp = stamp

    def apply(self, host: Host) -> None:
        before = self._written(host)
        try:
            if self._wanted.stamp:
                # A run that is killed from here on may leave images with our settings: the next one has to know.
                files.put(host, STAMP_PATH, _file(_Stamp(self._wanted.stamp, {}).render()))
            self._tool.build(host, lambda built: self._inspect(host, built))
            written = self._written(host)
            self._inspect(host, self._tool.images(host))
            files.put(host, STAMP_PATH, _file(_Stamp(self._wanted.stamp, written).render()))
        except BaseException:
            self.partial = self._written(host) != before
            if not self.partial:
                with contextlib.suppress(PassthroughError):  # the first error is the one to tell
                    files.put(host, STAMP_PATH, self._stamp)
            raise

    def _written(self, host: Host) -> dict[str, int]:
        return {image.path: host.modified(image.path) or 0 for image in self._tool.images(host)}

    def _inspect(self, host: Host, found: Sequence[Image]) -> None:
        problems = images.complaints(host, found, self._wanted.cargo, self._tool.name)
        if problems:
            raise PassthroughError.of(problems)

    def undo(self, host: Host) -> None:
        self._tool.build(host, lambda _unused: None)
        files.put(host, STAMP_PATH, self._stamp)


def _file(text: str) -> FileState:
    return FileState(text.encode() if text else None)


def _modules(drivers: Sequence[str]) -> str:
    return _MODULES_HEADER + "".join(f"{driver}\n" for driver in drivers) if drivers else ""
