# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What this collection remembers of the devices it gave other drivers: which they had, and their network interfaces."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.state import Record, StateStore
from .._pci.address import PciAddress
from .._pci.device import UNREADABLE_DEVICE, Bus, PciDevice
from .binding import AUTO, Binding
from .persistence.rules import PersistentDevice

KIND = "driver"


class DriverRecords:
    """The records of kind ``driver``: binding before the first change of ours, binding after the last.

    Their key is :attr:`PciDevice.key`.
    """

    def __init__(self, store: StateStore) -> None:
        self._records = {record.key: record for record in store.all(KIND)}

    def of(self, device: PciDevice) -> Record | None:
        """The record of a device, or None when this collection did not change its binding."""
        return self._records.get(device.key)

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
                if device.key == key and Binding.of(device).is_vfio:
                    found.append(device)
        return sorted(found, key=lambda device: device.address)

    def outlived(self, device: PciDevice, *, changes: bool) -> bool:
        """Whether the record of a device says nothing of use any more, seen before a run.

        The device is back at what it had before us, perhaps because a run was killed before it could say so; or
        somebody else took it back (``driverctl``, ``virsh nodedev-reattach``) and it has that driver.

        :param changes: whether the run changes the binding; then the record is the first half of the run's own, and
            stays, unless somebody else gave the device a driver that it has from neither us nor before us
        """
        record = self.of(device)
        if record is None:
            return False
        now = Binding.of(device)
        taken_back = Binding.from_json(record.after).is_vfio and not now.is_vfio
        if changes:
            return taken_back and now.driver is not None and not record.explains(now.to_json())
        return taken_back or record.before == now.to_json()

    def change(self, device: PciDevice, before: Binding, after: Binding) -> Record:
        """The record of a change, with the interfaces the device has before it."""
        earlier = self.of(device)
        said = before.to_json()
        if earlier is not None:
            left = Binding.from_json(earlier.after)
            if left.driver == AUTO and left.allows(before.driver) and left.driver_override == before.driver_override:
                said = earlier.after  # what the kernel chose is what we left to it
            elif before == Binding(None, None):
                said = earlier.after  # a driver is what it lacks; nobody gave it another one
            elif _is_between(before, earlier):
                said = earlier.after  # a run was killed between the write of the override and that of the driver
        interfaces = device.mac_addresses()
        return Record(
            KIND, device.key, said, after.to_json(), restore={"interfaces": interfaces} if interfaces else None
        )

    def stale(self, bus: Bus, rules: Iterable[PersistentDevice]) -> list[Stale]:
        """The devices that are remembered, or have a rule, and are not in their places any more; in bus order.

        A rule says more of a device than a record (the ids of the card, too), so it may tell that there is another
        device where the record does not.
        """
        gone: dict[tuple[PciAddress, str], Stale] = {}
        for key, record in self._records.items():
            address, ids = PciAddress.parse(key.split()[0]), key.split()[1]
            present = _present(bus, address)
            if present is None or present.ids != ids:
                after = Binding.from_json(record.after)
                driver = (after.driver_override or after.driver) if after.is_vfio else None
                found = None if present is None else present.ids
                gone[(address, ids)] = Stale(address, ids, found, driver, (key,), persistent=False)
        for rule in rules:
            present = _present(bus, rule.address)
            if present is not None and rule.means(present):
                continue
            found, ids = None, f"{rule.vendor:04x}:{rule.device:04x}"
            if present is not None:
                found = present.ids
                if found == ids:
                    ids += f" (card {rule.subsystem_vendor:04x}:{rule.subsystem_device:04x})"
                    found += f" (card {present.subsystem_vendor_id:04x}:{present.subsystem_device_id:04x})"
            known = gone.get((rule.address, ids))
            keys = known.records if known is not None else ()
            gone[(rule.address, ids)] = Stale(rule.address, ids, found, rule.driver, keys, persistent=True)
        return [gone[name] for name in sorted(gone)]

    def interfaces(self) -> dict[str, dict[str, str]]:
        """Key -> the interfaces (name -> MAC address) a device had before it was bound to a VFIO driver."""
        return {
            key: dict(record.restore["interfaces"])
            for key, record in self._records.items()
            if isinstance(record.restore, dict) and record.restore.get("interfaces")
        }


@dataclass(frozen=True)
class Stale:
    """A device that this collection bound, or binds at every boot, and that is not in its place any more.

    ``found`` is what is there now, None when nothing is. ``driver`` is the VFIO driver it was given, None when it was
    given back since; ``records`` are the keys of what is remembered of it, and ``persistent`` says whether there is a
    rule for it.
    """

    address: PciAddress
    ids: str
    found: str | None
    driver: str | None
    records: tuple[str, ...]
    persistent: bool

    def as_result(self) -> dict[str, Any]:
        """The device in a module's result."""
        return {
            "address": str(self.address),
            "ids": self.ids,
            "found": self.found,
            "driver": self.driver,
            "persistent": self.persistent,
        }

    @property
    def text(self) -> str:
        """What is the matter, in words."""
        how = f"bound to {self.driver} at every boot" if self.persistent else f"bound to {self.driver}"
        now = f"{self.found} is there now" if self.found is not None else "nothing is there now"
        return f"The device {self.ids} at {self.address}, which this collection {how}, is gone: {now}."


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
        known = self._by_key.get(self.key)
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


def _present(bus: Bus, address: PciAddress) -> PciDevice | None:
    """The device at an address, if there is one whose ids can be read."""
    try:
        device = bus.device(address)
        _unused = (device.ids, device.subsystem_vendor_id, device.subsystem_device_id)
    except PassthroughError as error:
        if error.code not in UNREADABLE_DEVICE:
            raise
        return None
    return device


def _is_between(binding: Binding, record: Record) -> bool:
    """Whether a binding has the driver of one and the override of one of the states that a record knows."""
    known = [Binding.from_json(state) for state in (record.before, record.after, *record.pending)]
    return binding.driver in [state.driver for state in known] and binding.driver_override in [
        state.driver_override for state in known
    ]
