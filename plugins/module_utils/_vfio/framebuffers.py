# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The framebuffers that the firmware handed to the kernel, and whose memory they are in.

Source: /proc/iomem (proc(5)), in which a resource is indented below the one it is part of. Without root rights the
addresses in it are zero; names and indentation are there.
"""

from __future__ import annotations

from .._core.host import Host
from .._pci.address import PciAddress
from .evidence import EvidenceMissing

IOMEM = "/proc/iomem"

# drivers/firmware/sysfb_simplefb.c (BOOTFB), and what the drivers on it call the same memory.
_FRAMEBUFFERS = ("BOOTFB", "efifb", "vesafb", "simplefb", "simpledrm", "simple-framebuffer")


def boot_framebuffers(host: Host) -> dict[PciAddress, str]:
    """The PCI functions in whose memory (a BAR) there is a framebuffer of the firmware's: address -> its name.

    A graphics driver that takes the card over ends it.

    :raises EvidenceMissing: when /proc/iomem cannot be read
    """
    text = host.attribute(IOMEM)
    if text is None:
        raise EvidenceMissing(f"{IOMEM} cannot be read")
    found: dict[PciAddress, str] = {}
    above: list[tuple[int, PciAddress | None]] = []
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        name = line.partition(" : ")[2].strip()
        while above and above[-1][0] >= depth:
            above.pop()
        owner = next((address for _unused, address in reversed(above) if address is not None), None)
        if owner is not None and name.split(".")[0] in _FRAMEBUFFERS:
            found[owner] = name
        above.append((depth, PciAddress.from_sysfs(name)))  # a BAR is named after its function
    return found
