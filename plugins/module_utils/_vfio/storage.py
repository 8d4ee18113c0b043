# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host uses its block devices for: file systems, swap, and the layers in between.

Sources: proc(5) (mountinfo, swaps), Documentation/ABI/testing/sysfs-block and sysfs-fs-btrfs, zpool-list(8).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .._core.errors import PassthroughError
from .._core.host import Host
from .evidence import EvidenceMissing, demand_all_processes, evidence
from .holders import Processes
from .topology import CLASS_BLOCK

MOUNTINFO = "/proc/self/mountinfo"
SWAPS = "/proc/swaps"
FSTAB = "/etc/fstab"
BTRFS = "/sys/fs/btrfs"
BCACHEFS = "/sys/fs/bcachefs"
ZFS = "/proc/spl/kstat/zfs"

_OCTAL = re.compile(r"\\([0-7]{3})")
_FSTAB_LINKS = {
    "UUID": "/dev/disk/by-uuid",
    "LABEL": "/dev/disk/by-label",
    "PARTUUID": "/dev/disk/by-partuuid",
    "PARTLABEL": "/dev/disk/by-partlabel",
    "ID": "/dev/disk/by-id",
}
_SHOWN_MOUNT_POINTS = 3


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo, as far as it matters here. ``device`` is ``major:minor``."""

    device: str
    point: str
    fs_type: str
    source: str


class Storage:
    """The block devices in use. Everything is read on first use and then kept."""

    def __init__(self, host: Host, processes: Processes | None = None) -> None:
        self._host = host
        self._processes = processes or Processes(host)

    def uses(self, name: str) -> list[str]:
        """What the block device ``name`` (``nvme0n1p2``) is used for, as phrases; empty when the host does not use it.

        :raises EvidenceMissing: when mounts, swap, ZFS pools or the files that processes have open cannot be read
        """
        return self._uses.get(name) or self._written.get(name, [])

    def is_partition(self, name: str) -> bool:
        """Whether a block device is part of a disk; the uses of a partition are uses of its disk, too."""
        return self._host.exists(f"{CLASS_BLOCK}/{name}/partition")

    @evidence
    def _uses(self) -> dict[str, list[str]]:
        uses: dict[str, list[str]] = defaultdict(list)
        for name, purpose in self._direct_uses():
            self._spread(name, purpose, uses)
        for name, purpose in self._configured():
            if name not in uses:
                self._spread(name, purpose, uses)
        # What is left is assembled (LVM, md, …) but neither mounted nor swap: a guest's disk, or a pool to be.
        for name in self._host.list_dir(CLASS_BLOCK):
            for holder in self._host.list_dir(f"{CLASS_BLOCK}/{name}/holders"):
                if name not in uses:
                    self._spread(name, f"part of {self._label(holder)}, which is active", uses)
        return uses

    @cached_property
    def _written(self) -> dict[str, list[str]]:
        """Disks without a file system of the host that a program writes to: a guest's disk, Ceph, a database.

        Whoever only reads (udev, which looks at every disk; monitoring) does not live on it.
        """
        uses: dict[str, list[str]] = defaultdict(list)
        for file in self._processes.device_files:
            name = self._block_name(file.path)
            if name is not None and self._processes.writes(file):
                self._spread(name, f"open for writing by {self._processes.holder(file.pid)}", uses)
        return uses

    def _spread(self, name: str, purpose: str, uses: dict[str, list[str]]) -> None:
        """Whoever uses a device uses all that it is made of."""
        pending: list[tuple[str, list[str]]] = [(name, [])]
        seen = set()
        while pending:
            current, above = pending.pop()
            if current in seen:
                continue
            seen.add(current)
            phrase = f"{purpose} ({' on '.join(above)})" if above else purpose
            if phrase not in uses[current]:
                uses[current].append(phrase)
            lowers = self._host.list_dir(f"{CLASS_BLOCK}/{current}/slaves")
            if self.is_partition(current):
                lowers = [*lowers, self._disk_of(current)]
            # A loop device over another block device is no holder of it; one over a file is on a mounted file system.
            looped = self._block_name(self._host.attribute(f"{CLASS_BLOCK}/{current}/loop/backing_file") or "")
            if looped is not None:
                lowers = [*lowers, looped]
            pending += [(lower, [*above, self._label(current)]) for lower in lowers]

    def _disk_of(self, partition: str) -> str:
        return self._host.real_path(f"{CLASS_BLOCK}/{partition}").split("/")[-2]

    def _label(self, name: str) -> str:
        """What people call a block device: the device mapper's name, or the kernel's."""
        return self._host.attribute(f"{CLASS_BLOCK}/{name}/dm/name") or name

    # -- direct uses -------------------------------------------------------------------------------------

    def _direct_uses(self) -> Iterator[tuple[str, str]]:
        yield from self._mounted()
        yield from self._swap()
        yield from self._pooled()
        yield from self._zfs()

    def _mounted(self) -> Iterator[tuple[str, str]]:
        points: dict[str, list[str]] = defaultdict(list)
        for mount in self._mounts:
            name = self._host.link_name(f"/sys/dev/block/{mount.device}")
            if name is not None:
                points[name].append(mount.point)
        for name, where in points.items():
            yield name, f"mounted at {_listed(where)}"

    def _swap(self) -> Iterator[tuple[str, str]]:
        text = self._host.attribute(SWAPS)
        if text is None:
            raise EvidenceMissing(f"{SWAPS} cannot be read")
        for line in text.splitlines()[1:]:
            name = self._block_name(_unescape(line.partition(" ")[0].partition("\t")[0]))
            if name is not None:  # else a swap file: its file system is mounted
                yield name, "swap space"

    def _pooled(self) -> Iterator[tuple[str, str]]:
        """File systems over several devices; mountinfo knows them by an anonymous number."""
        for directory, members in self._multi_device_file_systems():
            points = [
                mount.point
                for mount in self._mounts
                if mount.fs_type in ("btrfs", "bcachefs")
                and any(self._block_name(source) in members for source in mount.source.split(":"))
            ]
            label = self._host.attribute(f"{directory}/label") or directory.rsplit("/", 1)[-1]
            where = f"mounted at {_listed(points)}" if points else "in use"
            for name in members:
                yield name, f"member of the file system {label}, {where}"

    def _multi_device_file_systems(self) -> Iterator[tuple[str, set[str]]]:
        for uuid in self._host.list_dir(BTRFS):
            members = self._host.list_dir(f"{BTRFS}/{uuid}/devices")
            if members:
                yield f"{BTRFS}/{uuid}", set(members)
        for uuid in self._host.list_dir(BCACHEFS):
            entries = [name for name in self._host.list_dir(f"{BCACHEFS}/{uuid}") if name.startswith("dev-")]
            linked = [self._host.link_name(f"{BCACHEFS}/{uuid}/{entry}/block") for entry in entries]
            if entries:
                yield f"{BCACHEFS}/{uuid}", {name for name in linked if name is not None}

    def _zfs(self) -> Iterator[tuple[str, str]]:
        """Members of imported ZFS pools, which only ``zpool`` can name."""
        if not self._host.is_dir(ZFS) and not any(mount.fs_type == "zfs" for mount in self._mounts):
            return
        try:
            listed = self._host.run(["zpool", "list", "-v", "-H", "-L", "-P"]).stdout
        except PassthroughError as error:
            raise EvidenceMissing(f"the members of the ZFS pools cannot be listed ({error})") from error
        pool = ""
        for line in listed.splitlines():
            words = line.split()
            if words and not line[0].isspace() and not words[0].startswith("/"):
                pool = words[0]
            elif words and words[0].startswith("/dev/"):
                name = self._block_name(words[0])
                if name is not None:
                    yield name, f"member of the ZFS pool {pool}"

    def _configured(self) -> Iterator[tuple[str, str]]:
        """What the next boot needs, mounted now or not (an EFI system partition, swap that is off)."""
        mounted = {mount.point for mount in self._mounts}
        for line in (self._host.attribute(FSTAB) or "").splitlines():
            fields = line.split()
            if len(fields) < 3 or fields[0].startswith("#"):
                continue
            options = fields[3].split(",") if len(fields) > 3 else []
            if "noauto" in options and "x-systemd.automount" not in options:
                continue
            point = _unescape(fields[1])
            name = self._block_name(_fstab_path(_unescape(fields[0])))
            if name is not None and point not in mounted:
                where = "swap space" if fields[2] == "swap" else f"to be mounted at {point}"
                yield name, f"{where} by /etc/fstab"

    @cached_property
    def _mounts(self) -> list[Mount]:
        """The mounts of every mount namespace whose processes can be looked at; at least this process's own."""
        demand_all_processes(self._host)
        text = self._host.attribute(MOUNTINFO)
        if text is None:
            raise EvidenceMissing(f"{MOUNTINFO} cannot be read")
        texts = {self._host.link_target("/proc/self/ns/mnt"): text}
        for pid in self._host.list_dir("/proc"):
            if pid.isdigit():
                namespace = self._host.link_target(f"/proc/{pid}/ns/mnt")
                if namespace is not None and namespace not in texts:
                    texts[namespace] = self._host.attribute(f"/proc/{pid}/mountinfo") or ""
        return list(dict.fromkeys(mount for text in texts.values() for mount in _parse_mountinfo(text)))

    def _block_name(self, path: str) -> str | None:
        """The kernel name of a block device given by its node or a link to it; None when it is something else."""
        if not path.startswith("/dev/"):
            return None
        name = self._host.real_path(path).rsplit("/", 1)[-1]
        return name if self._host.exists(f"{CLASS_BLOCK}/{name}") else None


def _parse_mountinfo(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        fields, _unused, rest = line.partition(" - ")
        words, after = fields.split(), rest.split()
        if len(words) >= 5 and len(after) >= 2:
            yield Mount(words[2], _unescape(words[4]), after[0], _unescape(after[1]))


def _unescape(text: str) -> str:
    """Undo the kernel's and fstab's ``\\040`` for a space."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)


def _fstab_path(spec: str) -> str:
    """The device node or link that the first field of an fstab line means."""
    tag, equals, value = spec.partition("=")
    if equals and tag.upper() in _FSTAB_LINKS:
        unquoted = value.strip("\"'")
        return f"{_FSTAB_LINKS[tag.upper()]}/{unquoted}"
    return spec


def _listed(points: list[str]) -> str:
    """Mount points for a message: the shortest first, which puts / before all others, and not too many."""
    ordered = sorted(set(points), key=lambda point: (len(point), point))
    more = len(ordered) - _SHOWN_MOUNT_POINTS
    return ", ".join(ordered[:_SHOWN_MOUNT_POINTS]) + (f" and {more} more" if more > 0 else "")
