# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The display the firmware chose for the console."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Guard, GuardContext, Reason


class ConsoleDisplay(Guard):
    """``boot_vga`` is 1 on the device that shows the firmware's and the kernel's console."""

    code = "console_display"

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.boot_vga:
            yield Reason(
                f"{device.address} is the display the host booted with: its console goes dark when it is taken away.",
                "See to another way in (SSH, serial console), or make another graphics card the primary one in the "
                "firmware's setup.",
            )
