# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The display the firmware chose for the console."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Guard, GuardContext, Reason

# PCI Code and ID Assignment Specification: base class of display controllers.
_DISPLAY = 0x03

_REMEDY = (
    "See to another way in (SSH, serial console), or make another graphics card the primary one in the firmware's "
    "setup."
)


class ConsoleDisplay(Guard):
    """The display of the firmware's and the kernel's console.

    ``boot_vga`` is 1 on the one the firmware chose. Where the kernel still draws into the memory that the firmware set
    up for it (no graphics driver has taken over), that memory is part of the device, and VFIO cannot have it either.
    """

    code = "console_display"

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.boot_vga:
            yield Reason(
                f"{device.address} is the display the host booted with: its console goes dark when it is taken away.",
                _REMEDY,
            )
        elif device.pci_class >> 16 == _DISPLAY and device.address in context.framebuffers:
            yield Reason(
                f"The console is drawn into the memory of {device.address} ({context.framebuffers[device.address]} in "
                "/proc/iomem).",
                _REMEDY,
            )
