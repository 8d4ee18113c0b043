# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The nested guest: its initramfs, and reading what it says about its PCI devices."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

from . import cpio

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
    """The PCI functions in the last complete list in the serial output of a guest; None while there is none."""
    complete, end, _rest = serial.replace("\r", "").rpartition(_END)
    if f"{_BEGIN}\n" not in complete or not end:
        return None
    listing = complete.rsplit(f"{_BEGIN}\n", 1)[1]
    matches = (_LINE.match(line) for line in listing.splitlines())
    return [PciFunction(*match.groups()) for match in matches if match]


def initramfs(busybox: bytes, init: bytes) -> bytes:
    """An initramfs with a static busybox and an init script. The kernel adds /dev/console by itself."""
    archive = io.BytesIO()
    cpio.write(
        archive,
        [
            cpio.directory("bin"),
            cpio.file("bin/busybox", busybox, 0o755),
            cpio.link("bin/sh", "busybox"),
            cpio.file("init", init, 0o755),
        ],
    )
    return archive.getvalue()
