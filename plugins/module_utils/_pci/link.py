# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PCI Express link of a function, from what the kernel says of it (drivers/pci/pci-sysfs.c)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .numbers import integer

# "8.0 GT/s PCIe"; "8 GT/s" before Linux 5.7; "Unknown" (earlier "Unknown speed").
_SPEED = re.compile(r"([0-9]+)(\.[0-9]+)? GT/s\b.*")
_UNKNOWN_WIDTHS = (0, 0xFF)  # include/linux/pci.h, enum pcie_link_width


@dataclass(frozen=True)
class Link:
    """A link as it is and as it could be: speed like ``8.0 GT/s``, width in lanes; None for what is not known."""

    speed: str | None
    width: int | None
    max_speed: str | None
    max_width: int | None

    @property
    def is_known(self) -> bool:
        """Whether anything about the link is known; of a VF nothing is."""
        return any(value is not None for value in (self.speed, self.width, self.max_speed, self.max_width))


def link_speed(text: str | None) -> str | None:
    """A speed in the kernel's current spelling, without ``PCIe``; None when it is not known."""
    match = _SPEED.fullmatch(text or "")
    return f"{match[1]}{match[2] or '.0'} GT/s" if match else None


def link_width(text: str | None) -> int | None:
    """A number of lanes; None when it is not known."""
    width = integer(text)
    return None if width in _UNKNOWN_WIDTHS else width
