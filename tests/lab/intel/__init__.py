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

from collections.abc import Mapping, Sequence
from pathlib import Path

from .. import guest, q35
from ..disk import Layout
from ..first_boot import KERNEL_FILE
from ..image import Image
from ..large import LargeMachine, State
from ..second_kernel import SecondKernel

_FILES = Path(__file__).parent
_GUEST_FILES = _FILES / "guest"
_DOMAINS = ("guest1", "guest2")

# Functions 0 and 3 are one kind and 1 and 2 another, like a card of which a guest
# gets two of four ports.
_SECOND_SLOT = (
    "-device", "edu,bus=port2,addr=0x0.0x0,multifunction=on",
    "-device", "pci-testdev,bus=port2,addr=0x0.0x1",
    "-device", "pci-testdev,bus=port2,addr=0x0.0x2",
    "-device", "edu,bus=port2,addr=0x0.0x3",
)  # fmt: skip


def devices(second_slot: Sequence[str] = _SECOND_SLOT) -> tuple[str, ...]:
    """QEMU's options for all its devices; ``second_slot`` is what is in the slot of four functions."""
    return (
        *q35.IOMMU,
        "-device", "VGA,addr=0x1",
        *q35.ROOT_PORTS,
        # A hub of its own gives the card a link without a way out.
        "-netdev", "hubport,id=wire,hubid=0",
        "-device", "igb,bus=port1,netdev=wire,mac=52:54:00:6b:76:10",
        *second_slot,
        "-device", "ich9-usb-ehci2,id=ehci,addr=0x1a.0x7,multifunction=on",
        "-device", "ich9-usb-uhci4,masterbus=ehci.0,firstport=0,addr=0x1a.0x0,multifunction=on",
        "-device", "nvme-subsys,id=nvme-subsystem",
        *q35.MANAGEMENT_CARD,
    )  # fmt: skip


# It has no namespace: one with SR-IOV belongs to a subsystem, and then QEMU adds
# namespaces only before the machine starts.
_NVME: dict[str, str | int] = {
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

# libvirt asks its QEMU what it can do once and remembers it: that is slow under emulation,
# and every test would wait for it.
_AFTER_BOOT = """
set -eu
sudo virsh domcapabilities --virttype kvm >/dev/null
sudo virsh nodedev-list --cap pci >/dev/null
"""
_DEFINE = """
set -eu
sudo virsh --quiet define /var/lib/libvirt/images/guest1.xml
sudo virsh --quiet define /var/lib/libvirt/images/guest2.xml
"""
# Written the way an operator does it, and without the collection: a broken collection
# must not be able to break the machine it is tested on.
_SWITCH_ON = """
set -eu
sudo sed -i 's/intel_iommu=off/intel_iommu=on/' /etc/default/grub
sudo update-grub 2>&1
"""


# What boots it, all its devices have for drivers, and a machine waits for (/dev/kvm).
_SECOND_KERNEL_MODULES = (
    "virtio_pci", "virtio_net", "virtio_blk", "ext4", "kvm_amd", "vfio_pci", "pci_stub",
    "igb", "igbvf", "e1000e", "nvme", "ehci_pci", "uhci_hcd", "tun",
)  # fmt: skip


def _additions(directory: Path, tree: Path) -> Mapping[str, bytes]:
    """The nested guests."""
    images = "var/lib/libvirt/images"
    busybox = (tree / "usr" / "bin" / "busybox").read_bytes()
    return {
        f"{images}/guest-vmlinuz": (directory / KERNEL_FILE).read_bytes(),
        f"{images}/guest-initrd.img": guest.initramfs(busybox, (_GUEST_FILES / "init").read_bytes()),
        **{f"{images}/{domain}.xml": (_GUEST_FILES / f"{domain}.xml").read_bytes() for domain in _DOMAINS},
    }


MACHINE = LargeMachine(
    "VT-d, GRUB on BIOS, with a libvirt that starts nested guests",
    Image(
        "intel",
        (
            "linux-image-amd64", "grub-pc", "busybox-static", "python3-lxml", "python3-libvirt",
            "libvirt-daemon-system", "libvirt-clients", "qemu-system-x86", "nvme-cli",
        ),
        Layout(4096),
        # -cpu max has SVM, which the nested guest needs.
        (*q35.base(), *q35.ROOT_DISK),
        (_FILES / "rootfs",),
        second_kernel=SecondKernel("rt-amd64", _SECOND_KERNEL_MODULES),
        additions=_additions,
        inputs=(_GUEST_FILES,),
    ),
    devices(),
    3072,
    (
        State("fresh", "booted with intel_iommu=off", prepare=_DEFINE + _AFTER_BOOT),
        State("iommu", "the same with intel_iommu=on, rebooted", change=_SWITCH_ON, prepare=_AFTER_BOOT),
    ),
    plugged=(_NVME,),
)  # fmt: skip
