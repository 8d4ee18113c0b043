# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small machines: one more is one more entry of ``MACHINES``.

A kernel and an initramfs that is the whole system, mostly without a disk and without a boot loader,
for the question what a kernel shows on such hardware. They boot in seconds, also on
processors that are emulated slowly. A machine that needs libvirt is a large one, such as
``intel``. Where only a boot loader is wanted, of an architecture whose packages cannot be
installed on this machine, the same system is on a disk (``disk``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..disk import DISK_FILE
from ..machine import BOOT_TIMEOUT, MANAGEMENT_MAC, Hardware, Machine, launch
from ..qemu import Qemu, find_qemu
from ..ssh_key import KEY_FILE
from .disk import FIRMWARE_FILE, BootDisk, disk_system
from .system import EMPTY_DISK_FILE, INITRAMFS_FILE, KERNEL_FILE, MODULES, System

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
    disk: BootDisk | None = None
    """What it boots from by itself; then it has no ``parameters``, but those its boot loader says."""
    drives: int = 0
    """How many empty drives it has: drive1, drive2, … in QEMU's options; what is written to them is gone with it."""

    @property
    def emulator(self) -> str:
        """QEMU's name of its architecture."""
        return _EMULATORS[self.system.architecture]

    @property
    def console(self) -> str:
        """The kernel's name of its serial console."""
        return _CONSOLES[self.system.architecture]


AMD64, ARM64, S390X = System("amd64"), System("arm64"), System("s390x")
DEBIAN12_S390X = System("s390x", suite="bookworm")
# QEMU within QEMU.
GUESTS_S390X = System(
    "s390x",
    packages=("busybox-static", "qemu-system-s390x"),
    kept=r"usr/share/qemu/(?:s390-ccw\.img)?$",
    variant="guests",
)
# What it takes to stack storage and networks as hosts do.
IN_USE = System(
    "amd64",
    packages=("btrfs-progs", "e2fsprogs", "lvm2", "mdadm"),
    modules=rf"""{MODULES}
    | drivers/(?:md/(?:md-mod|raid1|dm-mod) | scsi/(?:sd_mod|scsi_mod) | usb/storage/usb-storage | block/loop) \.ko
    | (?:drivers/(?:hid/(?:hid|hid-generic|usbhid/usbhid) | gpu/drm/tiny/bochs) | crypto/crc32c_generic) \.ko
    | drivers/net/(?:bonding/bonding|macvlan) \.ko
    | fs/(?:btrfs|ext4) / | net/(?:8021q/8021q|bridge/bridge) \.ko
    """,
    variant="in-use",
    disk_size=1 << 30,
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
_S390X = (
    "-machine", "s390-ccw-virtio", "-cpu", "max",
    "-device", f"virtio-net-ccw,netdev=management,mac={MANAGEMENT_MAC}",
)  # fmt: skip
_ZPCI = (
    *_S390X,
    "-netdev", "hubport,id=wire1,hubid=1",
    "-netdev", "hubport,id=wire2,hubid=2",
    "-device", "zpci,uid=0x0001,fid=0x00000000,target=pci1", "-device", "virtio-net-pci,id=pci1,netdev=wire1",
    "-device", "zpci,uid=0x0002,fid=0x00000001,target=pci2", "-device", "virtio-rng-pci,id=pci2",
    "-device", "zpci,uid=0x1234,fid=0x00abcdef,target=pci3", "-device", "virtio-net-pci,id=pci3,netdev=wire2",
)  # fmt: skip

# What a host uses, each beside a device of the same kind that it does not use. Who uses them is in
# test_devices_in_use.py. The two controllers of the subsystem are two paths to one disk.
_USED_AND_FREE = (
    # Otherwise there is a PS/2 keyboard.
    "-machine", "i8042=off",
    "-device", "nvme,serial=KVMLAB0011,drive=drive1,addr=0x8",
    "-device", "nvme,serial=KVMLAB0012,drive=drive2,addr=0x9",
    "-device", "nvme,serial=KVMLAB0013,drive=drive3,addr=0xa",
    "-device", "nvme-subsys,id=paths",
    "-device", "nvme,serial=KVMLAB0014,subsys=paths,id=path1,addr=0xb",
    "-device", "nvme,serial=KVMLAB0014,subsys=paths,id=path2,addr=0xc",
    "-device", "nvme-ns,drive=drive4,bus=path1,shared=on",
    "-device", "nvme,serial=KVMLAB0015,drive=drive5,addr=0xd",
    "-device", "nvme,serial=KVMLAB0016,drive=drive6,addr=0xe",
    "-device", "nvme,serial=KVMLAB0017,drive=drive7,addr=0xf",
    "-device", "qemu-xhci,id=usb1,addr=0x10", "-device", "usb-kbd,bus=usb1.0",
    "-device", "qemu-xhci,id=usb2,addr=0x11", "-device", "usb-storage,bus=usb2.0,drive=drive8",
    "-device", "qemu-xhci,id=usb3,addr=0x12",
    "-device", "VGA,addr=0x13",
    "-device", "bochs-display,addr=0x14",
    "-device", "bochs-display,addr=0x15",
    "-device", "nvme,serial=KVMLAB0018,drive=drive9,addr=0x16",
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

_ZIPL = BootDisk(
    "s390x-zipl",
    disk_system("s390x", "s390-tools"),
    first_kernel=("linux-image-s390x", "bookworm"),
)
_UBOOT = BootDisk(
    "arm64-uboot",
    disk_system("arm64", "u-boot-menu", "u-boot-qemu", "diffutils"),
    first_kernel=("linux-image-cloud-arm64", "bookworm"),
    firmware="usr/lib/u-boot/qemu_arm64/u-boot.bin",
)

MACHINES = {
    "amd": SmallMachine("AMD-Vi", AMD64, _AMD),
    "amd-in-use": SmallMachine(
        "AMD-Vi, root on LVM on RAID, and something of everything that a host uses",
        IN_USE,
        (*_AMD, *_USED_AND_FREE),
        ("rdinit=/usr/lib/kvm-passthrough-lab/root-on-lvm",),
        drives=9,
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
    "s390x-guests": SmallMachine("the same with QEMU, for a guest of its own", GUESTS_S390X, _ZPCI),
    "s390x-zipl": SmallMachine(
        "IBM Z with a disk that boots by zipl",
        _ZIPL.system,
        (*_S390X, "-device", "virtio-blk-ccw,drive=root,bootindex=1"),
        disk=_ZIPL,
    ),
    "arm64-uboot": SmallMachine(
        "Arm with U-Boot, which boots a disk by extlinux.conf",
        _UBOOT.system,
        ("-machine", "virt,gic-version=3", *_ARM_CPU, *_MANAGEMENT, "-device", "virtio-blk-pci,drive=root,addr=0x3"),
        disk=_UBOOT,
    ),
}


def start(machine: str, *, name: str, limit: float) -> Machine:
    """Boot a small machine and wait until ssh answers; what the cache lacks is built first. Raises LabError."""
    description = MACHINES[machine]
    qemu = find_qemu(description.emulator)
    built = _build(description, qemu)
    hardware = Hardware(qemu, (*_bare(description), *_boot_options(description, qemu, built)))
    running = launch(
        hardware,
        built / KEY_FILE,
        name=name,
        limit=limit,
        artefact=built.name,
        disk=built / DISK_FILE if description.disk else None,
    )
    try:
        running.wait_ssh(BOOT_TIMEOUT)
    except BaseException:
        running.stop(keep_logs=True)
        raise
    return running


def build(machine: str) -> None:
    """Fill the cache with what this machine needs."""
    description = MACHINES[machine]
    _build(description, find_qemu(description.emulator))


def artefact_names() -> set[str]:
    """The cache's names of what the machines are started from."""
    return {m.disk.artefact_name if m.disk else m.system.name for m in MACHINES.values()}


def _build(description: SmallMachine, qemu: Qemu) -> Path:
    if description.disk is None:
        return description.system.build()
    # The first boot has nobody to talk to.
    hardware = (*_bare(description), "-netdev", "hubport,id=management,hubid=9")
    return description.disk.build(qemu, hardware, description.console)


def _bare(description: SmallMachine) -> tuple[str, ...]:
    """QEMU's options for the hardware."""
    return (
        "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg,thread=multi", "-smp", "2",
        "-m", "1024", "-rtc", "base=utc",
        *description.hardware,
    )  # fmt: skip


def _boot_options(description: SmallMachine, qemu: Qemu, built: Path) -> tuple[str, ...]:
    """QEMU's options for what is booted."""
    if description.disk is not None:
        return ("-bios", str(built / FIRMWARE_FILE)) if description.disk.firmware else ()
    # Each gets a temporary overlay that QEMU removes as soon as it has it open.
    empty = f"if=none,format=raw,snapshot=on,file={built / EMPTY_DISK_FILE}"
    return (
        *(word for number in range(description.drives) for word in ("-drive", f"id=drive{number + 1},{empty}")),
        *(qemu.uefi() if description.uefi else ()),
        "-kernel", str(built / KERNEL_FILE), "-initrd", str(built / INITRAMFS_FILE),
        "-append", " ".join([f"console={description.console}", "quiet", "panic=-1", *description.parameters]),
    )  # fmt: skip
