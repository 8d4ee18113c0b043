# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small machines: one more is one more entry of ``MACHINES``.

A kernel and an initramfs that is the whole system, without a boot loader and mostly without a disk,
for the question what a kernel shows on such hardware. They boot in seconds, also on
processors that are emulated slowly. A machine that needs a boot loader, libvirt or a reboot
is a large one, such as ``intel``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..machine import BOOT_TIMEOUT, MANAGEMENT_MAC, Hardware, Machine, launch
from ..qemu import find_qemu
from .system import DISK_FILE, INITRAMFS_FILE, KERNEL_FILE, KEY_FILE, Addition, System

_EMULATORS = {"amd64": "x86_64", "arm64": "aarch64", "s390x": "s390x"}
_CONSOLES = {"amd64": "ttyS0", "arm64": "ttyAMA0", "s390x": "ttysclp0"}


@dataclass(frozen=True)
class SmallMachine:
    """What makes one small machine: QEMU's options for the hardware, and the kernel's parameters."""

    about: str
    system: System
    hardware: tuple[str, ...]
    parameters: tuple[str, ...] = ()
    uefi: bool = False
    """Whether it has the firmware, which then describes the hardware by ACPI tables (arm64)."""
    disks: int = 0
    """How many empty drives it has: disk1, disk2, … in QEMU's options; what is written to them is gone with it."""

    @property
    def emulator(self) -> str:
        """QEMU's name of its architecture."""
        return _EMULATORS[self.system.architecture]


AMD64, ARM64, S390X = System("amd64"), System("arm64"), System("s390x")
DEBIAN12_S390X = System("s390x", suite="bookworm")
# What it takes to stack storage and networks as hosts do.
IN_USE = System(
    "amd64",
    addition=Addition(
        "in-use",
        ("btrfs-progs", "e2fsprogs", "lvm2", "mdadm"),
        r"""
        drivers/(?:md/(?:md-mod|raid1|dm-mod) | scsi/(?:sd_mod|scsi_mod) | usb/storage/usb-storage | block/loop) \.ko
        | drivers/(?:hid/(?:hid|hid-generic|usbhid/usbhid) | gpu/drm/tiny/bochs) \.ko
        | drivers/net/(?:bonding/bonding|macvlan|veth|vrf) \.ko
        | fs/(?:btrfs|ext4) / | net/(?:8021q/8021q|bridge/bridge) \.ko
        """,
        disk_size=1 << 30,
    ),
)

# Addresses are fixed, so that a machine with one device less has the others where they were.
_MANAGEMENT = ("-device", f"virtio-net-pci,netdev=management,mac={MANAGEMENT_MAC},addr=0x2,romfile=")
_ENDPOINTS = (
    "-device", "edu,addr=0x3",
    "-device", "nvme,serial=KVMLAB0001,addr=0x4",
    "-device", "pcie-root-port,id=port1,chassis=1,slot=1,addr=0x5",
    # A hub of its own gives the card a link without a way out.
    "-netdev", "hubport,id=wire,hubid=0",
    "-device", "igb,bus=port1,netdev=wire,mac=52:54:00:6b:76:10,romfile=",
)  # fmt: skip
_Q35 = ("-machine", "q35,kernel-irqchip=split", *_MANAGEMENT, *_ENDPOINTS)
# As on the machine intel, "max" calls itself AuthenticAMD and has SVM. QEMU emulates no VMX,
# so one that calls itself GenuineIntel has no virtualization.
_MAX_CPU = ("-cpu", "max,la57=off")
_INTEL_CPU = ("-cpu", "max,la57=off,vendor=GenuineIntel,svm=off")
_AMD = ("-cpu", "EPYC-Rome", *_Q35, "-device", "amd-iommu,intremap=on")
_ARM_CPU = ("-cpu", "cortex-a72")
_ARM_IOMMU = ("-machine", "virt,iommu=smmuv3,gic-version=3,virtualization=on", *_ARM_CPU, *_MANAGEMENT, *_ENDPOINTS)
_ARM_NO_IOMMU = ("-machine", "virt,gic-version=3,virtualization=on", *_ARM_CPU, *_MANAGEMENT, *_ENDPOINTS)
_ZPCI = (
    "-machine", "s390-ccw-virtio", "-cpu", "max",
    "-device", f"virtio-net-ccw,netdev=management,mac={MANAGEMENT_MAC}",
    "-netdev", "hubport,id=wire1,hubid=1",
    "-netdev", "hubport,id=wire2,hubid=2",
    "-device", "zpci,uid=0x0001,fid=0x00000000,target=pci1", "-device", "virtio-net-pci,id=pci1,netdev=wire1",
    "-device", "zpci,uid=0x0002,fid=0x00000001,target=pci2", "-device", "virtio-rng-pci,id=pci2",
    "-device", "zpci,uid=0x1234,fid=0x00abcdef,target=pci3", "-device", "virtio-net-pci,id=pci3,netdev=wire2",
)  # fmt: skip

# One of everything that a host uses, each beside a device of the same kind that it does not use. What is said of them
# and who uses them is in test_devices_in_use.py; the two roots of paths lead to one disk.
_USED_AND_FREE = (
    "-device", "nvme,serial=KVMLAB0011,drive=disk1,addr=0x8",
    "-device", "nvme,serial=KVMLAB0012,drive=disk2,addr=0x9",
    "-device", "nvme,serial=KVMLAB0013,drive=disk3,addr=0xa",
    "-device", "nvme-subsys,id=paths",
    "-device", "nvme,serial=KVMLAB0014,subsys=paths,id=path1,addr=0xb",
    "-device", "nvme,serial=KVMLAB0014,subsys=paths,id=path2,addr=0xc",
    "-device", "nvme-ns,drive=disk4,bus=path1,shared=on",
    "-device", "nvme,serial=KVMLAB0015,drive=disk5,addr=0xd",
    "-device", "nvme,serial=KVMLAB0016,drive=disk6,addr=0xe",
    "-device", "nvme,serial=KVMLAB0017,drive=disk7,addr=0xf",
    "-device", "qemu-xhci,id=usb1,addr=0x10", "-device", "usb-kbd,bus=usb1.0",
    "-device", "qemu-xhci,id=usb2,addr=0x11", "-device", "usb-storage,bus=usb2.0,drive=disk8",
    "-device", "qemu-xhci,id=usb3,addr=0x12",
    "-device", "VGA,addr=0x13",
    "-device", "bochs-display,addr=0x14",
    "-device", "bochs-display,addr=0x15",
    "-chardev", "null,id=nobody", "-device", "pci-serial,chardev=nobody,addr=0x16",
    "-device", "edu,addr=0x17",
    # Four cards on one wire, which leads nowhere else.
    *(
        option
        for number in range(1, 5)
        for option in (
            "-netdev", f"hubport,id=leg{number},hubid=1",
            "-device", f"e1000e,netdev=leg{number},mac=52:54:00:6b:76:2{number},addr=0x{0x17 + number:x},romfile=",
        )
    ),
)  # fmt: skip

MACHINES = {
    "amd": SmallMachine("AMD-Vi", AMD64, _AMD),
    "amd-in-use": SmallMachine(
        "AMD-Vi, root on LVM on RAID, and something of everything that a host uses",
        IN_USE,
        (*_AMD, *_USED_AND_FREE),
        # The PCI card's port is the first one that the kernel has free.
        ("rdinit=/usr/lib/kvm-passthrough-lab/root-on-lvm", "console=ttyS1"),
        disks=8,
    ),
    "amd-off": SmallMachine("AMD-Vi, switched off by a kernel parameter", AMD64, _AMD, ("amd_iommu=off",)),
    "intel-firmware-off": SmallMachine("an Intel processor, VT-d off in the firmware", AMD64, (*_INTEL_CPU, *_Q35)),
    "intel-no-remapping": SmallMachine(
        "VT-d without interrupt remapping",
        AMD64,
        (*_MAX_CPU, *_Q35, "-device", "intel-iommu,intremap=off"),
        ("intel_iommu=on",),
    ),
    "arm64": SmallMachine("SMMUv3, described by a device tree", ARM64, _ARM_IOMMU),
    "arm64-acpi": SmallMachine("SMMUv3, described by ACPI (UEFI firmware)", ARM64, _ARM_IOMMU, uefi=True),
    "arm64-no-iommu": SmallMachine("no IOMMU at all", ARM64, _ARM_NO_IOMMU),
    "s390x": SmallMachine("IBM Z with three PCI functions", S390X, _ZPCI),
    "s390x-debian12": SmallMachine("the same with a kernel that has no VFIO", DEBIAN12_S390X, _ZPCI),
}


def start(machine: str, *, name: str, limit: float) -> Machine:
    """Boot a small machine and wait until ssh answers; what the cache lacks is built first. Raises LabError."""
    description = MACHINES[machine]
    qemu = find_qemu(description.emulator)
    built = description.system.build()
    console = _CONSOLES[description.system.architecture]
    # Each gets a temporary overlay that QEMU removes as soon as it has it open.
    drive = f"if=none,format=raw,snapshot=on,file={built / DISK_FILE}"
    drives = [word for number in range(description.disks) for word in ("-drive", f"id=disk{number + 1},{drive}")]
    hardware = Hardware(
        qemu,
        (
            "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,thread=multi", "-smp", "2",
            "-m", "1024", "-rtc", "base=utc",
            *drives,
            *description.hardware,
            *(qemu.firmware if description.uefi else ()),
            "-kernel", str(built / KERNEL_FILE), "-initrd", str(built / INITRAMFS_FILE),
            "-append", " ".join([*description.parameters, f"console={console}", "quiet", "panic=-1"]),
        ),
    )  # fmt: skip
    running = launch(hardware, built / KEY_FILE, name=name, limit=limit, artefact=built.name)
    try:
        running.wait_ssh(BOOT_TIMEOUT)
    except BaseException:
        running.stop(keep_logs=True)
        raise
    return running


def build(machine: str) -> None:
    """Fill the cache with what this machine needs."""
    description = MACHINES[machine]
    find_qemu(description.emulator)
    description.system.build()
