# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keyboard by which somebody in front of the host would help it stays with the host."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Guard, GuardContext, Reason

# PCI Code and ID Assignment Specification: serial bus controller, USB.
_USB_CONTROLLER = 0x0C03


class UsbInUse(Guard):
    """A USB controller behind which all keyboards of the host are; a host without any keyboard has none to lose.

    That of a server's management controller (remote console) is one, too. Disks behind a USB controller are those of
    ``boot_disk``, like all others.
    """

    code = "usb_in_use"

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.pci_class >> 8 != _USB_CONTROLLER:
            return
        lost = context.keyboards.behind(device)
        if not lost:
            return
        together = [device.address, *device.group_members, *context.leaving]
        leaving = [context.bus.device(address) for address in dict.fromkeys(together) if address in context.bus]
        if set(context.keyboards.names) == {name for other in leaving for name in context.keyboards.behind(other)}:
            labels = dict.fromkeys(context.keyboards.label(name) for name in lost)
            yield Reason(
                f"Without {device.address} the host has no keyboard left (behind it: {', '.join(labels)}).",
                "See to another way in (SSH, serial console), or plug a keyboard into another controller.",
            )
