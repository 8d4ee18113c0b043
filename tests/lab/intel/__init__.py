# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine ``intel``: a q35 with VT-d and the devices of the project's source documents.

What the lab host sees (``lspci``)::

    00:01.0  VGA, the boot console
    00:02.0  virtio network card, the only way in (ssh)
    00:03.0  virtio disk, the root file system
    00:04.0  root port -> 01:00.0 82576 (igb), VFs 01:10.0 and 01:10.2 [8086:10ca]
    00:05.0  root port -> 02:00.0-3, one device of four functions in one IOMMU group
    00:06.0  root port -> 03:00.0 NVMe with SR-IOV
    00:07.0  root port, free
    00:1a.0  UHCI, 00:1a.7 EHCI
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..machine import MANAGEMENT_MAC, Hardware, Machine
from ..qemu import Qemu

FILES = Path(__file__).parent
DOMAINS = ("guest1", "guest2")

# -cpu max has SVM, which the nested guest needs. With 5-level paging (la57) the host's
# kernel crashes under a nested guest. The IOMMU needs the split interrupt controller for
# interrupt remapping.
BASE = (
    "-nodefaults", "-no-user-config", "-display", "none",
    "-machine", "q35,kernel-irqchip=split",
    "-accel", "tcg,thread=multi,tb-size=1024",
    "-cpu", "max,la57=off",
    "-smp", "2",
    "-rtc", "base=utc",
)  # fmt: skip
MEMORY = ("-m", "3072")

ROOT_DISK = ("-device", "virtio-blk-pci,drive=root,addr=0x3")
MANAGEMENT_CARD = ("-device", f"virtio-net-pci,netdev=management,mac={MANAGEMENT_MAC},addr=0x2,romfile=")

# Functions 0 and 3 are one kind and 1 and 2 another, like a card of which a guest
# gets two of four ports.
SECOND_SLOT = (
    "-device", "edu,bus=port2,addr=0x0.0x0,multifunction=on",
    "-device", "pci-testdev,bus=port2,addr=0x0.0x1",
    "-device", "pci-testdev,bus=port2,addr=0x0.0x2",
    "-device", "edu,bus=port2,addr=0x0.0x3",
)  # fmt: skip

_BEFORE_SECOND_SLOT = (
    "-device", "intel-iommu,intremap=on,caching-mode=on",
    "-device", "VGA,addr=0x1",
    *(
        word
        for number in range(1, 5)
        for word in ("-device", f"pcie-root-port,id=port{number},chassis={number},slot={number},addr={number + 3:#x}")
    ),
    # A hub of its own gives the card a link without a way out.
    "-netdev", "hubport,id=wire,hubid=0",
    "-device", "igb,bus=port1,netdev=wire,mac=52:54:00:6b:76:10",
)  # fmt: skip
_AFTER_SECOND_SLOT = (
    "-device", "ich9-usb-ehci2,id=ehci,addr=0x1a.0x7,multifunction=on",
    "-device", "ich9-usb-uhci4,masterbus=ehci.0,firstport=0,addr=0x1a.0x0,multifunction=on",
    "-device", "nvme-subsys,id=nvme-subsystem",
)  # fmt: skip
DEVICES = (*_BEFORE_SECOND_SLOT, *SECOND_SLOT, *_AFTER_SECOND_SLOT)

# QEMU cannot save an NVMe controller in a snapshot, so it is plugged in after the start.
# It has no namespace: one with SR-IOV belongs to a subsystem, and then QEMU adds
# namespaces only before the machine starts.
NVME_DEVICE: dict[str, str | int] = {
    "driver": "nvme",
    "id": "nvme",
    "bus": "port3",
    "serial": "KVMLAB0001",
    "subsys": "nvme-subsystem",
    "max_ioqpairs": 6,
    "sriov_max_vfs": 2,
    "sriov_vq_flexible": 4,
    "sriov_vi_flexible": 2,
}


def hardware(qemu: Qemu, second_slot: Sequence[str] = SECOND_SLOT) -> Hardware:
    """The whole machine, with its root disk; ``second_slot`` is what is in the slot of four functions."""
    devices = (*_BEFORE_SECOND_SLOT, *second_slot, *_AFTER_SECOND_SLOT)
    return Hardware(qemu, (*BASE, *MEMORY, *devices, *MANAGEMENT_CARD, *ROOT_DISK))


def plug_nvme(machine: Machine) -> None:
    """Plug in the NVMe controller; the host's kernel sees a hot-plugged card."""
    with machine.qmp() as qmp:
        qmp.execute_exactly("device_add", dict(NVME_DEVICE))
