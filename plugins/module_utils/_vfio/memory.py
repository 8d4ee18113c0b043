# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this collection remembers of the devices it gave other drivers: which they had, and their network interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.state import Record, StateStore
from .._pci.address import PciAddress
from .._pci.device import Bus, PciDevice
from .binding import AUTO, Binding

KIND = "driver"


class DriverRecords:
    """The records of kind ``driver``: binding before the first change of ours, binding after the last.

    Their key is address and ids, so that a device that took another one's place is not taken for it.
    """

    def __init__(self, store: StateStore) -> None:
        self._records = {record.key: record for record in store.all(KIND)}

    def of(self, device: PciDevice) -> Record | None:
        """The record of a device, or None when this collection did not change its binding."""
        return self._records.get(_key(device))

    def ids_at(self, address: PciAddress) -> list[str]:
        """The ids (``8086:10ca``) of the devices at an address whose binding this collection changed."""
        return sorted(key.split()[1] for key in self._records if key.split()[0] == str(address))

    def kept_for_guests(self, bus: Bus) -> list[PciDevice]:
        """The devices that this collection bound to a VFIO driver and that still are, in bus order."""
        found = []
        for key, record in self._records.items():
            address = PciAddress.parse(key.split()[0])
            if address in bus and Binding.from_json(record.after).is_vfio:
                device = bus.device(address)
                if _key(device) == key and Binding.of(device).is_vfio:
                    found.append(device)
        return sorted(found, key=lambda device: device.address)

    def change(self, device: PciDevice, before: Binding, after: Binding) -> Record:
        """The record of a change, with the interfaces the device has before it."""
        earlier = self.of(device)
        said = before.to_json()
        if earlier is not None:
            left = Binding.from_json(earlier.after)
            if left.driver == AUTO and left.allows(before.driver) and left.driver_override == before.driver_override:
                said = earlier.after  # what the kernel chose is what we left to it
        interfaces = device.mac_addresses()
        return Record(
            KIND, _key(device), said, after.to_json(), restore={"interfaces": interfaces} if interfaces else None
        )

    def interfaces(self) -> dict[str, dict[str, str]]:
        """Key -> the interfaces (name -> MAC address) a device had before it was bound to a VFIO driver."""
        return {
            key: dict(record.restore["interfaces"])
            for key, record in self._records.items()
            if isinstance(record.restore, dict) and record.restore.get("interfaces")
        }


class RecallingBus(Bus):
    """A bus whose devices still answer to the interfaces they had before this collection took them from the host.

    A device loses its interfaces with its driver. Without this, a selector by interface or MAC address would find its
    device exactly once.
    """

    def __init__(self, host: Host, records: DriverRecords) -> None:
        super().__init__(host)
        self._remembered = records.interfaces()

    def _make(self, address: PciAddress) -> PciDevice:
        if not self._remembered:
            return super()._make(address)
        return _RecallingDevice(self._host, address, self, self._remembered)


class _RecallingDevice(PciDevice):
    def __init__(self, host: Host, address: PciAddress, bus: Bus, remembered: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(host, address, bus)
        self._by_key = remembered

    @cached_property
    def interfaces(self) -> list[str]:
        return sorted(self._lost) or PciDevice(self._host, self.address, self._bus).interfaces

    def mac_addresses(self) -> dict[str, str]:
        return dict(self._lost) or super().mac_addresses()

    @cached_property
    def _lost(self) -> Mapping[str, str]:
        """The remembered interfaces, while the device has none and no other device has taken their names."""
        known = self._by_key.get(_key(self))
        if not known or PciDevice(self._host, self.address, self._bus).interfaces:
            return {}
        return {name: mac for name, mac in known.items() if not self._host.exists(f"/sys/class/net/{name}")}


def recalling_bus(host: Host) -> Bus:
    """The host's devices, with the interfaces they had; without these where the record may not be read (not root)."""
    try:
        return RecallingBus(host, DriverRecords(StateStore(host)))
    except PassthroughError as error:
        if error.code != "file_unreadable":
            raise
        return Bus(host)


def _key(device: PciDevice) -> str:
    return f"{device.address} {device.ids}"
