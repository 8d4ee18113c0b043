# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Boot machines: complete hosts without libvirt, one for each boot loader, all with the same hardware.

What such a host sees (``lspci``)::

    00:02.0  virtio network card, the only way in (ssh)
    00:03.0  virtio disk, the root file system
    00:04.0  root port -> 01:00.0 82574L (e1000e)
    00:05.0  root port -> 02:00.0 edu, without a driver
    00:06.0  root port -> 03:00.0 NVMe without a namespace
    00:07.0  root port, free
"""

from __future__ import annotations

from pathlib import Path

from .. import q35
from ..disk import Layout
from ..image import DRACUT, INITRAMFS_TOOLS, Image, InitramfsGenerator
from ..large import LargeMachine
from ..second_kernel import SecondKernel

_FILES = Path(__file__).parent

_DEVICES = (
    *q35.IOMMU,
    *q35.ROOT_PORTS,
    # A hub of its own gives the card a link without a way out.
    "-netdev", "hubport,id=wire,hubid=0",
    "-device", "e1000e,bus=port1,netdev=wire,mac=52:54:00:6b:76:10,romfile=",
    "-device", "edu,bus=port2",
    *q35.MANAGEMENT_CARD,
)  # fmt: skip
_NVME: dict[str, str | int] = {"driver": "nvme", "id": "nvme", "bus": "port3", "serial": "KVMLAB0001"}

# What the machine has to have to boot to ssh. The small flavour for cloud hosts has no VFIO.
_MODULES = ("virtio_pci", "virtio_net", "virtio_blk", "ext4", "vfat", "nls_ascii", "nls_cp437", "efivarfs")
_SMALL_KERNEL = SecondKernel("cloud-amd64", _MODULES)
_WITH_VFIO = SecondKernel("rt-amd64", (*_MODULES, "vfio_pci", "e1000e", "nvme"))


def _machine(
    name: str,
    about: str,
    packages: tuple[str, ...],
    layout: Layout,
    *,
    generator: InitramfsGenerator = INITRAMFS_TOOLS,
    second_kernel: SecondKernel = _SMALL_KERNEL,
) -> LargeMachine:
    return LargeMachine(
        about,
        Image(
            name,
            ("linux-image-amd64", *packages),
            layout,
            # Nobody starts a guest here, and without SVM nobody waits for /dev/kvm.
            (*q35.base(f"{q35.CPU},svm=off"), *q35.ROOT_DISK),
            (_FILES / name / "rootfs",),
            generator=generator,
            second_kernel=second_kernel,
            uefi=bool(layout.esp),
        ),
        _DEVICES,
        1024,
        plugged=(_NVME,),
    )


_ALL = (
    _machine(
        "grub-efi",
        "GRUB on UEFI, initramfs-tools",
        ("grub-efi-amd64", "dosfstools"),
        Layout(3072, esp=64),
    ),
    _machine(
        "systemd-boot",
        "systemd-boot on UEFI, entries and unified kernel images by kernel-install, dracut",
        ("systemd-boot", "systemd-boot-efi", "systemd-ukify", "efibootmgr", "dosfstools"),
        Layout(3072, esp=384),
        generator=DRACUT,
        second_kernel=_WITH_VFIO,
    ),
    _machine(
        "extlinux",
        "EXTLINUX (Syslinux) on BIOS, its menu written by hand, initramfs-tools; SELinux, switched off",
        (
            *("extlinux", "syslinux-common"),
            *("selinux-policy-default", "policycoreutils", "python3-semanage"),
        ),
        # EXTLINUX reads no ext4 file system with these.
        Layout(3072, root_features="^64bit,^metadata_csum"),
    ),
)
MACHINES = {machine.name: machine for machine in _ALL}
