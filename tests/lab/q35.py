# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the large machines on x86-64 have in common: a q35 with VT-d, its management card and its root disk."""

from __future__ import annotations

from .machine import MANAGEMENT_MAC

# With 5-level paging (la57) the host's kernel crashes under a nested guest.
CPU = "max,la57=off"


def base(cpu: str = CPU) -> tuple[str, ...]:
    """The bare machine. The IOMMU needs the split interrupt controller for interrupt remapping."""
    return (
        "-nodefaults", "-no-user-config", "-display", "none",
        "-machine", "q35,kernel-irqchip=split",
        "-accel", "tcg,thread=multi,tb-size=1024",
        "-cpu", cpu,
        "-smp", "2",
        "-rtc", "base=utc",
    )  # fmt: skip


IOMMU = ("-device", "intel-iommu,intremap=on,caching-mode=on")
MANAGEMENT_CARD = ("-device", f"virtio-net-pci,netdev=management,mac={MANAGEMENT_MAC},addr=0x2,romfile=")
ROOT_DISK = ("-device", "virtio-blk-pci,drive=root,addr=0x3")
ROOT_PORTS = tuple(
    word
    for number in range(1, 5)
    for word in ("-device", f"pcie-root-port,id=port{number},chassis={number},slot={number},addr={number + 3:#x}")
)
"""``port1`` to ``port4``, 00:04.0 to 00:07.0, which lead to the buses 01 to 04."""
