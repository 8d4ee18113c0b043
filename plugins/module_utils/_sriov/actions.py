# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Making, removing and setting virtual functions.

Sources: Documentation/ABI/testing/sysfs-bus-pci (``sriov_numvfs``, ``sriov_drivers_autoprobe``);
drivers/pci/pci-sysfs.c and drivers/pci/iov.c, ``sriov_numvfs_store`` and ``sriov_enable``, for the kernel's errors.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.plan import Action
from .._core.state import Record, StateStore
from .._pci.address import PciAddress
from .._pci.device import DEVICES, Bus, PciDevice
from .._vfio.binding import Binding, bring_to
from .channel import read_settings, release, write_settings
from .settings import VfSettings

PF_KIND = "sriov"
"""Records of PFs: how many VFs there are, and whether drivers of the host may have new ones."""
VF_KIND = "sriov_vf"
"""Records of VFs, one for each setting; None stands for a VF that is not there."""


@dataclass(frozen=True)
class PfState:
    """How many VFs a PF has, and whether a driver of the host may have one that is made from now on.

    ``drivers_autoprobe`` is None where the kernel has no such switch (before Linux 4.12).
    """

    count: int
    drivers_autoprobe: bool | None

    @classmethod
    def of(cls, device: PciDevice) -> PfState:
        """The state of a PF as it was observed."""
        text = device.attribute("sriov_drivers_autoprobe")
        return cls(device.sriov_numvfs or 0, None if text is None else text != "0")

    def to_json(self) -> dict[str, Any]:
        """The state for results and records."""
        return {"count": self.count, "drivers_autoprobe": self.drivers_autoprobe}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PfState:
        """The inverse of :meth:`to_json`."""
        return cls(data["count"], data["drivers_autoprobe"])


@dataclass(frozen=True)
class VfPicture:
    """A VF that is to vanish, with what it takes to have it again as it is."""

    address: PciAddress
    binding: Binding
    settings: VfSettings


def _setting_key(device: PciDevice, index: int, name: str) -> str:
    return f"{device.key} vf {index} {name}"


def records_of_vfs(store: StateStore, device: PciDevice) -> dict[tuple[int, str], Record]:
    """Index and name -> record of each setting of a VF of a PF that this collection changed."""
    start = f"{device.key} vf "
    found = {}
    for record in store.all(VF_KIND):
        if record.key.startswith(start):
            index, name = record.key[len(start) :].split()
            found[int(index), name] = record
    return found


class Resize(Action):
    """Bring a PF from one state to another; VFs that exist vanish first when there are to be more or fewer."""

    def __init__(
        self,
        device: PciDevice,
        before: PfState,
        after: PfState,
        *,
        vanishing: Mapping[int, VfPicture],
        settings: Mapping[int, VfSettings] | None = None,
        remembered: Mapping[tuple[int, str], Record] | None = None,
        timeout: float,
        on_made: Callable[[Mapping[int, PciAddress]], None] = lambda _unused: None,
    ) -> None:
        """:param vanishing: the VFs that exist, when their number changes
        :param settings: what its VFs are to have then
        :param remembered: the records of its VFs, when their number changes
        :param on_made: is told the addresses of the VFs once they are there
        """
        self.description = _describe(device, before, after)
        self.target = str(device.address)
        self.before = before.to_json()
        self.after = after.to_json()
        self._device = device
        self._states = (before, after)
        self._vanishing = vanishing
        self._settings = settings or {}
        self._remembered = remembered or {}
        self._made: dict[int, VfSettings] = {}
        self._timeout = timeout
        self._on_made = on_made
        self._hangs = False

    def apply(self, host: Host) -> None:
        self.partial = True
        self._bring_to(host, self._states[1])
        if self._remembered and self._states[1].count:
            self._made = read_settings(host, self._device.address)
        self._on_made(Bus(host).device(self._device.address).vfs_by_index)

    def undo(self, host: Host) -> None:
        if self._hangs:
            raise PassthroughError(
                "device_hangs",
                f"The kernel hangs over {self.target}; nothing more can be done with it before the host is rebooted.",
                device=self.target,
                reboot_required=True,
            )
        self._bring_to(host, self._states[0])
        if not self._vanishing:
            return
        addresses = Bus(host).device(self._device.address).vfs_by_index
        for index, picture in self._vanishing.items():
            present = read_settings(host, self._device.address).get(index, VfSettings())
            write_settings(host, self._device.address, index, picture.settings.beyond(present))
        # The switch is looked at whenever a VF is probed, and those that the host's drivers have may be older than it.
        autoprobe = self._states[0].drivers_autoprobe
        probed = any(
            picture.binding.driver and not picture.binding.driver_override for picture in self._vanishing.values()
        )
        if autoprobe is False and probed:
            self._write(host, "sriov_drivers_autoprobe", 1)
        for index, picture in self._vanishing.items():
            bring_to(host, addresses[index], picture.binding, self._timeout)
        if autoprobe is False and probed:
            self._write(host, "sriov_drivers_autoprobe", 0)

    def _bring_to(self, host: Host, wanted: PfState) -> None:
        now = PfState.of(Bus(host).device(self._device.address))
        if now.count not in (0, wanted.count):
            self._write(host, "sriov_numvfs", 0)
            release(host, self._device.address, now.count)
        if wanted.drivers_autoprobe is not None and wanted.drivers_autoprobe != now.drivers_autoprobe:
            self._write(host, "sriov_drivers_autoprobe", int(wanted.drivers_autoprobe))
        if wanted.count not in (0, now.count):
            self._write(host, "sriov_numvfs", wanted.count)
        device = Bus(host).device(self._device.address)
        if PfState.of(device) != wanted or len(device.vfs) != wanted.count:
            raise PassthroughError(
                "vfs_not_made",
                f"{self.target} should have {wanted.count} virtual functions; the kernel took the number, "
                f"but there are {len(device.vfs)} (sriov_numvfs: {device.sriov_numvfs}).",
                "dmesg of the host usually says why.",
                device=self.target,
            )

    def _write(self, host: Host, name: str, number: int) -> None:
        try:
            host.write_attribute(f"{DEVICES}/{self._device.address}/{name}", f"{number}\n", self._timeout)
        except PassthroughError as error:
            self._hangs = self._hangs or error.code == "attribute_write_timeout"
            if error.code != "attribute_write_failed" or name != "sriov_numvfs":
                raise
            raise _explained(error, Bus(host).device(self._device.address), number) from error

    def records(self) -> Sequence[Record]:
        before, after = self._states
        settings = {str(index): picture.settings.to_json() for index, picture in self._vanishing.items()}
        for (index, name), record in self._remembered.items():
            if index in self._vanishing and record.before is not None:
                settings[str(index)][name] = record.before  # what we set is not what was there first
        own = Record(
            PF_KIND,
            self._device.key,
            before.to_json(),
            after.to_json(),
            restore={"vfs": settings} if settings else None,
        )
        return (own, *(self._settings_record(*place, record) for place, record in self._remembered.items()))

    def _settings_record(self, index: int, name: str, record: Record) -> Record:
        """What becomes of a setting that was changed before: it goes with the VF, and a new one has its driver's."""
        now = record.after if index in self._vanishing else None
        made = self._made.get(index, VfSettings()).to_json()
        return Record(VF_KIND, record.key, now, made.get(name))


def _describe(device: PciDevice, before: PfState, after: PfState) -> str:
    if before.count == after.count:
        verb = "let" if after.drivers_autoprobe else "do not let"
        return f"{verb} drivers of the host have new virtual functions of {device.address}"
    if after.count == 0:
        return f"remove the {before.count} virtual functions of {device.address}"
    instead = f" instead of {before.count}" if before.count else ""
    return f"make {after.count} virtual functions of {device.address}{instead}"


def _explained(error: PassthroughError, device: PciDevice, count: int) -> PassthroughError:
    """The kernel's refusal of a number of VFs, in words that say what to do."""
    name = error.problems[0].details.get("errno")
    what = f"make {count} virtual functions of {device.address}" if count else f"remove those of {device.address}"
    text = f"The kernel could not {what} (driver {device.driver}, {name})"
    details = {**error.problems[0].details, "device": str(device.address)}
    refusal = _REFUSALS.get(str(name), _Refusal("vfs_refused", "", "dmesg of the host usually says why."))
    return PassthroughError(refusal.code, f"{text}{refusal.why}.", refusal.remedy, **details)


@dataclass(frozen=True)
class _Refusal:
    """What an error number of the kernel means."""

    code: str
    why: str
    remedy: str


_NO_RESOURCES = _Refusal(
    "vfs_no_resources",
    ": there is no room for their memory regions (BARs) or their bus numbers",
    'The firmware reserved none: switch on SR-IOV, ARI and "Above 4G decoding" in its setup. Where that cannot be had, '
    "the kernel parameter pci=realloc makes the kernel reserve room itself (pci=assign-busses where dmesg names a bus "
    "number out of range). Fewer virtual functions take less room.",
)
_BUSY = _Refusal(
    "vfs_busy",
    ": virtual functions of it are in use, or another program changes their number at the same time",
    "Look for a udev rule, a service or another tool that makes virtual functions (NetworkManager, Open vSwitch), "
    "and for a guest that has one.",
)
_UNSUPPORTED = _Refusal(
    "sriov_unsupported_by_driver",
    ": the driver cannot make virtual functions, or let go of the device meanwhile",
    "Bind the card to the vendor's driver. Some drivers take the number as a parameter of their module (max_vfs), "
    "and others have SR-IOV only with newer firmware.",
)
# drivers/pci/iov.c and what drivers return from sriov_configure().
_REFUSALS = {
    "ENOMEM": _NO_RESOURCES,
    "ENOSPC": _NO_RESOURCES,
    "EBUSY": _BUSY,
    "EPERM": _BUSY,
    "ENOENT": _UNSUPPORTED,
    "EOPNOTSUPP": _UNSUPPORTED,
    "ENOTSUP": _UNSUPPORTED,  # Python's name of the same number
    "524": _UNSUPPORTED,  # ENOTSUPP, which is the kernel's own and has no name in user space
    "ERANGE": _Refusal(
        "count_exceeds_totalvfs",
        ": that is more than it can have",
        "The firmware of some cards has a limit of its own (NUM_OF_VFS of Mellanox), which the vendor's tool changes.",
    ),
}


class ConfigureVf(Action):
    """Set what differs of one VF, look whether the driver kept it, and remember what it had."""

    def __init__(
        self,
        device: PciDevice,
        index: int,
        before: VfSettings | None,
        wanted: VfSettings,
        *,
        was_made: Collection[str] = (),
    ) -> None:
        """:param before: None for a VF that is only made in this run
        :param wanted: what is to be set, and nothing that is so already
        :param was_made: the settings that came with the VF when an earlier run made it, and were not changed since
        """
        self.description = f"set {', '.join(wanted.to_json())} of VF {index} of {device.address}"
        self.target = f"{device.address} vf {index}"
        self.before = None if before is None else before.restricted_to(wanted).to_json()
        self.after = wanted.to_json()
        self._device = device
        self._index = index
        self._former = before
        self._was_made = was_made
        self._wanted = wanted

    def apply(self, host: Host) -> None:
        self.partial = True
        address = self._device.address
        write_settings(host, address, self._index, self._wanted)
        now = read_settings(host, address).get(self._index, VfSettings())
        lost = self._wanted.beyond(now)
        if lost.to_json():
            raise PassthroughError(
                "vf_setting_not_kept",
                f"The driver {self._device.driver} of {address} took {' '.join(lost.words())} for VF {self._index}, "
                f"but shows {' '.join(now.restricted_to(lost).words()) or 'nothing of it'}.",
                "Leave the setting out, or look for another program (libvirt, NetworkManager) that sets it meanwhile.",
                device=str(address),
                vf=self._index,
                settings=list(lost.to_json()),
            )

    def undo(self, host: Host) -> None:
        if self._former is None:
            return  # it goes when the VF goes
        address = self._device.address
        now = read_settings(host, address).get(self._index, VfSettings())
        former = self._former.restricted_to(self._wanted)
        write_settings(host, address, self._index, former.beyond(now))

    def records(self) -> Sequence[Record]:
        former = {} if self._former is None else self._former.to_json()
        return [
            Record(
                VF_KIND,
                _setting_key(self._device, self._index, name),
                None if name in self._was_made else former.get(name),
                value,
            )
            for name, value in self._wanted.to_json().items()
        ]
