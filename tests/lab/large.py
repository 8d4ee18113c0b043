# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Large machines: complete hosts on a disk, with their own boot loader, saved while they run.

So a start takes seconds and not a boot. A snapshot is a frozen disk and, beside it, the
machine's state as QEMU's migration writes it to a file. Both are only ever read: a start
makes an overlay of the disk and loads the state, so that any number of machines can start
from one snapshot. Snapshots inside a qcow2 file (``savevm``) cannot be reached through an
overlay and would have to be copied.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from . import cache
from .disk import DISK_FILE as IMAGE_FILE
from .image import Image, require_build_tools
from .machine import BOOT_TIMEOUT, DISK_FILE, STATE_FILE, Hardware, Machine, launch
from .qemu import VARIABLES_FILE, Qemu, find_qemu
from .run import LabError, run, say, step
from .ssh_key import KEY_FILE, public_key

_BUILD_LIMIT = 3600


@dataclass(frozen=True)
class State:
    """What a machine is saved in: the state before it with ``change`` made and rebooted, then ``prepare`` done.

    Both are shell scripts for the user ``ops``. The first state of a machine is its image, booted.
    """

    name: str
    about: str
    change: str = ""
    prepare: str = ""


FRESH = State("fresh", "booted")


@dataclass(frozen=True)
class LargeMachine:
    """What makes one large machine."""

    about: str
    image: Image
    devices: tuple[str, ...]
    """QEMU's options for what the image's first boot does without, such as the card of the network ``management``."""
    memory: int
    """MiB."""
    states: tuple[State, ...] = (FRESH,)
    plugged: tuple[Mapping[str, str | int], ...] = ()
    """Devices QEMU cannot save, plugged in after each start; the host's kernel sees hot-plugged cards."""

    @property
    def name(self) -> str:
        """Its name, also that of its image."""
        return self.image.name

    @property
    def _options(self) -> tuple[str, ...]:
        return (*self.image.hardware, "-m", str(self.memory), *self.devices)

    def hardware(self, devices: Sequence[str]) -> Hardware:
        """The machine with other devices."""
        return Hardware(find_qemu(), replace(self, devices=tuple(devices))._options)

    def state(self, name: str | None) -> State:
        """The state of that name, the first one for None; raises LabError when there is none."""
        if name is None:
            return self.states[0]
        for state in self.states:
            if state.name == name:
                return state
        known = ", ".join(each.name for each in self.states)
        raise LabError(f"there is no snapshot '{name}' of '{self.name}'; there is: {known}")

    def artefact_names(self, qemu: Qemu) -> set[str]:
        """The cache's names of all that today's inputs lead to, with that emulator."""
        base = self.image.find()
        snapshots = {f"{self._kind(each)}-{self._key(each, qemu.identity, base)}" for each in self.states if base}
        return self.image.names | snapshots

    def build(self) -> None:
        """Fill the cache with all states of this machine. Raises LabError."""
        for state in self.states:
            self._snapshot(state)

    def start(self, state: State, *, name: str, limit: float, boot: bool = False, plug: bool = True) -> Machine:
        """Start it from a state and wait until ssh answers, its clock is right and all is plugged in.

        With ``boot`` only the snapshot's disk is used, and the machine boots from it. The
        snapshot is built first when the cache has none. Raises LabError.
        """
        saved = self._snapshot(state)
        machine = self._launch(saved, DISK_FILE, name=name, limit=limit, state=None if boot else saved / STATE_FILE)
        try:
            if plug:
                self._plug(machine)
            machine.wait_ssh(BOOT_TIMEOUT)
            machine.set_clock()
            if boot:
                machine.settle()
        except BaseException:
            machine.stop(keep_logs=True)
            raise
        return machine

    def _launch(self, origin: Path, disk: str, *, name: str, limit: float, state: Path | None = None) -> Machine:
        return launch(
            Hardware(find_qemu(), self._options),
            self.image.build() / KEY_FILE,
            name=name,
            limit=limit,
            artefact=origin.name,
            disk=origin / disk,
            variables=origin / VARIABLES_FILE if self.image.uefi else None,
            state=state,
        )

    def _plug(self, machine: Machine) -> None:
        with machine.qmp() as qmp:
            for device in self.plugged:
                qmp.execute_exactly("device_add", dict(device))

    def _kind(self, state: State) -> str:
        return f"{state.name}-{self.name}"

    def _key(self, state: State, qemu_identity: str, base: Path) -> str:
        # The key pair tells one build of an image from the next, which has the same name but
        # other blocks in other places.
        steps = self.states[: self.states.index(state) + 1]
        scripts = [script for each in steps for script in (each.change, each.prepare)]
        return cache.digest("1", qemu_identity, public_key(base), self._options, scripts)

    def _snapshot(self, state: State) -> Path:
        """The directory with the snapshot's files, built when the cache has none.

        Raises LabError when the machine does not boot or cannot be saved.
        """
        if self.image.find() is None:
            require_build_tools()
        identity = find_qemu().identity

        def build(directory: Path) -> None:
            self._build(state, directory)

        return cache.artefact(self._kind(state), self._key(state, identity, self.image.build()), build)

    def _build(self, state: State, directory: Path) -> None:
        name = f"build-{self._kind(state)}-{os.getpid()}"
        index = self.states.index(state)
        with (
            self.start(self.states[index - 1], name=name, limit=_BUILD_LIMIT, plug=False)
            if index
            else self._launch(self.image.build(), IMAGE_FILE, name=name, limit=_BUILD_LIMIT)
        ) as machine:
            if index:
                with step(f"changing '{self.name}' to '{state.name}'"):
                    machine.ssh(state.change, timeout=300)
                with step("rebooting it"):
                    machine.reboot()
            else:
                with step(f"booting '{self.name}'"):
                    machine.wait_ssh(BOOT_TIMEOUT)
                    machine.settle()
            if state.prepare:
                with step("preparing it"):
                    machine.ssh(state.prepare, timeout=300)
            self._save(machine, directory)

    def _save(self, machine: Machine, directory: Path) -> None:
        qemu = find_qemu()
        with step("saving it"):
            machine.save(directory)
            # So that each snapshot needs the image and nothing else.
            run([*qemu.img, "rebase", "-q", "-f", "qcow2", "-b", self.image.build() / IMAGE_FILE, "-F", "raw",
                 directory / DISK_FILE], timeout=300, env=qemu.environment)  # fmt: skip
        size = sum(file.stat().st_blocks * 512 for file in directory.iterdir())
        say(f"the snapshot takes {size // 1024**2} MiB")
