# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk of a machine: its partitions, and a Debian tree as the file system of one of them.

Nothing here needs a loop device. What is not the root file system is formatted by the machine
itself, at its first boot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .run import as_root, require_tool, run

DISK_FILE = "disk.raw"
"""What it is called where it is made."""

ROOT_UUID = "6b767000-6c61-4b00-8000-000000000001"
ESP_SERIAL = "6B767000"
"""The serial number of the FAT file system on the EFI system partition; mkfs.vfat's -i."""

_ALIGNMENT = 1024**2
_SECTOR = 512
# What the backup of a GPT takes at the end of the disk, rounded up.
_RESERVED_END = 1024**2


@dataclass(frozen=True)
class Layout:
    """The partitions of a disk: the root file system, and with ``esp`` (its MiB) an EFI system partition before it."""

    mebibytes: int
    esp: int = 0
    root_features: str = ""
    """Features of ext4 for mke2fs to add, or with ``^`` to leave out, for a boot loader that cannot read all."""

    @property
    def root_number(self) -> int:
        """The number of the partition with the root file system."""
        return 2 if self.esp else 1

    @property
    def root_start(self) -> int:
        """Where that begins, in bytes."""
        return _ALIGNMENT + self.esp * 1024**2

    @property
    def root_size(self) -> int:
        """How many bytes it has."""
        return self.mebibytes * 1024**2 - self.root_start - (_RESERVED_END if self.esp else 0)

    @property
    def table(self) -> str:
        """The partition table, for sfdisk: GPT with an EFI system partition, otherwise DOS with a bootable one."""
        start, size = self.root_start // _SECTOR, self.root_size // _SECTOR
        if not self.esp:
            return f"label: dos\nstart={start}, size={size}, type=83, bootable\n"
        esp = f"start={_ALIGNMENT // _SECTOR}, size={self.esp * 1024**2 // _SECTOR}, type=uefi"
        return f"label: gpt\n{esp}\nstart={start}, size={size}, type=linux\n"

    @property
    def fstab(self) -> str:
        """What is mounted where."""
        return "\n".join([*self._mounts(), ""])

    def _mounts(self) -> Iterator[str]:
        yield f"UUID={ROOT_UUID} / ext4 noatime,errors=remount-ro 0 1"
        if self.esp:
            yield f"UUID={ESP_SERIAL[:4]}-{ESP_SERIAL[4:]} /boot/efi vfat umask=0077 0 1"


def write(layout: Layout, tree: Path, disk: Path, log: Path) -> None:
    """Make the disk, with ``tree`` as its root file system; mke2fs writes that at the partition's offset.

    Raises LabError with the end of ``log``.
    """
    with disk.open("wb") as stream:
        stream.truncate(layout.mebibytes * 1024**2)
    run([require_tool("sfdisk", "fdisk"), "--quiet", disk], stdin=layout.table, timeout=60, log=log)
    features = ("-O", layout.root_features) if layout.root_features else ()
    run(
        as_root([require_tool("mke2fs", "e2fsprogs"), "-q", "-F", "-t", "ext4", *features, "-L", "labhost",
                 "-U", ROOT_UUID, "-E", f"offset={layout.root_start},lazy_itable_init=0", "-d", tree, disk,
                 f"{layout.root_size // 1024}k"]),
        timeout=600, log=log,
    )  # fmt: skip
