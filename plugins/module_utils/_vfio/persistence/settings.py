# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that make bindings hold at every boot, and the initramfs images that carry them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..._core import files
from ..._core.errors import Problem
from ..._core.files import FileState
from ..._core.host import Host
from ..._core.plan import Action, RunCommand, WriteFile
from .initramfs import Initramfs, unsupported
from .initramfs_tools import InitramfsTools
from .rules import RULES_PATH, PersistentDevice, parse, render

MODULES_PATH = "/etc/modules-load.d/kvm-passthrough.conf"
STAMP_PATH = "/var/lib/kvm-passthrough/initramfs.json"
"""What the initramfs images were last built from. It tells images that are up to date from those of a run that was
killed before it could build them, and is there only while images hold something of ours."""

TOOLS: tuple[Initramfs, ...] = (InitramfsTools(),)
"""The tools that are known, in the order in which they are looked for."""

# Three kernels, each image compressed by a slow machine.
BUILD_TIMEOUT = 3600.0

_MODULES_HEADER = "# Written by kvm.passthrough.vfio_devices, which replaces or removes the whole file.\n"


@dataclass(frozen=True)
class BootSettings:
    """The settings as they are: files by path, the devices their rules name, and the tool that builds the initramfs."""

    files: Mapping[str, FileState]
    devices: tuple[PersistentDevice, ...]
    initramfs: Initramfs | None
    obstacle: Problem | None
    """Why no device can be made persistent here."""

    @classmethod
    def observe(cls, host: Host) -> BootSettings:
        """Read the settings.

        :raises PassthroughError: ``file_unreadable``
        """
        tool = next((tool for tool in TOOLS if tool.is_used(host)), None)
        paths = [RULES_PATH, MODULES_PATH, STAMP_PATH, *(tool.settings(()) if tool is not None else ())]
        found = {path: files.observe(host, path) for path in paths}
        return cls(
            found,
            tuple(parse(found[RULES_PATH].text)),
            tool,
            unsupported(host) if tool is None else None,
        )

    def plan(self, devices: Collection[PersistentDevice]) -> list[Action]:
        """What makes exactly these devices persistent, and nothing when they are."""
        drivers = sorted({device.driver for device in devices})
        wanted = {RULES_PATH: _file(render(devices)), MODULES_PATH: _file(_modules(drivers))}
        sources = {RULES_PATH: wanted[RULES_PATH]}
        if self.initramfs is not None:
            sources.update(self.initramfs.settings(drivers))
        wanted.update(sources)
        actions: list[Action] = [
            WriteFile(path, self.files[path], state)
            for path, state in wanted.items()
            if not self.files[path].is_like(state)
        ]
        stamp = _file(_stamp(sources))
        if self.initramfs is not None and not self.files[STAMP_PATH].is_like(stamp):
            actions.append(BuildInitramfs(self.initramfs, drivers, self.files[STAMP_PATH], stamp))
        return actions


class BuildInitramfs(RunCommand):
    """Build the initramfs images of all installed kernels again, look into them, and note what they were built from."""

    def __init__(self, tool: Initramfs, drivers: Sequence[str], stamp: FileState, wanted: FileState) -> None:
        super().__init__(
            tool.command(),
            target="initramfs",
            description=f"build the initramfs of all installed kernels with {tool.name}",
            timeout=BUILD_TIMEOUT,
            check=lambda host: tool.check(host, drivers),
        )
        self._stamps = (stamp, wanted)

    def apply(self, host: Host) -> None:
        super().apply(host)
        files.put(host, STAMP_PATH, self._stamps[1])

    def undo(self, host: Host) -> None:
        super().undo(host)
        files.put(host, STAMP_PATH, self._stamps[0])


def _file(text: str) -> FileState:
    return FileState(text.encode() if text else None)


def _modules(drivers: Sequence[str]) -> str:
    return _MODULES_HEADER + "".join(f"{driver}\n" for driver in drivers) if drivers else ""


def _stamp(sources: Mapping[str, FileState]) -> str:
    digests = {
        path: hashlib.sha256(state.content).hexdigest() for path, state in sources.items() if state.content is not None
    }
    return json.dumps({"sources": digests}, indent=1, sort_keys=True) + "\n" if digests else ""
