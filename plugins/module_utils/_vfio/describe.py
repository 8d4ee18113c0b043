# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One PCI device as pci_device_info shows it."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from .._core.host import Host
from .._pci.device import Bus, PciDevice, is_vfio_driver
from .._pci.link import Link
from .._pci.modalias import ModuleAliases
from .._pci.numbers import integer
from .._pci.zpci import Zpci
from .evidence import EvidenceMissing, demand_the_hosts_network
from .guards.base import GuardContext
from .topology import CLASS_BLOCK, CLASS_NET
from .variant import VariantDrivers
from .verdict import is_assignable, obstacles

# include/linux/blk_types.h, SECTOR_SIZE: what the kernel counts sizes in, whatever the sectors of the disk are.
SECTOR = 512

Subject = TypeVar("Subject")
Answer = TypeVar("Answer")


class Describer:
    """Describes the devices of one host at one moment. What several devices share is found out once.

    :param with_uses: whether to find out what the host uses its devices for, and what that means for giving them away
    """

    def __init__(self, host: Host, bus: Bus, with_uses: bool = True) -> None:
        self._host = host
        self._bus = bus
        self._with_uses = with_uses
        self._context = GuardContext(host, bus)
        self._aliases = ModuleAliases(host)
        self._variants = VariantDrivers(host, self._aliases)
        self.unknown: dict[str, None] = {}
        """What could not be found out, and why, as phrases in the order in which it was met."""

    def describe(self, device: PciDevice) -> dict[str, Any]:
        """What there is to know about a device, as JSON values; null stands for what is not known or not there.

        :raises PassthroughError: ``device_vanished`` when it is removed meanwhile, ``attribute_invalid``
        """
        return {
            **self._identity(device),
            **self._drivers(device),
            **self._assignability(device),
            **self._place(device),
            **self._functions(device),
            "reset_methods": device.reset_methods,
            "interfaces": self._interfaces(device),
            "block_devices": self._block_devices(device),
            "drm": self._context.topology.drm_nodes(device),
            "xml": device.address.xml_attributes,
        }

    # -- what it is --------------------------------------------------------------------------------------

    def _identity(self, device: PciDevice) -> dict[str, Any]:
        if not device.serial_readable:
            self._note("serial", "only root can read the configuration space of a device beyond its first 64 bytes")
        return {
            "address": str(device.address),
            "nodedev_name": device.address.nodedev_name,
            "ids": device.ids,
            "vendor_id": f"{device.vendor_id:04x}",
            "device_id": f"{device.device_id:04x}",
            "subsystem_vendor_id": f"{device.subsystem_vendor_id:04x}",
            "subsystem_device_id": f"{device.subsystem_device_id:04x}",
            "revision": f"{device.revision:02x}",
            "vendor_name": device.vendor_name,
            "device_name": device.device_name,
            "subsystem_name": device.subsystem_name,
            "pci_class": f"{device.pci_class:06x}",
            "class_name": device.class_name,
            "serial": device.serial,
            "zpci": _zpci(device.zpci),
        }

    def _drivers(self, device: PciDevice) -> dict[str, Any]:
        modules = self._aliases.modules(device.modalias)
        if modules is None and device.modalias is not None:
            self._note("modules, variant_drivers", "the running kernel's modules.alias cannot be read")
        cdevs = device.vfio_cdevs if is_vfio_driver(device.driver) else []
        return {
            "driver": device.driver,
            "driver_override": device.driver_override,
            "modules": modules,
            "variant_drivers": self._variants.of(device.modalias),
            "vfio_device": f"/dev/vfio/devices/{cdevs[0]}" if cdevs else None,
        }

    def _functions(self, device: PciDevice) -> dict[str, Any]:
        siblings = [address for address in device.siblings if address != device.address]
        return {
            "is_bridge": device.is_bridge,
            "boot_vga": device.boot_vga,
            "multifunction": bool(siblings),
            "siblings": [str(address) for address in siblings],
            "pf": None if device.pf is None else str(device.pf),
            "vf": device.vf_index,
            "vfs": [str(address) for address in device.vfs],
            "sriov_numvfs": device.sriov_numvfs,
            "sriov_totalvfs": device.sriov_totalvfs,
        }

    # -- where it is -------------------------------------------------------------------------------------

    def _place(self, device: PciDevice) -> dict[str, Any]:
        group = device.iommu_group
        return {
            "iommu_group": None if group is None else self._context.group(group).as_result(),
            "physical_slot": device.physical_slot,
            "numa_node": device.numa_node,
            "link": _link(device.link),
            "power_state": device.attribute("power_state"),
        }

    # -- what it is used for -----------------------------------------------------------------------------

    def _assignability(self, device: PciDevice) -> dict[str, Any]:
        if not self._with_uses:
            return {"assignable": None, "obstacles": None, "held_by": None}
        findings = obstacles(device, self._context)
        holders = self._known("held_by", self._context.holders.of, device)
        return {
            "assignable": is_assignable(findings),
            "obstacles": [finding.as_result() for finding in findings],
            "held_by": None
            if holders is None
            else [{"pid": each.pid, "command": each.command, "domain": each.domain} for each in holders],
        }

    def _interfaces(self, device: PciDevice) -> list[dict[str, Any]]:
        self._known("interfaces", demand_the_hosts_network, self._host)
        network = self._context.network
        return [
            {
                "name": name,
                "mac": self._host.attribute(f"{CLASS_NET}/{name}/address"),
                "operstate": self._host.attribute(f"{CLASS_NET}/{name}/operstate"),
                "uses": self._uses("uses of network interfaces", network.uses, name),
            }
            for name in self._context.topology.own_interfaces(device)
        ]

    def _block_devices(self, device: PciDevice) -> list[dict[str, Any]]:
        storage = self._context.storage
        found = []
        for name in self._context.topology.own_block_devices(device):
            if storage.is_partition(name):
                continue  # its uses are those of its disk, which is here as well
            sectors = integer(self._host.attribute(f"{CLASS_BLOCK}/{name}/size"))
            found.append(
                {
                    "name": name,
                    "size": None if sectors is None else sectors * SECTOR,
                    "model": self._host.attribute(f"{CLASS_BLOCK}/{name}/device/model"),
                    "uses": self._uses("uses of block devices", storage.uses, name),
                }
            )
        return found

    def _uses(self, what: str, ask: Callable[[str], list[str]], name: str) -> list[str] | None:
        return self._known(what, ask, name) if self._with_uses else None

    def _known(self, what: str, ask: Callable[[Subject], Answer], subject: Subject) -> Answer | None:
        """An answer, or None when the evidence for it is out of reach, which is noted."""
        try:
            return ask(subject)
        except EvidenceMissing as error:
            self._note(what, str(error))
            return None

    def _note(self, what: str, why: str) -> None:
        self.unknown[f"{what}: {why}"] = None


def _zpci(zpci: Zpci | None) -> dict[str, Any] | None:
    """In the notation of libvirt's ``<zpci uid='0x0001' fid='0x00000000'/>``."""
    if zpci is None:
        return None
    return {
        "uid": None if zpci.uid is None else f"0x{zpci.uid:04x}",
        "fid": f"0x{zpci.fid:08x}",
        "pchid": None if zpci.pchid is None else f"0x{zpci.pchid:04x}",
        "vfn": zpci.vfn,
        "uid_is_unique": zpci.uid_is_unique,
    }


def _link(link: Link | None) -> dict[str, Any] | None:
    if link is None:
        return None
    return {
        "speed": link.speed,
        "width": link.width,
        "max_speed": link.max_speed,
        "max_width": link.max_width,
        "below_maximum": _is_below_maximum(link),
    }


def _is_below_maximum(link: Link) -> bool | None:
    """Whether the link runs slower or narrower than the function could; None when that is not known."""
    pairs = []
    if link.speed is not None and link.max_speed is not None:
        pairs.append((float(link.speed.split()[0]), float(link.max_speed.split()[0])))
    if link.width is not None and link.max_width is not None:
        pairs.append((float(link.width), float(link.max_width)))
    if any(now < most for now, most in pairs):
        return True
    return False if len(pairs) == 2 else None
