# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first boot of a disk, which the emulator starts with ``-kernel``: the machine puts a boot loader on it itself.

So the boot loader's own tools do it, and see the real disk and the real firmware.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .disk import DISK_FILE
from .qemu import Qemu
from .run import LabError, require_tool, run, tail

KERNEL_FILE, INITRAMFS_FILE = "vmlinuz", "initrd.img"
"""What it is started with, beside the disk."""

_PROGRAM = "/usr/lib/kvm-passthrough-lab/first-boot"
_TIMEOUT = 900


def first_boot(directory: Path, qemu: Qemu, hardware: Sequence[str], *, root: str, console: str) -> None:
    """Boot the disk in this directory, until the machine has powered off; raises LabError with the console's end.

    ``hardware`` are QEMU's options for all but the drive ``root`` and what is booted, ``root`` and ``console`` the
    kernel's names of the root file system and the serial console.
    """
    serial = directory / "first-boot-serial.log"
    command: list[str | Path] = [
        # It is our child itself, so that the time limit ends it, and it ends when we are killed.
        require_tool("setpriv", "util-linux"), "--pdeathsig", "KILL",
        *qemu.system, *hardware, "-no-reboot", "-serial", f"file:{serial}",
        "-drive", f"if=none,id=root,format=raw,cache=unsafe,discard=unmap,file={directory / DISK_FILE}",
        "-kernel", directory / KERNEL_FILE, "-initrd", directory / INITRAMFS_FILE,
        "-append", f"root={root} console={console} quiet panic=-1 init={_PROGRAM}",
    ]  # fmt: skip
    try:
        run(command, timeout=_TIMEOUT, log=directory / "build.log", env=qemu.environment)
    except LabError as error:
        raise LabError(f"{error}\nthe end of {serial}:\n{tail(serial)}") from error
    if "LAB-FIRST-BOOT-DONE" not in serial.read_text(errors="replace"):
        raise LabError(f"the boot loader could not be installed; the end of {serial}:\n{tail(serial)}")
