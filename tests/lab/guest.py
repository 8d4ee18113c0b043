# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nested guest: its initramfs, and reading what it says about its PCI devices."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BEGIN, _END = "PCI-LIST-BEGIN", "PCI-LIST-END"
_LINE = re.compile(r"^([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]) (0x[0-9a-f]{6}) ([0-9a-f]{4}:[0-9a-f]{4})$")


@dataclass(frozen=True)
class PciFunction:
    """One PCI function as the guest's kernel sees it."""

    address: str
    pci_class: str
    ids: str


def serial_log_path(domain: str) -> str:
    """Where, inside the lab host, the serial console of a domain is written."""
    return f"/var/log/libvirt/qemu/{domain}-serial.log"


def parse_pci_list(serial: str) -> list[PciFunction] | None:
    """The PCI functions in the serial output of a guest; None while the list is not complete."""
    text = serial.replace("\r", "")
    if f"{_BEGIN}\n" not in text or _END not in text:
        return None
    listing = text.rsplit(f"{_BEGIN}\n", 1)[1].split(_END, 1)[0]
    matches = (_LINE.match(line) for line in listing.splitlines())
    return [PciFunction(*match.groups()) for match in matches if match]


def initramfs(busybox: bytes, init: bytes) -> bytes:
    """An initramfs with a static busybox and an init script, as a cpio archive.

    The format is "newc", as in the kernel's Documentation/driver-api/early-userspace/
    buffer-format.rst. The kernel adds /dev/console by itself.
    """
    archive = b"".join(
        [
            _cpio_entry(1, "bin", 0o040755, b""),
            _cpio_entry(2, "bin/busybox", 0o100755, busybox),
            _cpio_entry(3, "bin/sh", 0o120777, b"busybox"),  # a symbolic link: what it is called says what it does
            _cpio_entry(4, "init", 0o100755, init),
            _cpio_entry(0, "TRAILER!!!", 0, b""),
        ]
    )
    return archive + bytes(-len(archive) % 512)


def _cpio_entry(inode: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    numbers = (inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08X" % number for number in numbers) + encoded
    return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
