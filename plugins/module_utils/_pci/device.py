# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI functions as the kernel shows them in sysfs, read when asked for and no more than once.

Sources: Documentation/ABI/testing/sysfs-bus-pci, sysfs-kernel-iommu_groups.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter

from .._core.errors import PassthroughError
from .._core.host import Host
from .address import PciAddress
from .classes import class_name
from .config_space import Serial, read_serial
from .link import Link, link_speed, link_width
from .names import PciNames
from .numbers import integer
from .zpci import Zpci

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
SLOTS = "/sys/bus/pci/slots"
IOMMU_GROUPS = "/sys/kernel/iommu_groups"

# drivers/pci/pci-sysfs.c, ``driver_override_show``, and drivers/pci/iov.c, ``sriov_numvfs_show``.
LOCKED_ATTRIBUTES = ("driver_override", "sriov_numvfs")
"""What the kernel shows only under the device's lock, which a driver that hangs in probe or remove never gives back."""

LOCK_TIMEOUT = 10.0
"""Seconds. A driver that is just being bound holds the lock for as long as its probe takes."""

UNREADABLE_DEVICE = frozenset(("device_not_found", "device_vanished", "attribute_invalid", "device_hangs"))
"""The codes of errors that say a single device cannot be looked at; a scan goes on without it."""

# PCI Code and ID Assignment Specification, base class 06h, sub-class 04h: PCI-to-PCI bridge.
CLASS_PCI_BRIDGE = 0x0604

# drivers/pci/pci-sysfs.c, modalias_show()
_MODALIAS = re.compile(
    r"pci:v0000([0-9A-F]{4})d0000([0-9A-F]{4})sv0000([0-9A-F]{4})sd0000([0-9A-F]{4})"
    r"bc([0-9A-F]{2})sc([0-9A-F]{2})i([0-9A-Fa-f]{2})"
)
_FID_SLOT = re.compile(r"[0-9a-f]{8}")


def is_vfio_driver(name: str | None) -> bool:
    """Whether a driver hands devices to user space through VFIO (``vfio-pci``, ``mlx5_vfio_pci``, …)."""
    return name is not None and "vfio" in name.replace("-", "_").split("_")


@dataclass(frozen=True)
class ReservedRegion:
    """One line of an IOMMU group's ``reserved_regions``: first and last address (inclusive) and the kernel's type."""

    start: int
    end: int
    type: str

    @classmethod
    def parse(cls, line: str) -> ReservedRegion | None:
        """A line such as ``0x00000000fee00000 0x00000000feefffff msi``; None when it is none."""
        fields = line.split()
        if len(fields) != 3:
            return None
        start, end = integer(fields[0], 16), integer(fields[1], 16)
        return None if start is None or end is None else cls(start, end, fields[2])


class PciDevice:
    """One PCI function. Attributes are read on first use and then kept, so an object is a consistent picture
    of one moment only as far as it was looked at; make a new :class:`Bus` after a change."""

    def __init__(self, host: Host, address: PciAddress, bus: Bus) -> None:
        self._host = host
        self._bus = bus
        self.address = address
        self.name = str(address)
        self.path = f"{DEVICES}/{self.name}"

    def __repr__(self) -> str:
        return f"PciDevice({self.name})"

    def attribute(self, name: str) -> str | None:
        """A sysfs attribute of the device, stripped; None when it has none or it cannot be read."""
        return self._host.attribute(f"{self.path}/{name}")

    def _hex(self, name: str) -> int:
        text = self.attribute(name)
        if text is None:
            raise PassthroughError(
                "device_vanished",
                f"The attribute {name!r} of the PCI device {self.address} cannot be read: "
                "the device was removed meanwhile, or sysfs is not shown in full here.",
                device=str(self.address),
            )
        number = integer(text, 16)
        if number is None:
            raise PassthroughError(
                "attribute_invalid",
                f"The attribute {name!r} of the PCI device {self.address} is {text!r}, which is no hexadecimal number.",
                device=str(self.address),
            )
        return number

    @cached_property
    def _ids(self) -> re.Match[str] | None:
        """Ids and class in one read: the modalias is made of the very fields that five attributes show one by one."""
        return _MODALIAS.fullmatch(self.modalias or "")

    @cached_property
    def vendor_id(self) -> int:
        """Vendor id, 16 bits."""
        return int(self._ids[1], 16) if self._ids else self._hex("vendor")

    @cached_property
    def device_id(self) -> int:
        """Device id, 16 bits."""
        return int(self._ids[2], 16) if self._ids else self._hex("device")

    @cached_property
    def subsystem_vendor_id(self) -> int:
        """Subsystem vendor id, 16 bits."""
        return int(self._ids[3], 16) if self._ids else self._hex("subsystem_vendor")

    @cached_property
    def subsystem_device_id(self) -> int:
        """Subsystem device id, 16 bits."""
        return int(self._ids[4], 16) if self._ids else self._hex("subsystem_device")

    @cached_property
    def pci_class(self) -> int:
        """Class code, 24 bits: base class, sub-class, programming interface."""
        return int(self._ids[5] + self._ids[6] + self._ids[7], 16) if self._ids else self._hex("class")

    @cached_property
    def revision(self) -> int:
        """Revision id, 8 bits."""
        return self._hex("revision")

    @cached_property
    def is_bridge(self) -> bool:
        """Whether this is a PCI-to-PCI bridge: by class, or because the kernel hangs a bus below it."""
        return self.pci_class >> 8 == CLASS_PCI_BRIDGE or self._host.is_dir(f"{self.path}/pci_bus")

    @cached_property
    def driver(self) -> str | None:
        """The name of the driver that is bound (``vfio-pci``), or None."""
        return self._host.link_name(f"{self.path}/driver")

    @cached_property
    def driver_override(self) -> str | None:
        """The only driver the kernel may bind, or None when it chooses by ids. The kernel shows "(null)" for none."""
        text = self._bus.locked_attribute(self, "driver_override")
        return None if text in (None, "", "(null)") else text

    @cached_property
    def numa_node(self) -> int | None:
        """The NUMA node, or None when the platform names none (the kernel says -1)."""
        return integer(self.attribute("numa_node"))

    @cached_property
    def modalias(self) -> str | None:
        """What udev hands to modprobe for this device."""
        return self.attribute("modalias")

    @cached_property
    def boot_vga(self) -> bool:
        """Whether the firmware used this device as the console display."""
        return self.attribute("boot_vga") == "1"

    @cached_property
    def reset_methods(self) -> list[str]:
        """The ways in which the kernel can reset the device, in its order of preference (attribute since 5.15)."""
        return (self.attribute("reset_method") or "").split()

    # -- what tells one card from another of its kind ---------------------------------------------------

    @cached_property
    def _serial(self) -> Serial:
        with self._host.reader(f"{self.path}/config") as read:
            return read_serial(read)

    @property
    def serial(self) -> str | None:
        """The PCI Express device serial number as lspci prints it (``00-1b-21-ff-ff-aa-bb-cc``), which the functions
        of a card share; None when there is none or :attr:`serial_readable` is false."""
        return self._serial.number

    @property
    def serial_readable(self) -> bool:
        """Whether it is known if there is a serial number. Only root can read the extended configuration space."""
        return self._serial.readable

    @cached_property
    def physical_slot(self) -> str | None:
        """The name of the slot of the machine that the device is in (as ``PhySlot`` of lspci), or None."""
        return self._bus.physical_slot(self)

    @cached_property
    def link(self) -> Link | None:
        """The PCI Express link; None when nothing is known of one (conventional PCI, a VF)."""
        speed = self.attribute("current_link_speed")
        if speed is None:
            return None
        link = Link(
            speed=link_speed(speed),
            width=link_width(self.attribute("current_link_width")),
            max_speed=link_speed(self.attribute("max_link_speed")),
            max_width=link_width(self.attribute("max_link_width")),
        )
        return link if link.is_known else None

    @cached_property
    def fid(self) -> int | None:
        """The function id on IBM Z, 32 bits; None elsewhere."""
        return integer(self.attribute("function_id"), 16)

    @cached_property
    def uid(self) -> int | None:
        """The user-defined id on IBM Z, 16 bits; None elsewhere."""
        return integer(self.attribute("uid"), 16)

    @cached_property
    def zpci(self) -> Zpci | None:
        """The identity of the function on IBM Z, None elsewhere."""
        if self.fid is None:
            return None
        unique = integer(self.attribute("uid_is_unique"))
        return Zpci(
            uid=self.uid,
            fid=self.fid,
            pchid=integer(self.attribute("pchid"), 16),
            vfn=integer(self.attribute("vfn"), 16),
            uid_is_unique=None if unique is None else unique == 1,
        )

    # -- IOMMU ------------------------------------------------------------------------------------------

    @cached_property
    def iommu_group(self) -> int | None:
        """The number of the IOMMU group, valid for this boot only; None without an active IOMMU."""
        return integer(self._host.link_name(f"{self.path}/iommu_group"))

    @cached_property
    def group_members(self) -> list[PciAddress]:
        """Every device of the same IOMMU group, this one included, in bus order; empty without a group."""
        return [] if self.iommu_group is None else self._bus.group_members(self.iommu_group)

    # -- SR-IOV and multifunction -----------------------------------------------------------------------

    @cached_property
    def pf(self) -> PciAddress | None:
        """The physical function this is a virtual function of, or None."""
        name = self._host.link_name(f"{self.path}/physfn")
        return None if name is None else PciAddress.from_sysfs(name)

    @cached_property
    def vfs_by_index(self) -> dict[int, PciAddress]:
        """The virtual functions that exist now: VF index -> address; empty for anything but a PF with VFs."""
        found = {}
        for name in self._entries:
            if name.startswith("virtfn") and name[6:].isdecimal():
                address = PciAddress.from_sysfs(self._host.link_name(f"{self.path}/{name}") or "")
                if address is not None:
                    found[int(name[6:])] = address
        return dict(sorted(found.items()))

    @cached_property
    def _index_of_vf(self) -> dict[PciAddress, int]:
        return {address: index for index, address in self.vfs_by_index.items()}

    @property
    def vfs(self) -> list[PciAddress]:
        """The virtual functions that exist now, by VF index; empty for anything but a PF with VFs."""
        return list(self.vfs_by_index.values())

    @cached_property
    def vf_index(self) -> int | None:
        """Which VF of its PF this is, from 0 on; None for anything but a VF."""
        if self.pf is None or self.pf not in self._bus:
            return None
        return self._bus.device(self.pf)._index_of_vf.get(self.address)

    @cached_property
    def sriov_totalvfs(self) -> int | None:
        """How many VFs the device can have, or None when it is no PF."""
        return integer(self.attribute("sriov_totalvfs"))

    @cached_property
    def sriov_numvfs(self) -> int | None:
        """How many VFs are enabled, or None when it is no PF."""
        return integer(self._bus.locked_attribute(self, "sriov_numvfs"))

    @cached_property
    def siblings(self) -> list[PciAddress]:
        """Every function that exists in the same slot, this one included, in order."""
        return self._bus.slot(self.address)

    # -- what the host does with it ---------------------------------------------------------------------

    @cached_property
    def interfaces(self) -> list[str]:
        """The network interfaces the device has in the module's network namespace (those of virtio devices too)."""
        return sorted(self._class_children("net"))

    @cached_property
    def vfio_cdevs(self) -> list[str]:
        """The device's nodes in /dev/vfio/devices (``vfio3``), while a VFIO driver has it (since Linux 6.6)."""
        return self._host.list_dir(f"{self.path}/vfio-dev")

    def _class_children(self, kind: str) -> list[str]:
        names = []
        for child in self._entries:
            if child == kind:
                names += self._host.list_dir(f"{self.path}/{kind}")
            # virtio-pci: the interface hangs below virtioN, which hangs below the PCI device.
            elif child.startswith("virtio"):
                names += self._host.list_dir(f"{self.path}/{child}/{kind}")
        return names

    @cached_property
    def _entries(self) -> list[str]:
        """The names in the device's directory."""
        return self._host.list_dir(self.path)

    def mac_addresses(self) -> dict[str, str]:
        """The present MAC address (lower case, colons) of each of :attr:`interfaces`."""
        found = {}
        for name in self.interfaces:
            mac = self._host.attribute(f"/sys/class/net/{name}/address")
            if mac:
                found[name] = mac.lower()
        return found

    # -- words ------------------------------------------------------------------------------------------

    @property
    def ids(self) -> str:
        """Vendor and device id as lspci prints them: ``8086:10ca``."""
        return f"{self.vendor_id:04x}:{self.device_id:04x}"

    @property
    def key(self) -> str:
        """What records call the device: address and ids, so that another one in its place is not taken for it."""
        return f"{self.address} {self.ids}"

    @property
    def class_name(self) -> str:
        """What the class code is called."""
        return class_name(self.pci_class)

    @property
    def vendor_name(self) -> str | None:
        """The vendor's name from the host's pci.ids, or None."""
        return self._bus.names.vendor(self.vendor_id)

    @property
    def device_name(self) -> str | None:
        """The device's name from the host's pci.ids, or None."""
        return self._bus.names.device(self.vendor_id, self.device_id)

    @property
    def subsystem_name(self) -> str | None:
        """The name of the card the device is on from the host's pci.ids, or None. As with lspci (libpci's names.c),
        subsystem ids that repeat the device's own mean its own name."""
        own = (self.vendor_id, self.device_id)
        card = (self.subsystem_vendor_id, self.subsystem_device_id)
        return self._bus.names.subsystem(*own, *card) or (self.device_name if own == card else None)

    @property
    def line(self) -> str:
        """The device in one line for people; only the address when it was removed meanwhile."""
        try:
            parts = [f"{self.address} [{self.ids}] {self.class_name}"]
            parts += [self.device_name] if self.device_name else []
        except PassthroughError:
            return str(self.address)
        parts += [f"driver {self.driver}" if self.driver else "no driver"]
        parts += [f"interface {', '.join(self.interfaces)}"] if self.interfaces else []
        return ", ".join(parts)


class Bus:
    """The PCI functions of a host at one moment."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._devices: dict[PciAddress, PciDevice] = {}
        self._members: dict[int, list[PciAddress]] = {}
        self._locked: dict[str, str | PassthroughError | None] = {}

    @cached_property
    def names(self) -> PciNames:
        """The names of vendors and devices."""
        return PciNames(self._host)

    @cached_property
    def addresses(self) -> list[PciAddress]:
        """Every function's address, in bus order. Empty on a host without PCI."""
        return _sorted_addresses(self._host.list_dir(DEVICES))

    @cached_property
    def _listed(self) -> frozenset[PciAddress]:
        return frozenset(self.addresses)

    @cached_property
    def _slots(self) -> dict[tuple[int, int, int], list[PciAddress]]:
        found: dict[tuple[int, int, int], list[PciAddress]] = {}
        for address in self.addresses:
            found.setdefault((address.domain, address.bus, address.slot), []).append(address)
        return found

    def slot(self, address: PciAddress) -> list[PciAddress]:
        """Every function that exists in the slot of an address, in order."""
        return self._slots.get((address.domain, address.bus, address.slot), [])

    @cached_property
    def _physical_slots(self) -> dict[str, str]:
        """Name of a physical slot -> its address."""
        return {name: self._host.attribute(f"{SLOTS}/{name}/address") or "" for name in self._host.list_dir(SLOTS)}

    @cached_property
    def _physical_slots_by_address(self) -> dict[str, str]:
        # Two names for one address: as with lspci, the first counts.
        return {address: name for name, address in reversed(self._physical_slots.items())}

    def physical_slot(self, device: PciDevice) -> str | None:
        """The name of the slot of the machine that a device is in, or None when firmware and hotplug drivers name none.

        A slot's ``address`` is domain, bus and slot number (drivers/pci/slot.c, ``address_read_file``). On IBM Z each
        function has a slot of its own, named after its fid (s390_pci_hpc.c, ``zpci_init_slot``), and the address of
        that slot ends with slot and function in one number, so it goes by name there.
        """
        if not self._physical_slots:
            return None
        if self._slots_named_like_fids and device.fid is not None:
            name = f"{device.fid:08x}"
            return name if name in self._physical_slots else None
        return self._physical_slots_by_address.get(str(device.address).rpartition(".")[0])

    @cached_property
    def _slots_named_like_fids(self) -> bool:
        return any(_FID_SLOT.fullmatch(name) for name in self._physical_slots)

    def __contains__(self, address: PciAddress) -> bool:
        return self._find(address) is not None

    def device(self, address: PciAddress) -> PciDevice:
        """The device at an address; the same object for the same address.

        :raises PassthroughError: ``device_not_found``
        """
        device = self._find(address)
        if device is None:
            raise PassthroughError(
                "device_not_found",
                f"There is no PCI device {address} on this host.",
                "Look at kvm.passthrough.pci_device_info; addresses move when hardware is added or removed.",
                device=str(address),
            )
        return device

    def _find(self, address: PciAddress) -> PciDevice | None:
        device = self._devices.get(address)
        if device is None:
            # What was listed is there; asking again for each of thousands is what a scan cannot afford.
            listed = "addresses" in self.__dict__ and address in self._listed
            if listed or self._host.exists(f"{DEVICES}/{address}"):
                device = self._devices[address] = self._make(address)
        return device

    def _make(self, address: PciAddress) -> PciDevice:
        return PciDevice(self._host, address, self)

    def devices(self) -> list[PciDevice]:
        """Every device, in bus order."""
        return [self.device(address) for address in self.addresses]

    def locked_attribute(self, device: PciDevice, name: str) -> str | None:
        """One of :data:`LOCKED_ATTRIBUTES`, stripped; None when the device has none.

        :raises PassthroughError: ``device_hangs`` with ``reboot_required`` when the kernel does not answer in time
        """
        path = f"{device.path}/{name}"
        if path not in self._locked:
            self._locked.update(dict.fromkeys((path,)) if not self._host.exists(path) else self._in_time([path]))
        return self._answer(device, path)

    def read_locked_attributes(self, devices: Iterable[PciDevice]) -> None:
        """Read :data:`LOCKED_ATTRIBUTES` of many devices at once, which costs one child process instead of one each.

        Nothing is raised here: a device that hangs says so when it is asked for its attribute.
        """
        paths = [f"{device.path}/{name}" for device in devices for name in LOCKED_ATTRIBUTES]
        self._locked.update(self._in_time([path for path in paths if self._host.exists(path)]))

    def _in_time(self, paths: Sequence[str]) -> dict[str, str | PassthroughError | None]:
        found: dict[str, str | PassthroughError | None] = {}
        left = list(paths)
        while left:
            try:
                found.update(self._host.attributes_in_time(left, LOCK_TIMEOUT))
                return found
            except PassthroughError as error:
                if error.code != "attribute_read_timeout":
                    raise
                # Every further attribute of this device would wait for the same lock.
                directory = str(error.problems[0].details["path"]).rpartition("/")[0]
                found.update({path: error for path in left if path.startswith(f"{directory}/")})
                left = [path for path in left if path not in found]
        return found

    def _answer(self, device: PciDevice, path: str) -> str | None:
        answer = self._locked[path]
        if isinstance(answer, PassthroughError):
            raise PassthroughError(
                "device_hangs",
                f"The kernel hangs over {device.address}: it did not show {path} within {LOCK_TIMEOUT:g} s, because "
                "a driver that takes the device, or lets go of it, does not come to an end.",
                "End what uses the device (dmesg, and the processes with files in /dev/vfio open, tell); where that "
                "does not help, reboot the host.",
                device=str(device.address),
                reboot_required=True,
            ) from answer
        return answer

    def groups(self) -> list[int]:
        """The numbers of all IOMMU groups, ascending; empty without an active IOMMU."""
        return self._groups

    @cached_property
    def _groups(self) -> list[int]:
        found = (integer(name) for name in self._host.list_dir(IOMMU_GROUPS))
        return sorted(number for number in found if number is not None)

    def group_members(self, group: int) -> list[PciAddress]:
        """The PCI devices of an IOMMU group, in bus order (other devices, as on Arm platforms, are left out)."""
        if group not in self._members:
            self._members[group] = _sorted_addresses(self._host.list_dir(f"{IOMMU_GROUPS}/{group}/devices"))
        return self._members[group]

    def group_type(self, group: int) -> str | None:
        """The default domain type of a group (``DMA``, ``DMA-FQ``, ``identity``; attribute since 5.11), or None."""
        return self._host.attribute(f"{IOMMU_GROUPS}/{group}/type")

    def reserved_regions(self, group: int) -> list[ReservedRegion]:
        """The reserved regions of a group, as the kernel lists them; lines that are none are left out."""
        text = self._host.attribute(f"{IOMMU_GROUPS}/{group}/reserved_regions") or ""
        regions = (ReservedRegion.parse(line) for line in text.splitlines())
        return [region for region in regions if region is not None]


def _sorted_addresses(names: Iterable[str]) -> list[PciAddress]:
    """The PCI functions among the names of sysfs entries, in bus order."""
    found = (PciAddress.from_sysfs(name) for name in names)
    return sorted((address for address in found if address is not None), key=attrgetter("order"))
