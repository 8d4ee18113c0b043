# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the fleet: of every platform, of several distributions, ready or not; some have to be refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.unit.support import boot, extlinux, machine, zipl
from tests.unit.support.boot import GrubHost
from tests.unit.support.domains import hostdev_xml
from tests.unit.support.extlinux import ExtlinuxHost
from tests.unit.support.initramfs import InitramfsToolsStandIn
from tests.unit.support.iommu import NOT_REMAPPED, REMAPPED, TYPE1_KO, VFIO_KO
from tests.unit.support.kernel import FakeKernel
from tests.unit.support.sysfs import SysfsTree
from tests.unit.support.tables import VIRT_IORT, VIRT_MADT
from tests.unit.support.zipl import ZiplHost

from . import tree as trees

GROUP = "kvm_hosts"
KERNEL = machine.KERNELS[-1]

SETTINGS = 'GRUB_DISTRIBUTOR="Debian"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet {}"\n'

VF = {"name": "nic-vf", "address": machine.VF0, "expect": {"vendor_id": "8086", "device_id": "10ca"}}
QUAD = [{"name": f"quad-{number}", "address": address} for number, address in enumerate(machine.SLOT)]

Make = Callable[[Path], object]


@dataclass(frozen=True)
class Kind:
    """Hosts of one kind, and what is asked of them."""

    make: Make
    number: int = 1
    variables: dict[str, Any] = field(default_factory=dict)
    state: str = "active"
    """What ``iommu_info`` says of the IOMMU."""
    refused: str | None = None
    """What has to be in the reason for which the host is refused; None for a host that is not."""
    changes: tuple[str, ...] = ()
    """The modules that have something to change."""
    finding: str | None = None
    """What the audit has to find first; None for nothing."""
    domains: dict[str, str] | None = None
    """The domains of its libvirt, each with its devices as XML; None for a host without libvirt."""


# -- x86 ----------------------------------------------------------------------------------------------------


def _pc(root: Path, settings: str, flavour: boot.Flavour = boot.DEBIAN_FLAVOUR) -> SysfsTree:
    """A hypervisor with everything but an IOMMU, and its boot loader."""
    made = machine.hypervisor(root).tree
    made.kernel = KERNEL
    made.write("/proc/sys/kernel/osrelease", f"{KERNEL}\n").write("/proc/sys/kernel/arch", "x86_64\n")
    made.write("/sys/firmware/acpi/tables/FACP", b"FACP").write("/sys/firmware/acpi/tables/APIC", b"APIC")
    made.write("/proc/interrupts", NOT_REMAPPED).write("/dev/kvm", "")
    drivers = [f"kernel/{name}.ko.xz" for name in machine.DRIVERS]
    made.add_modules(available=["kernel/fs/ext4/ext4.ko", VFIO_KO, TYPE1_KO, *drivers])
    GrubHost(root, settings, kernels=machine.KERNELS, flavour=flavour)
    return made


def _without_groups(made: SysfsTree) -> SysfsTree:
    """As the kernel shows a machine whose IOMMU is off."""
    shutil.rmtree(made.path("/sys/kernel/iommu_groups"))
    for device in made.path("/sys/bus/pci/devices").iterdir():
        (device / "iommu_group").unlink(missing_ok=True)
    return made


def intel(root: Path, settings: str = SETTINGS.format("intel_iommu=on")) -> SysfsTree:
    """VT-d at work."""
    made = _pc(root, settings).set_cpu().add_vtd()
    return made.write("/proc/interrupts", REMAPPED)


def intel_bound(root: Path) -> None:
    """The same, and the device has been given to VFIO by somebody."""
    made = intel(root)
    made.bind(machine.VF0, "vfio-pci").set_attribute(machine.VF0, "driver_override", "vfio-pci")
    FakeKernel(made, {"vfio-pci": []}).add_module("vfio-pci")


def intel_off(root: Path) -> None:
    """VT-d that the kernel was told not to use."""
    _without_groups(_pc(root, SETTINGS.format("intel_iommu=off"))).set_cpu().add_vtd(active=False)


def intel_off_suse(root: Path) -> None:
    """The same on openSUSE."""
    _without_groups(
        _pc(root, boot.OPENSUSE.replace("quiet", "quiet intel_iommu=off"), boot.SUSE_FLAVOUR)
    ).set_cpu().add_vtd(active=False)


def intel_off_arch(root: Path) -> None:
    """The same on Arch Linux."""
    _without_groups(
        _pc(root, boot.ARCH.replace("quiet", "quiet intel_iommu=off"), boot.ARCH_FLAVOUR)
    ).set_cpu().add_vtd(active=False)


def intel_off_in_firmware(root: Path) -> None:
    """No table of the firmware speaks of VT-d."""
    _without_groups(_pc(root, SETTINGS.format(""))).set_cpu()


def amd(root: Path) -> None:
    """AMD-Vi at work."""
    made = _pc(root, SETTINGS.format("")).set_cpu("AuthenticAMD", "fpu svm").add_amdvi()
    made.write("/proc/interrupts", REMAPPED)


def amd_off(root: Path) -> None:
    """AMD-Vi that the kernel was told not to use."""
    made = _without_groups(_pc(root, SETTINGS.format("amd_iommu=off")))
    made.set_cpu("AuthenticAMD", "fpu svm").add_amdvi(active=False)


def without_boot_loader(root: Path) -> None:
    """VT-d is off, and nothing says how the host was started."""
    intel_off(root)
    for folder in ("boot/grub", "etc/default", "usr/sbin"):
        shutil.rmtree(root / folder)


def with_a_broken_record(root: Path) -> None:
    """The record of what this collection did is none."""
    made = intel(root)
    made.write("/var/lib/kvm-passthrough/state.json", '{"version": 1, "records": [{]}\n')


# -- others -------------------------------------------------------------------------------------------------


def _other(made: SysfsTree) -> SysfsTree:
    """What a host that is no PC has in common with the one of support.machine."""
    made.write("/dev/kvm", "").write("/proc/self/mountinfo", "25 1 254:1 / / rw shared:1 - ext4 /dev/vda1 rw\n")
    made.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    made.path("/proc/1/fd").mkdir(parents=True)
    FakeKernel(made, {"vfio-pci": [], "igbvf": [], "virtio-pci": []}).install(InitramfsToolsStandIn, made.kernel)
    made.add_modules(available=[f"kernel/drivers/vfio/{name}.ko" for name in ("pci/vfio-pci", "vfio_iommu_type1")])
    return made


def arm64(root: Path) -> None:
    """An Arm server with an SMMU, started by U-Boot."""
    ExtlinuxHost(root, 'U_BOOT_PARAMETERS="ro quiet"\n')
    made = SysfsTree(root, KERNEL)
    made.write("/proc/sys/kernel/arch", "aarch64\n")
    made.write("/proc/cpuinfo", "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n\n")
    made.write("/proc/interrupts", " 21:  1  ITS-PCI-MSIX-0000:00:04.0  0 Edge  PCIe PME\n")
    made.write(f"/boot/config-{KERNEL}", "CONFIG_ARM_SMMU=y\nCONFIG_ARM_SMMU_V3=y\n")
    made.write("/sys/firmware/acpi/tables/FACP", b"FACP").write("/sys/firmware/acpi/tables/APIC", VIRT_MADT)
    made.write("/sys/firmware/acpi/tables/IORT", VIRT_IORT).add_smmu()
    made.add_device("0000:00:01.0", ids="1af4:1041", driver="virtio-pci", group=1)
    made.add_device(machine.VF0, ids="8086:10ca", pci_class=0x020000, driver="igbvf", group=2)
    made.write("/proc/cmdline", f"{extlinux.ROOT} ro quiet\n")
    _other(made)


def s390x(root: Path) -> None:
    """IBM Z with two functions, started by zipl."""
    ZiplHost(root)
    made = SysfsTree(root, KERNEL)
    made.write("/proc/sys/kernel/arch", "s390x\n").write("/proc/interrupts", "  3:  0  PCI-MSI  virtio0-config\n")
    made.write(f"/boot/config-{KERNEL}", "CONFIG_PCI=y\nCONFIG_S390_IOMMU=y\n")
    made.write(
        "/proc/cpuinfo",
        "vendor_id       : IBM/S390\n# processors    : 1\nfeatures\t: esan3 zarch stfle msa vx sie\n"
        "facilities      : 0 1 2 69 71 72 129\n\ncpu number      : 0\n",
    )
    for number, fid in ((1, 0x10), (2, 0x20)):
        address = f"{number:04x}:00:00.0"
        made.add_zpci(address, fid, ids="15b3:1016", pci_class=0x020000, group=number).set_zpci(
            address, fid=fid, uid=number
        )
    made.write("/proc/cmdline", f"{zipl.LINE} BOOT_IMAGE=0\n")
    _other(made)


# -- the fleet ----------------------------------------------------------------------------------------------

_DEVICE = {"vfio_host_devices": [VF]}
_QUAD = {"vfio_host_devices": [VF, *QUAD]}


def _asked(device: Any) -> dict[str, Any]:
    """What no host can have."""
    return {"vfio_host_devices": [device]}


def _guest(device: str, name: str = "web01") -> dict[str, Any]:
    """A host on which web01 has this device, and a guest of this name is to have the VF."""
    wanted = {"name": name, "state": "exact", "hostdevs": [{"device": VF["name"]}]}
    variables = {**_DEVICE, "vfio_host_persistent": False, "vfio_guest_domains": [wanted]}
    return {"variables": variables, "domains": {"web01": hostdev_xml(device)}}


_DRIFTED: dict[str, Any] = {"changes": ("vfio_devices",), "finding": "inventory_drift"}
_OFF: dict[str, Any] = {
    "state": "disabled_by_parameter",
    "changes": ("kernel_parameters",),
    "finding": "iommu_disabled_by_parameter",
}

KINDS: dict[str, Kind] = {
    "intel": Kind(intel, 6, _QUAD, **_DRIFTED),
    "intel-bound": Kind(intel_bound, 3, {**_DEVICE, "vfio_host_persistent": False}),
    "guest": Kind(intel_bound, **_guest(machine.VF0)),
    "guest-drifted": Kind(intel_bound, **_guest(machine.VF1), changes=("domain_hostdevs",), finding="inventory_drift"),
    "intel-off": Kind(intel_off, 4, _DEVICE, **_OFF),
    "intel-suse": Kind(intel_off_suse, 1, _DEVICE, **_OFF),
    "intel-arch": Kind(intel_off_arch, 1, _DEVICE, **_OFF),
    "amd": Kind(amd, 4, _DEVICE, **_DRIFTED),
    "amd-off": Kind(amd_off, 2, _DEVICE, **_OFF),
    "arm": Kind(arm64, 3, _DEVICE, **_DRIFTED),
    "z": Kind(s390x, 3, {"vfio_host_devices": [{"uid": "0001"}]}, **_DRIFTED),
    "bad-firmware": Kind(
        intel_off_in_firmware,
        variables=_DEVICE,
        state="disabled_in_firmware",
        refused="disabled_in_firmware",
        finding="iommu_disabled_in_firmware",
    ),
    "bad-disk": Kind(intel, 1, _asked(machine.NVME), refused="mounted at /", finding="boot_disk"),
    "bad-uplink": Kind(intel, 1, _asked(machine.MANAGEMENT), refused="192.0.2.10", finding="management_network"),
    "bad-address": Kind(intel, 1, _asked("0000:09:00.0"), refused="no PCI device matches", finding="no_match"),
    "bad-moved": Kind(
        intel,
        1,
        _asked({**VF, "expect": {"vendor_id": "10de", "device_id": "2484"}}),
        refused="expected 10de, found 8086",
        finding="identity_mismatch",
    ),
    "bad-group": Kind(intel, 1, _asked(QUAD[0]), refused=machine.SLOT[3], finding="group_not_viable"),
    "bad-guest": Kind(
        intel_bound, **_guest(machine.VF1, "web09"), refused="no domain 'web09'", finding="domain_not_found"
    ),
    "bad-loader": Kind(
        without_boot_loader,
        variables=_DEVICE,
        state="disabled_by_parameter",
        refused="boot loader",
        finding="iommu_disabled_by_parameter",
    ),
    "bad-record": Kind(with_a_broken_record, 1, _DEVICE, refused="state.json", finding="state_unreadable"),
    "bad-variable": Kind(
        intel_bound,
        1,
        {**_DEVICE, "vfio_host_persistent": False, "vfio_host_reboot_timeout": "soon"},
        refused="vfio_host_reboot_timeout",
    ),
    "bad-cable": Kind(shutil.rmtree, 1, _DEVICE, refused="cannot be reached"),
}


@dataclass(frozen=True)
class Fleet:
    """The hosts below a folder, and their inventory."""

    folder: Path
    inventory: Path
    kinds: dict[str, Kind]
    """Of each host."""

    def root(self, host: str) -> Path:
        """The file tree of a host."""
        return self.folder / host

    def refused(self) -> dict[str, str]:
        """The hosts that have to be refused, with what is in the reason."""
        return {name: kind.refused for name, kind in self.kinds.items() if kind.refused is not None}


def build(folder: Path, kinds: Mapping[str, Kind]) -> Fleet:
    """Make the hosts in a folder; those of one kind are copies of each other."""
    made: dict[str, Kind] = {}
    for name, kind in kinds.items():
        first: Path | None = None
        for number in range(1, kind.number + 1):
            host = f"{name}-{number:02}"
            made[host] = kind
            if first is not None:
                shutil.copytree(first, folder / host, symlinks=True)
                continue
            first = folder / host
            first.mkdir(parents=True)
            kind.make(first)
            if first.exists():
                _furnish(first)
            if kind.domains is not None:
                trees.add_libvirt(first, kind.domains)
    hosts = {
        host: {
            **kind.variables,
            "ansible_connection": "tree",
            "ansible_tree_root": str(folder / host),
            "ansible_become": False,  # whoever enters a tree is root there
            "vfio_audit_libvirt": kind.domains is not None,
        }
        for host, kind in made.items()
    }
    inventory = folder / "inventory.yml"
    inventory.write_text(yaml.safe_dump({GROUP: {"hosts": hosts}}), encoding="utf-8")
    return Fleet(folder, inventory, made)


def _furnish(root: Path) -> None:
    trees.inhabit(root)
    trees.add_network_tools(
        root,
        [{"ifname": "ens4", "addr_info": [{"family": "inet", "local": "192.0.2.10", "scope": "global"}]}],
        [{"dst": "default", "gateway": "192.0.2.1", "dev": "ens4"}],
    )
    trees.add_program(root, "/usr/sbin/modprobe", 'case " $* " in *" -n "*vfio*) ;; *) exit 1;; esac')
