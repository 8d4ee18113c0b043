# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The disk of a small machine that boots by a boot loader of its own: the system of the others, as files on it.

As for those, packages are unpacked and not installed, and nothing of a foreign architecture
runs but inside of the emulated machine. There the boot loader's own tool puts it on the disk,
at a first boot that the emulator starts with ``-kernel``. The initramfs is made here: it loads
the drivers of the disk, and nothing else.
"""

from __future__ import annotations

import io
import lzma
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import cache, cpio, disk
from ..first_boot import INITRAMFS_FILE, KERNEL_FILE, first_boot
from ..qemu import Qemu
from ..run import as_root, run, step
from .system import Kernel, System

FIRMWARE_FILE = "firmware.bin"
_FILES = Path(__file__).parent / "disks"
_COMMON = _FILES / "common"
_SECOND = "usr/share/kvm-passthrough-lab/second-kernel"
_ROOT = "/dev/vda1"
# The file system's checksums need a module that the kernel would look for with a program of its own.
_LAYOUT = disk.Layout(768, root_features="^metadata_csum")
_MODULES = r"drivers/virtio/ | drivers/(?:net/virtio_net|block/virtio_blk)\.ko | fs/ext4/ | crypto/crc32c_generic\.ko"
_PACKAGES = ("busybox-static", "debianutils", "linux-base", "perl-base")
# What the scripts of boot loaders and linux-base are and use.
_KEPT = r"usr/(?:bin/perl|lib/[^/]+/perl-base/|share/(?:perl5/DebianLinux\.pm|u-boot-menu/))"
# The hook of an initramfs generator that is there in place of Debian's usual ones, and knows nothing of this disk.
_SUPERFLUOUS = re.compile(r"etc/kernel/[^/]+/tiny-initramfs")
_DISK_DRIVERS = ("virtio_pci", "virtio_blk", "crc32c_generic", "ext4")


@dataclass(frozen=True)
class BootDisk:
    """What makes one disk.

    Below ``disks`` it has a directory of its name with files to add, among them
    ``install-boot-loader``, which runs at the first boot.
    """

    name: str
    system: System
    first_kernel: tuple[str, str]
    """Package and release of Debian of an older kernel than the system's; that one can be installed later."""
    firmware: str = ""
    """Where a package has the machine's firmware; empty where the emulator has it."""

    @property
    def kind(self) -> str:
        """The cache's word for it."""
        return f"disk-{self.name}"

    @property
    def artefact_name(self) -> str:
        """The cache's name of it."""
        return f"{self.kind}-{self._key()}"

    def _key(self) -> str:
        return cache.digest(
            "1", self.system.key, self.first_kernel, self.firmware, repr(_LAYOUT), _COMMON, _FILES / self.name
        )

    def build(self, qemu: Qemu, hardware: tuple[str, ...], console: str) -> Path:
        """The directory with ``disk.raw``, the ssh key and the firmware, built when the cache has none.

        Raises LabError with the end of the log when a step fails.
        """

        def build(directory: Path) -> None:
            self._build(directory, qemu, hardware, console)

        return cache.artefact(self.kind, self._key(), build)

    def _build(self, directory: Path, qemu: Qemu, hardware: tuple[str, ...], console: str) -> None:
        second, system = self.system.make(directory)
        first = self.system.other_kernel(*self.first_kernel, directory)
        files = {entry.name: entry for entry in system if not _SUPERFLUOUS.match(entry.name)}
        busybox = files["usr/bin/busybox"].content
        initramfs = _initramfs(first, busybox)
        files.update({entry.name: entry for entry in self._additions(first, initramfs, second, busybox)})
        if self.firmware:
            (directory / FIRMWARE_FILE).write_bytes(files.pop(self.firmware).content)
        with step(f"making the disk of '{self.name}'"):
            log = directory / "build.log"
            archive, tree = directory / "tree.tar", directory / "tree"
            cpio.write_tar(archive, files.values())
            tree.mkdir()
            run(as_root(["tar", "-C", tree, "--numeric-owner", "-xf", archive]), timeout=300, log=log)
            disk.write(_LAYOUT, tree, directory / disk.DISK_FILE, log)
            run(as_root(["rm", "-rf", "--one-file-system", tree]), timeout=300, log=log)
            archive.unlink()
        with step(f"first boot of '{self.name}': installing the boot loader"):
            (directory / KERNEL_FILE).write_bytes(first.image)
            (directory / INITRAMFS_FILE).write_bytes(initramfs)
            first_boot(directory, qemu, hardware, root=_ROOT, console=console)

    def _additions(self, first: Kernel, initramfs: bytes, second: Kernel, busybox: bytes) -> Iterator[cpio.Entry]:
        yield cpio.file("etc/fstab", f"{_ROOT} / ext4 defaults 0 1\n".encode())
        yield from cpio.files_of(_COMMON / "rootfs")
        yield from cpio.files_of(_FILES / self.name / "rootfs")
        for name, content in (("vmlinuz", first.image), ("initrd.img", initramfs)):
            yield cpio.file(f"boot/{name}-{first.release}", content)
            yield cpio.link(f"boot/{name}", f"{name}-{first.release}")
        for name, content in first.modules.items():
            yield cpio.file(f"usr/lib/modules/{first.release}/{name}", content)
        # As Debian has it where the boot loader's settings name the links.
        yield cpio.file("etc/kernel-img.conf", b"do_symlinks = yes\nlink_in_boot = yes\n")
        yield cpio.file(f"{_SECOND}/release", f"{second.release}\n".encode())
        yield cpio.file(f"{_SECOND}/vmlinuz", second.image)
        yield cpio.file(f"{_SECOND}/initrd.img", _initramfs(second, busybox))


def disk_system(architecture: str, *packages: str) -> System:
    """What is on such a disk, with the packages of a boot loader."""
    return System(architecture, packages=(*_PACKAGES, *packages), kept=_KEPT, modules=_MODULES)


def _initramfs(kernel: Kernel, busybox: bytes) -> bytes:
    """What finds the root file system; modules are numbered in the order in which they are loaded."""
    entries = [
        *map(cpio.directory, ("bin", "modules")),
        cpio.file("bin/busybox", busybox, 0o755),
        cpio.link("bin/sh", "busybox"),
        cpio.file("init", (_COMMON / "initramfs-init").read_bytes(), 0o755),
    ]
    for number, name in enumerate(kernel.modules_of(*_DISK_DRIVERS)):
        content = kernel.modules[name]
        if name.endswith(".xz"):
            content = lzma.decompress(content)
        entries.append(cpio.file(f"modules/{number:02}-{name.rpartition('/')[2].removesuffix('.xz')}", content))
    stream = io.BytesIO()
    cpio.write(stream, entries)
    return stream.getvalue()
