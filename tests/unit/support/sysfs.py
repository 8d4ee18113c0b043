# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the parts of a Linux machine's file tree that PCI passthrough looks at, as the kernel would show them.

::

    tree = SysfsTree(tmp_path)
    tree.add_device("0000:01:00.0", ids="8086:10c9", pci_class=0x020000, driver="igb", group=14, totalvfs=7,
                    interfaces={"enp1s0": "52:54:00:00:00:01"})
    tree.add_vfs("0000:01:00.0", 2, ids="8086:10ca", driver="igbvf", first_group=15)
    bus = Bus(tree.host())

Devices are real directories below ``/sys/devices/pciDDDD:BB`` (below their bridge when ``parent`` names one), and
``/sys/bus/pci/devices``, ``/sys/kernel/iommu_groups``, ``/sys/class/net`` and ``/sys/block`` link to them.
All links are relative, so the tree can be moved or bound elsewhere. It is plain files: nothing reacts to a write.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress

KERNEL = "6.1.0-test-amd64"

_IN_MODALIAS = ("vendor", "device", "subsystem_vendor", "subsystem_device", "class")

RESERVED_MSI = "0x00000000fee00000 0x00000000feefffff msi"


class SysfsTree:
    """A machine's file tree below ``root``, empty but for the folders every Linux machine with PCI has."""

    def __init__(self, root: Path, kernel: str = KERNEL) -> None:
        self.root = Path(root)
        self._bases: dict[PciAddress, str] = {}
        self.kernel = kernel
        for folder in ("/sys/bus/pci/devices", "/sys/bus/pci/drivers", "/sys/devices", "/sys/module", "/sys/class/net"):
            self.path(folder).mkdir(parents=True, exist_ok=True)
        self.write("/sys/bus/pci/drivers_probe", "")
        self.write("/proc/sys/kernel/osrelease", f"{kernel}\n")
        self.write("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro quiet\n")

    # -- plain files ------------------------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """Where an absolute path of the machine is for the test."""
        return self.root / path.lstrip("/")

    def write(self, path: str, content: str | bytes) -> SysfsTree:
        """Make a file with its parent directories."""
        target = self.path(path)
        data = content.encode() if isinstance(content, str) else content
        try:
            target.write_bytes(data)
        except FileNotFoundError:
            target.parent.mkdir(parents=True)
            target.write_bytes(data)
        return self

    def link(self, path: str, target: str) -> SysfsTree:
        """Make (or replace) a relative symbolic link at ``path`` to the machine's absolute path ``target``."""
        link = self.path(path)
        if not link.parent.is_dir():
            link.parent.mkdir(parents=True)
        # The link is followed from where it really is: a parent may be a link itself.
        content = os.path.relpath(self.path(target), os.path.realpath(link.parent))
        try:
            link.symlink_to(content)
        except FileExistsError:
            link.unlink()
            link.symlink_to(content)
        return self

    def host(self, **arguments: Any) -> Host:
        """The machine as the code under test sees it; arguments go to :class:`Host` (``runner``, ``clock``, …)."""
        return Host(str(self.root), **arguments)

    # -- PCI --------------------------------------------------------------------------------------------

    def device_path(self, address: str | PciAddress) -> str:
        """The directory of a device that was added, as the machine names it (below /sys/devices)."""
        address = PciAddress.parse(address)
        if address in self._bases:
            return self._bases[address]
        link = self.path(f"/sys/bus/pci/devices/{address}")
        return "/" + os.path.relpath(os.path.realpath(link), os.path.realpath(self.root))

    def set_attribute(self, address: str | PciAddress, name: str, value: str | bytes) -> SysfsTree:
        """Give a device an attribute, or another value for one. The modalias goes with ids and class, and is not there
        when they are nonsense."""
        base = self.device_path(address)
        self.write(f"{base}/{name}", value if isinstance(value, bytes) or value.endswith("\n") else f"{value}\n")
        if name in _IN_MODALIAS and self.path(f"{base}/modalias").exists():
            self._write_modalias(base)
        return self

    def _write_modalias(self, base: str) -> None:
        try:
            numbers = [int(self.path(f"{base}/{name}").read_text(), 16) for name in _IN_MODALIAS]
        except ValueError:
            self.path(f"{base}/modalias").unlink()
        else:
            self.write(f"{base}/modalias", f"{modalias(numbers[:2], numbers[2:4], numbers[4])}\n")

    def vanish(self, address: str | PciAddress) -> SysfsTree:
        """Take a device away in the middle of a scan: it is in the listings still, and nothing can be read of it."""
        shutil.rmtree(self.path(self.device_path(address)))
        return self

    def add_device(
        self,
        address: str | PciAddress,
        *,
        ids: str = "1234:11e8",
        subsystem: str = "1af4:1100",
        pci_class: int = 0x00FF00,
        driver: str | None = None,
        override: str | None = None,
        group: int | None = None,
        parent: str | PciAddress | None = None,
        bridge: bool = False,
        numa_node: int = -1,
        boot_vga: bool | None = None,
        reset_methods: str | None = "pm bus",
        totalvfs: int | None = None,
        interfaces: Mapping[str, str] | None = None,
        virtio: int | None = None,
        nvme: str | None = None,
        attributes: Mapping[str, str | bytes] | None = None,
    ) -> SysfsTree:
        """Add one function.

        :param ids: ``vendor:device``; ``subsystem`` likewise
        :param driver: the bound driver; its directory below /sys/bus/pci/drivers is made
        :param override: what driver_override holds
        :param group: the IOMMU group's number; the group is made when it is not there (``add_group`` for its details)
        :param parent: the bridge (added before) the device is below
        :param bridge: make it a PCI bridge: class 0x060400 and a ``pci_bus`` directory
        :param totalvfs: make it a PF that can have so many VFs
        :param interfaces: network interface -> MAC address
        :param virtio: number of the virtio device between the function and what it offers
        :param nvme: name of an NVMe controller (``nvme0``), which gets a namespace ``nvme0n1`` as block device
        :param attributes: further attributes, or other values for the usual ones
        """
        address = PciAddress.parse(address)
        vendor, device = ids.split(":")
        subvendor, subdevice = subsystem.split(":")
        if bridge:
            pci_class = 0x060400
        above = f"/sys/devices/pci{address.domain:04x}:00" if parent is None else self.device_path(parent)
        base = f"{above}/{address}"
        self.path(base).mkdir(parents=True)
        self._bases[address] = base
        self.link(f"/sys/bus/pci/devices/{address}", base)
        self.link(f"{base}/subsystem", "/sys/bus/pci")

        values: dict[str, str | bytes] = {
            "vendor": f"0x{vendor}",
            "device": f"0x{device}",
            "subsystem_vendor": f"0x{subvendor}",
            "subsystem_device": f"0x{subdevice}",
            "class": f"0x{pci_class:06x}",
            "revision": "0x01",
            "modalias": modalias(_numbers(ids), _numbers(subsystem), pci_class),
            "driver_override": override or "(null)",
            "numa_node": str(numa_node),
            "enable": "1" if driver else "0",
        }
        if reset_methods:
            values["reset_method"] = reset_methods
        if boot_vga is not None:
            values["boot_vga"] = "1" if boot_vga else "0"
        if totalvfs is not None:
            values.update(sriov_totalvfs=str(totalvfs), sriov_numvfs="0", sriov_drivers_autoprobe="1")
        values.update(attributes or {})
        for name, value in values.items():
            self.write(f"{base}/{name}", value if isinstance(value, bytes) or value.endswith("\n") else f"{value}\n")
        if bridge:
            self.path(f"{base}/pci_bus/{address.domain:04x}:{address.bus + 1:02x}").mkdir(parents=True)
        if driver is not None:
            self.bind(address, driver)
        if group is not None:
            self.join_group(address, group)

        within = base
        if virtio is not None:
            within = f"{base}/virtio{virtio}"
            self.path(within).mkdir()
        for name, mac in (interfaces or {}).items():
            self.add_interface(name, mac, within)
        if nvme is not None:
            self.write(f"{base}/nvme/{nvme}/model", "Test NVMe\n")
            self.add_block_device(f"{nvme}n1", f"{base}/nvme/{nvme}")
        return self

    def add_interface(self, name: str, mac: str, within: str) -> None:
        """Add a network interface to the device in the directory ``within``."""
        self.write(f"{within}/net/{name}/address", f"{mac}\n")
        self.write(f"{within}/net/{name}/operstate", "up\n")
        self.link(f"{within}/net/{name}/device", within)
        self.link(f"/sys/class/net/{name}", f"{within}/net/{name}")

    def add_block_device(self, name: str, within: str, number: str = "259:0", in_block: bool = False) -> SysfsTree:
        """Add a block device below the directory ``within`` (NVMe directly, disks of other drivers in ``block/``)."""
        place = f"{within}/block/{name}" if in_block else f"{within}/{name}"
        self.write(f"{place}/dev", f"{number}\n")
        self.write(f"{place}/size", "2097152\n")
        self.link(f"{place}/subsystem", "/sys/class/block")
        self.link(f"{place}/device", within)
        self.link(f"/sys/block/{name}", place)
        self.link(f"/sys/class/block/{name}", place)
        self.link(f"/sys/dev/block/{number}", place)
        return self

    def add_driver(self, name: str, builtin: bool = False) -> SysfsTree:
        """Register a PCI driver (its module is loaded unless it is built in)."""
        for attribute in ("bind", "unbind", "new_id", "remove_id"):
            if not self.path(f"/sys/bus/pci/drivers/{name}/{attribute}").exists():
                self.write(f"/sys/bus/pci/drivers/{name}/{attribute}", "")
        if not builtin:
            self.path(f"/sys/module/{name.replace('-', '_')}").mkdir(parents=True, exist_ok=True)
        return self

    def set_config(
        self, address: str | PciAddress, *, serial: str | None = None, size: int = 4096, before: int = 0
    ) -> SysfsTree:
        """Give a device a configuration space of ``size`` bytes (64: as the kernel shows it without root rights; 256:
        conventional PCI), with a serial number in lspci's notation behind ``before`` other extended capabilities."""
        return self.set_attribute(address, "config", config_space(serial=serial, size=size, before=before))

    def add_slot(self, name: str, address: str) -> SysfsTree:
        """Add a physical slot; ``address`` as the kernel writes it (``0000:01:00``)."""
        return self.write(f"/sys/bus/pci/slots/{name}/address", f"{address}\n")

    def set_zpci(
        self,
        address: str | PciAddress,
        *,
        fid: int,
        uid: int,
        pchid: int = 0,
        vfn: int = 0,
        unique: bool | None = True,
        slot: bool = True,
    ) -> SysfsTree:
        """Make a device a function of IBM Z, as arch/s390/pci/pci_sysfs.c shows it, with its slot."""
        address = PciAddress.parse(address)
        for name, text in {
            "function_id": f"0x{fid:08x}",
            "uid": f"0x{uid:x}",
            "pchid": f"0x{pchid:04x}",
            "vfn": f"0x{vfn:04x}",
        }.items():
            self.set_attribute(address, name, text)
        if unique is not None:
            self.set_attribute(address, "uid_is_unique", str(int(unique)))
        if slot:
            number = address.slot << 3 | address.function
            self.add_slot(f"{fid:08x}", f"{address.domain:04x}:{address.bus:02x}:{number:02x}")
        return self

    def bind(self, address: str | PciAddress, driver: str | None) -> SysfsTree:
        """Bind a device to a driver (None: to no driver), as far as links show it."""
        address = PciAddress.parse(address)
        base = self.device_path(address)
        link = self.path(f"{base}/driver")
        if link.is_symlink():
            (link.resolve() / str(address)).unlink()
            link.unlink()
        if driver is not None:
            self.add_driver(driver)
            self.link(f"{base}/driver", f"/sys/bus/pci/drivers/{driver}")
            self.link(f"/sys/bus/pci/drivers/{driver}/{address}", base)
        return self

    def add_vfs(
        self,
        pf: str | PciAddress,
        count: int,
        *,
        ids: str = "8086:10ca",
        offset: int = 0x80,
        stride: int = 2,
        first_group: int | None = None,
        **device: Any,
    ) -> list[PciAddress]:
        """Enable VFs of a PF that was added; their routing ids follow offset and stride (82576: 0x80 and 2).

        :param first_group: group of the first VF, each further one has the next; None for no groups
        :param device: what :meth:`add_device` takes, for every VF; ``interfaces`` are not given
        :return: the VFs' addresses by index
        """
        pf = PciAddress.parse(pf)
        pf_path = self.device_path(pf)
        parent_path = self.path(pf_path).parent.name
        try:
            parent = PciAddress.parse(parent_path)
        except Exception:
            parent = None
        device.setdefault("pci_class", 0x020000)
        found = []
        for index in range(count):
            routing = (pf.bus << 8 | pf.slot << 3 | pf.function) + offset + index * stride
            address = PciAddress(pf.domain, routing >> 8, routing >> 3 & 0x1F, routing & 7)
            group = None if first_group is None else first_group + index
            self.add_device(address, ids=ids, group=group, parent=parent, **device)
            self.link(f"{self.device_path(address)}/physfn", pf_path)
            self.link(f"{pf_path}/virtfn{index}", self.device_path(address))
            found.append(address)
        self.set_attribute(pf, "sriov_numvfs", str(count))
        return found

    def add_group(self, group: int, type: str | None = "DMA", reserved: Iterable[str] = (RESERVED_MSI,)) -> SysfsTree:
        """Make an IOMMU group; one that is there stays as it is. ``reserved``: lines ``start end type``."""
        base = f"/sys/kernel/iommu_groups/{group}"
        if not self.path(base).exists():
            self.path(f"{base}/devices").mkdir(parents=True)
            if type is not None:
                self.write(f"{base}/type", f"{type}\n")
            self.write(f"{base}/reserved_regions", "".join(f"{line}\n" for line in reserved))
        return self

    def join_group(self, address: str | PciAddress, group: int) -> SysfsTree:
        """Put a device that was added into an IOMMU group, which is made when it is not there."""
        address = PciAddress.parse(address)
        base = self.device_path(address)
        self.add_group(group)
        self.link(f"/sys/kernel/iommu_groups/{group}/devices/{address}", base)
        return self.link(f"{base}/iommu_group", f"/sys/kernel/iommu_groups/{group}")

    def add_keyboard(
        self, number: int, within: str, keys: str = "1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe"
    ) -> SysfsTree:
        """Add an input device below the directory ``within``; it has a PC keyboard's keys unless told otherwise."""
        place = f"{within}/input/input{number}"
        self.write(f"{place}/name", f"Test Keyboard {number}\n").write(f"{place}/capabilities/key", f"{keys}\n")
        return self.link(f"/sys/class/input/input{number}", place)

    # -- the IOMMU and what it needs ---------------------------------------------------------------------

    def add_vtd(
        self,
        unit: str = "dmar0",
        *,
        ecap: int | None = 0xF00F5A,
        cap: int | None = 0xD2008C22260286,
        table: bool = True,
        flags: int = 0x01,
        active: bool = True,
        structures: bytes = b"",
    ) -> SysfsTree:
        """Intel VT-d: the DMAR table (``flags`` bit 0: interrupt remapping) with structures, and, when active, a unit.

        ``ecap`` has bit 3 (interrupt remapping) set unless told otherwise.
        """
        if table:
            self.write(
                "/sys/firmware/acpi/tables/DMAR", acpi_table(b"DMAR", bytes((38, flags)) + bytes(10) + structures)
            )
        if active:
            if ecap is not None:
                self.write(f"/sys/class/iommu/{unit}/intel-iommu/ecap", f"{ecap:x}\n")
            if cap is not None:
                self.write(f"/sys/class/iommu/{unit}/intel-iommu/cap", f"{cap:x}\n")
            self.write(f"/sys/class/iommu/{unit}/intel-iommu/version", "1:0\n")
        return self

    def add_amdvi(
        self, unit: str = "ivhd0", *, table: bool = True, active: bool = True, blocks: bytes = b""
    ) -> SysfsTree:
        """AMD-Vi: the IVRS table with blocks, and, when active, a unit."""
        if table:
            self.write("/sys/firmware/acpi/tables/IVRS", acpi_table(b"IVRS", bytes(12) + blocks))
        if active:
            self.write(f"/sys/class/iommu/{unit}/amd-iommu/cap", "d0000018\n")
            self.write(f"/sys/class/iommu/{unit}/amd-iommu/features", "29d3\n")
        return self

    def add_smmu(self, unit: str = "smmu3.0x0000000009050000") -> SysfsTree:
        """A unit of an Arm SMMU at work."""
        return self.write(f"/sys/class/iommu/{unit}/uevent", "")

    def add_node(self, path: str, compatible: str, **properties: str | bytes) -> SysfsTree:
        """A node of the device tree; an underscore in a property's name is a dash, ``cells_iommu`` is #iommu-cells."""
        base = f"/sys/firmware/devicetree/base{path}"
        self.write(f"{base}/compatible", "".join(f"{name}\0" for name in compatible.split()))
        for name, value in properties.items():
            name = (
                "#iommu-cells" if name == "cells_iommu" else name if name == "device_type" else name.replace("_", "-")
            )
            self.write(f"{base}/{name}", f"{value}\0" if isinstance(value, str) else value)
        return self

    def add_zpci(self, address: str, fid: int, *, unit: bool = True, power: int = 1, **options: Any) -> SysfsTree:
        """A PCI function of IBM Z with its slot and, unless told otherwise, its IOMMU; in standby there is the slot."""
        self.write(f"/sys/bus/pci/slots/{fid:08x}/power", f"{power}\n")
        if power:
            self.add_device(address, **options)
            if unit:
                self.link(f"/sys/class/iommu/s390-iommu.{fid:08x}/devices/{address}", self.device_path(address))
        return self

    def set_cmdline(self, line: str) -> SysfsTree:
        """The command line of the running kernel."""
        return self.write("/proc/cmdline", f"{line}\n")

    def set_cpu(self, vendor: str = "GenuineIntel", flags: str = "fpu vmx") -> SysfsTree:
        """/proc/cpuinfo of one x86 processor."""
        return self.write("/proc/cpuinfo", f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n\n")

    def add_modules(self, available: Iterable[str] = (), builtin: Iterable[str] = ()) -> SysfsTree:
        """What the running kernel has: paths below /lib/modules/VERSION (``kernel/drivers/vfio/pci/vfio-pci.ko``)."""
        base = f"/lib/modules/{self.kernel}"
        self.write(f"{base}/modules.dep", "".join(f"{path}:\n" for path in available))
        return self.write(f"{base}/modules.builtin", "".join(f"{path}\n" for path in builtin))

    def add_aliases(self, *aliases: str) -> SysfsTree:
        """modules.alias of the running kernel, as depmod writes it; ``aliases``: ``pci:v00008086d* igb``."""
        lines = "".join(f"alias {alias}\n" for alias in aliases)
        return self.write(
            f"/lib/modules/{self.kernel}/modules.alias", f"# Aliases extracted from modules themselves.\n{lines}"
        )


def config_space(
    *,
    ids: str = "8086:1510",
    subsystem: str = "0000:0000",
    pci_class: int = 0,
    revision: int = 0,
    serial: str | None = None,
    size: int = 4096,
    before: int = 0,
) -> bytes:
    """A configuration space: the header (type 1 for a bridge, which has no subsystem there), zeros, and from 0x100 on
    a list of extended capabilities (PCI Express Base Specification).

    :param serial: 16 hexadecimal digits, highest byte first, with any separators
    :param size: how much of it there is
    :param before: how many other capabilities (AER) stand before the serial number
    """
    is_bridge = pci_class >> 8 == 0x0604
    header = struct.pack("<HH4xI2xB", *_numbers(ids), pci_class << 8 | revision, int(is_bridge))
    header += bytes(0x2C - len(header)) + struct.pack("<HH", *_numbers("0:0" if is_bridge else subsystem))
    contents = [(0x0001, bytes(0x3C))] * before
    if serial is not None:
        contents.append((0x0003, bytes.fromhex(serial.replace("-", "").replace(":", ""))[::-1]))
    capabilities = b""
    for number, (identity, body) in enumerate(contents, 1):
        following = 0x100 + len(capabilities) + 4 + len(body) if number < len(contents) else 0
        capabilities += (following << 20 | 1 << 16 | identity).to_bytes(4, "little") + body
    return (header.ljust(0x100, b"\0") + capabilities).ljust(4096, b"\0")[:size]


def modalias(ids: Sequence[int], subsystem: Sequence[int], pci_class: int) -> str:
    """A PCI device's modalias (drivers/pci/pci-sysfs.c, ``modalias_show``)."""
    numbers = f"v{ids[0]:08X}d{ids[1]:08X}sv{subsystem[0]:08X}sd{subsystem[1]:08X}"
    return f"pci:{numbers}bc{pci_class >> 16:02X}sc{pci_class >> 8 & 0xFF:02X}i{pci_class & 0xFF:02X}"


def _numbers(ids: str) -> tuple[int, ...]:
    return tuple(int(text, 16) for text in ids.split(":"))


def acpi_table(signature: bytes, body: bytes) -> bytes:
    """An ACPI table: the 36-byte header (ACPI specification, 5.2.6) with a right length and checksum, and a body."""
    header = signature + (36 + len(body)).to_bytes(4, "little") + b"\x01\x00" + b"TEST  " + b"TESTTBL "
    header += (1).to_bytes(4, "little") + b"TEST" + (1).to_bytes(4, "little")
    table = bytearray(header + body)
    table[9] = -sum(table) & 0xFF
    return bytes(table)
