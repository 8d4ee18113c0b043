# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Some functions are parts of the platform that no guest can use and no host can spare."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Guard, GuardContext, Reason

# PCI Code and ID Assignment Specification: base class and sub-class.
_SYSTEM_CLASSES = {
    0x0600: "a host bridge",
    0x0601: "an ISA bridge",
    0x0602: "an EISA bridge",
    0x0800: "an interrupt controller",
    0x0801: "a DMA controller",
    0x0802: "a system timer",
    0x0803: "a real-time clock",
    0x0806: "an IOMMU",
    0x0C05: "an SMBus controller",
}
_MEMORY_CONTROLLER = 0x05


def platform_part(device: PciDevice) -> str | None:
    """What part of the platform a function is (``an ISA bridge``); None for an ordinary device."""
    if device.pci_class >> 16 == _MEMORY_CONTROLLER:
        return "a memory controller"
    return _SYSTEM_CLASSES.get(device.pci_class >> 8)


class SystemDevice(Guard):
    """Host bridge, ISA bridge, SMBus, memory controller and the like."""

    code = "system_device"

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        kind = platform_part(device)
        if kind is not None:
            yield Reason(
                f"{device.address} is {kind} (class 0x{device.pci_class >> 8:04x}), a part of the platform itself.",
                "Leave it to the host.",
            )
