# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""transactional-update with GRUB 2: openSUSE MicroOS and Leap Micro, SLE Micro.

The root file system is a read-only snapshot, with /boot/grub2/grub.cfg in it. ``transactional-update`` makes a new
snapshot of the running one, changes that, and lets the next boot take it. /etc of the running system is writable, and a
new snapshot has it as it is at that moment. So the settings are edited as on any host with GRUB, and grub.cfg is
generated in a new snapshot.

* Not by ``transactional-update grub.cfg``: that redirects the generator's output into grub.cfg and then looks at the
  exit status of ``tee``, so a generator that fails leaves an empty file in the snapshot that is booted next. With
  ``transactional-update run`` the file is generated beside the former one, and renamed when it is complete.
* A new snapshot is made of the running one, without what is in one that waits for the next boot already. Where one
  waits and settings have to be edited, nothing is done: its /etc is not the running one, so they would have to be
  edited there, in ways that differ between versions. Where only its grub.cfg is not as wanted (a run was killed),
  ``--continue`` makes a new one of it, and loses nothing of what is in it.
* It is undone by ``transactional-update rollback`` to the snapshot that was the default before. The one that was made
  stays until ``transactional-update cleanup``, which knows it.
"""

from __future__ import annotations

import contextlib
import re

from .._core.errors import PassthroughError
from .._core.host import Host
from .cmdline import Request
from .efi import variable_evidence
from .grub import Grub, Seen
from .grub_config import GENERATOR_TIMEOUT, GenerateConfig, write_back
from .grub_layout import Layout, read_config
from .grub_script import GrubSyntaxError, uses_boot_loader_specification
from .loader import Configuration

NAME = "transactional-update"
PROGRAM = "transactional-update"
BTRFS = "btrfs"
MOUNTS = "/proc/self/mounts"
SNAPSHOTS = "/.snapshots"
BOOTLOADER_SETTINGS = "/etc/sysconfig/bootloader"

GENERATE = '"$0" -o "$1.kvm-passthrough" && mv -f "$1.kvm-passthrough" "$1"'
"""For ``sh -c``, with the generator and the path of grub.cfg: both as they are in the new snapshot."""

_SNAPSHOT = re.compile(r"/\.snapshots/([0-9]+)/snapshot$")
_BY_SDBOOTUTIL = re.compile(r"^LOADER_TYPE=[\"']?(systemd-boot|grub2-bls)[\"']?[ \t]*$", re.MULTILINE)


class TransactionalUpdate(Grub):
    """GRUB 2 in snapshots made by transactional-update; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = "transactional-update with GRUB 2"
    drives = frozenset(("grub", "grub-bls"))

    def evidence(self) -> list[str]:
        """The program and a read-only root file system; with another boot loader than GRUB it is another one's."""
        return [] if driven_by_sdbootutil(self._host) else installed(self._host)

    def missing(self) -> list[str]:
        """What GRUB needs, and what making a snapshot needs."""
        return super().missing() + [name for name in (PROGRAM, BTRFS) if self._host.which(name) is None]

    def doubt(self) -> str:
        """Why it is not proved."""
        return f"{PROGRAM} is not installed, or the root file system is not mounted read-only"

    def _config(self) -> str:
        return _config_of(self._host, self.layout, default_snapshot(self._host))

    def _generation(self, seen: Seen, predicted: Configuration, request: Request, has_edits: bool) -> GenerateConfig:
        running, following = running_snapshot(self._host), default_snapshot(self._host)
        if has_edits and running != following:
            raise _waits(following, running)
        return MakeSnapshot(self.layout, seen, predicted, request, following)

    def _replaced(self, targets: set[str]) -> set[str]:
        return targets - {self.layout.config}


class MakeSnapshot(GenerateConfig):
    """Make a snapshot with a newly generated grub.cfg, and inspect that; undone by a rollback to the one before."""

    def __init__(self, layout: Layout, seen: Seen, predicted: Configuration, request: Request, snapshot: str) -> None:
        """:param snapshot: the one that is booted next, of which another one is made"""
        super().__init__(layout, seen.configuration.entries, predicted, request)
        self.description = f"make a new snapshot by transactional-update, with {layout.config} generated in it"
        self._snapshot = snapshot
        self._made = ""

    def apply(self, host: Host) -> None:
        if default_snapshot(host) != self._snapshot:
            raise _waits(default_snapshot(host), self._snapshot)
        based_on = [] if self._snapshot == running_snapshot(host) else ["--continue", self._snapshot]
        command = [*based_on, "run", "sh", "-c", GENERATE, self._layout.generator, self._layout.config]
        try:
            host.run([PROGRAM, "--non-interactive", "--no-selfupdate", *command], timeout=GENERATOR_TIMEOUT)
        except PassthroughError as error:
            with contextlib.suppress(PassthroughError):  # the first error is the one to tell
                self.partial = default_snapshot(host) != self._snapshot
            if error.code == "command_failed" and "another instance" in str(error):
                raise PassthroughError(
                    "transaction_in_progress",
                    f"{PROGRAM} is running already: {error}.",
                    "Wait until it has ended (transactional-update.service may take minutes), reboot if it made a "
                    "snapshot, and run the module again.",
                ) from error
            raise
        made = default_snapshot(host)
        if made == self._snapshot:
            raise PassthroughError(
                "generator_failed",
                f"{PROGRAM} ended without an error, but snapshot {made} is still the one that is booted next.",
                "Look at /var/log/transactional-update.log.",
            )
        self._made = made
        self.partial = True
        config = _config_of(host, self._layout, made)
        self.inspect(host.read_text(config))
        if host.which(self._layout.checker):
            host.run([self._layout.checker, host.path(config)], timeout=120.0)
        write_back(host, config)

    def undo(self, host: Host) -> None:
        now = default_snapshot(host)
        if now == self._snapshot:
            return
        if self._made and now != self._made:
            raise _waits(now, self._snapshot)
        host.run([PROGRAM, "rollback", self._snapshot], timeout=GENERATOR_TIMEOUT)
        write_back(host, SNAPSHOTS)


def installed(host: Host) -> list[str]:
    """What proves that transactional-update changes this host: without a read-only root it would not have to."""
    if host.which(PROGRAM) and _root_options(host)[:1] == ["ro"]:
        return ["it is installed, and the root file system is read-only"]
    return []


def driven_by_sdbootutil(host: Host) -> list[str]:
    """What shows that a host with transactional-update boots from entries that sdbootutil writes."""
    if not installed(host):
        return []
    found = _BY_SDBOOTUTIL.search(host.read_text(BOOTLOADER_SETTINGS)) if host.exists(BOOTLOADER_SETTINGS) else None
    evidence = [f"{BOOTLOADER_SETTINGS} says {found.group()}"] if found else []
    with contextlib.suppress(GrubSyntaxError):  # a damaged grub.cfg is reported where it is read for its entries
        if uses_boot_loader_specification(read_config(host)):
            evidence.append("grub.cfg runs blscfg")
    return evidence + variable_evidence(host, "LoaderInfo", "systemd-boot")


def running_snapshot(host: Host) -> str:
    """The number of the snapshot that is mounted as the root file system.

    :raises PassthroughError: ``snapshots_not_understood``
    """
    subvolume = next((o.partition("=")[2] for o in _root_options(host) if o.startswith("subvol=")), "")
    return _number(subvolume, f"{MOUNTS} says that the root file system is the subvolume {subvolume!r}")


def default_snapshot(host: Host) -> str:
    """The number of the snapshot that is booted next.

    :raises PassthroughError: ``snapshots_not_understood``, ``command_failed``
    """
    printed = host.run([BTRFS, "subvolume", "get-default", "/"]).stdout.strip()
    return _number(printed, f"btrfs subvolume get-default / says {printed!r}")


def _root_options(host: Host) -> list[str]:
    for line in reversed((host.attribute(MOUNTS) or "").splitlines()):
        fields = line.split()
        if len(fields) > 3 and fields[1] == "/":
            return fields[3].split(",")
    return []


def _number(path: str, told: str) -> str:
    found = _SNAPSHOT.search(path)
    if found is None:
        raise PassthroughError(
            "snapshots_not_understood",
            f"{told}, which is none of the snapshots in {SNAPSHOTS}.",
            f"{PROGRAM} needs a Btrfs root file system with snapper's snapshots; look at what snapper list says.",
        )
    return found.group(1)


def _config_of(host: Host, layout: Layout, snapshot: str) -> str:
    """grub.cfg of a snapshot, as a path of the running system."""
    if snapshot == running_snapshot(host):
        return layout.config
    return f"{SNAPSHOTS}/{snapshot}/snapshot{layout.config}"


def _waits(following: str, running: str) -> PassthroughError:
    return PassthroughError(
        "snapshot_pending",
        f"Snapshot {following} is booted next, and {running} is running or was to be booted. A new snapshot is made of "
        "the running one and would not have what was changed in the other.",
        f"Reboot first, and run the module again; or drop what waits: {PROGRAM} rollback {running}.",
        running=running,
        next=following,
    )
