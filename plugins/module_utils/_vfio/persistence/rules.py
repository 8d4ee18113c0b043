# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The udev rules that give devices to a VFIO driver at every boot, before the host's driver can have them.

Three things can happen to a device that appears, and a rule has to be right for each:

- No driver has it yet (its module is still to be loaded, at a usual boot or in the initramfs): the override is set
  while the rule is processed, so before udev loads any module for the device, and from then on no other driver may
  have it. Then the VFIO driver's module is loaded, which takes the device when it is the first such device.
- The VFIO driver was registered before: then nobody looks at the device again, so the rule asks the kernel to.
- A driver that is built in, or was faster, has it already: it is unbound first. That happens where the settings of
  modprobe do not help (see :mod:`.modprobe`), and it is the last resort: not every driver lets go.

A rule matches the address and the ids, so it does not fire for another device that was put in the same place.

Sources: udev(7); systemd's 80-drivers.rules, which loads modules by alias and is sorted after this file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..._core.errors import PassthroughError
from ..._pci.address import PciAddress
from ..._pci.device import PciDevice

RULES_NAME = "70-kvm-passthrough.rules"
RULES_PATH = f"/etc/udev/rules.d/{RULES_NAME}"

_HEADER = """\
# Written by kvm.passthrough.vfio_devices, which reads it, too: it replaces or removes the whole file.
# Devices that go to guests, each by its address and its ids.
"""

_HOST_DRIVERS = "\n# Drivers of the host for it: {}"

# The shell of an initramfs is small; test and echo are all it takes. udev puts the address in the place of $kernel.
_RULE = """
ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{address}", \\
  ATTR{{vendor}}=="0x{vendor:04x}", ATTR{{device}}=="0x{device:04x}", \\
  ATTR{{subsystem_vendor}}=="0x{subsystem_vendor:04x}", ATTR{{subsystem_device}}=="0x{subsystem_device:04x}", \\
  ATTR{{driver_override}}="{driver}", RUN{{builtin}}+="kmod load {driver}", \\
  RUN+="/bin/sh -c '\
[ -e /sys/bus/pci/drivers/{driver}/$kernel ] || {{ \
[ ! -e /sys/bus/pci/devices/$kernel/driver ] || echo $kernel >/sys/bus/pci/devices/$kernel/driver/unbind; \
echo $kernel >/sys/bus/pci/drivers_probe; }}'"
"""

_PARSED = re.compile(
    r'(?:# Drivers of the host for it: (?P<host_drivers>[^\n]*)\nACTION=="add", SUBSYSTEM=="pci", )?'
    r'KERNEL=="(?P<address>[0-9a-f:.]+)",[\s\\]*'
    r'ATTR\{vendor\}=="0x(?P<vendor>[0-9a-f]{4})",[\s\\]*'
    r'ATTR\{device\}=="0x(?P<device>[0-9a-f]{4})",[\s\\]*'
    r'ATTR\{subsystem_vendor\}=="0x(?P<subsystem_vendor>[0-9a-f]{4})",[\s\\]*'
    r'ATTR\{subsystem_device\}=="0x(?P<subsystem_device>[0-9a-f]{4})",[\s\\]*'
    r'ATTR\{driver_override\}="(?P<driver>[A-Za-z0-9_-]+)"'
)
_IDS = ("vendor", "device", "subsystem_vendor", "subsystem_device")


@dataclass(frozen=True, order=True)
class PersistentDevice:
    """A device and the driver it gets at every boot."""

    address: PciAddress
    vendor: int
    device: int
    subsystem_vendor: int
    subsystem_device: int
    driver: str
    host_drivers: tuple[str, ...] = ()
    """The modules that would take it: see :mod:`.modprobe`."""

    @classmethod
    def of(cls, device: PciDevice, driver: str, host_drivers: tuple[str, ...] = ()) -> PersistentDevice:
        """The device as it is, with the driver it is to get."""
        return cls(
            device.address,
            device.vendor_id,
            device.device_id,
            device.subsystem_vendor_id,
            device.subsystem_device_id,
            driver,
            host_drivers,
        )

    def means(self, device: PciDevice) -> bool:
        """Whether this is that device, and not another one in its place."""
        return PersistentDevice.of(device, self.driver, self.host_drivers) == self


def render(devices: Iterable[PersistentDevice]) -> str:
    """The rules file for these devices; empty without any."""
    rules = "".join(_rule(device) for device in sorted(devices))
    return _HEADER + rules if rules else ""


def _rule(device: PersistentDevice) -> str:
    comment = _HOST_DRIVERS.format(" ".join(device.host_drivers)) if device.host_drivers else ""
    return comment + _RULE.format(**vars(device))


def parse(text: str) -> list[PersistentDevice]:
    """The devices of a rules file that :func:`render` made; what else it may hold is not seen."""
    found = []
    for match in _PARSED.finditer(text):
        vendor, device, subsystem_vendor, subsystem_device = (int(match[name], 16) for name in _IDS)
        try:
            address = PciAddress.parse(match["address"])
        except PassthroughError:  # edited by hand; no device has that address, so the rule is of no effect
            continue
        host_drivers = tuple((match["host_drivers"] or "").split())
        found.append(
            PersistentDevice(address, vendor, device, subsystem_vendor, subsystem_device, match["driver"], host_drivers)
        )
    return found
