# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions of SR-IOV cards: how many, how they are set, and the next boot, as one plan."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.plan import Action, Plan
from .._core.state import Record, StateStore
from .._pci.address import PciAddress
from .._pci.device import PciDevice, is_vfio_driver
from .._pci.numbers import integer
from .._pci.selector import select_all
from .._vfio.binding import Binding
from .._vfio.evidence import EvidenceMissing
from .._vfio.guards.base import Change, Finding, GuardContext
from .._vfio.guards.registry import GUARDS, check_device
from .._vfio.memory import DriverRecords, RecallingBus
from .actions import PF_KIND, ConfigureVf, PfState, Resize, VfPicture, records_of_vfs
from .boot import BootVfs, PersistentPf
from .channel import read_settings
from .ip import interface_of
from .nvme import PROGRAM as NVME_PROGRAM
from .nvme import controller_of
from .request import NO_MAC, PfRequest, Request
from .settings import VfSettings

FORCIBLE_CODES: tuple[str, ...] = tuple(
    sorted(guard.code for guard in GUARDS if guard.forcible and guard.refuses and Change.REMOVE in guard.changes)
)
"""What ``force`` accepts."""

# What a guest that runs does not lose its network by.
_TUNABLE = frozenset(("spoof_check", "trust", "min_tx_rate", "max_tx_rate", "link_state"))
_IN_USE_BY_DOMAIN = "in_use_by_domain"

_ENABLE_SRIOV = "/sys/module/vfio_pci/parameters/enable_sriov"


@dataclass(frozen=True)
class PfTransition:
    """One PF and where it goes."""

    device: PciDevice
    name: str | None
    asked: PfRequest
    interface: str | None
    controller: str | None
    """Its NVMe controller."""
    before: PfState
    after: PfState
    present: Mapping[int, VfSettings]
    """The settings of the VFs that exist; empty where they do not matter."""
    persistent: bool
    vf_results: list[dict[str, Any]] = field(default_factory=list)

    @property
    def resizes(self) -> bool:
        """Whether the VFs that exist vanish, and others may be made."""
        return self.before.count != self.after.count

    @property
    def changes(self) -> bool:
        """Whether the PF itself is changed."""
        return self.before != self.after

    def settings_to_make(self) -> Iterator[tuple[int, VfSettings | None, VfSettings]]:
        """Index of a VF, what it has (None while it is still to be made), and what of the asked settings is not so."""
        for index, wanted in sorted(self.asked.vfs.items()):
            former = None if self.resizes else self.present.get(index, VfSettings())
            missing = wanted if former is None else wanted.beyond(former)
            if missing.to_json():
                yield index, former, missing

    def as_result(self) -> dict[str, Any]:
        """The PF in the module's result."""
        return {
            "address": str(self.device.address),
            "name": self.name,
            "ids": self.device.ids,
            "interface": self.interface,
            "controller": self.controller,
            "totalvfs": self.device.sriov_totalvfs,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "vfs": self.vf_results,
            "persistent": self.persistent,
        }

    def tell_addresses(self, addresses: Mapping[int, PciAddress]) -> None:
        """Correct the addresses in the result; the specification lets them depend on the number of VFs."""
        for result in self.vf_results:
            result["address"] = str(addresses[result["vf"]])


@dataclass(frozen=True)
class Observation:
    """The host as far as a request is concerned."""

    bus: RecallingBus
    transitions: tuple[PfTransition, ...]
    store: StateStore
    boot: BootVfs
    persistent: tuple[PersistentPf, ...]
    """The PFs whose VFs are to be made at every boot, other requests' included."""
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]


class SriovVfs:
    """The procedure of the module sriov_vfs."""

    def __init__(self, host: Host, request: Request) -> None:
        self._host = host
        self._request = request

    def observe(self) -> Observation:
        """Read the host and choose the PFs.

        :raises PassthroughError: what selectors raise (``no_match``, ``identity_mismatch``, …), and
            :func:`read_settings`
        """
        store = StateStore(self._host)
        bus = RecallingBus(self._host, DriverRecords(store))
        selection = select_all([pf.selector for pf in self._request.pfs], bus, distinct=True)
        transitions = [
            self._transition(device, asked, store)
            for asked, (_unused, devices) in zip(self._request.pfs, selection)
            for device in devices
        ]
        boot = BootVfs.observe(self._host)
        context = GuardContext(self._host, bus)
        return Observation(
            bus,
            tuple(transitions),
            store,
            boot,
            self._persistent(transitions, boot),
            tuple(self._look_for_findings(transitions, context)),
            tuple(self._look_for_warnings(transitions, context)),
        )

    def _transition(self, device: PciDevice, asked: PfRequest, store: StateStore) -> PfTransition:
        before = PfState.of(device)
        record = store.get(PF_KIND, device.key)
        autoprobe = asked.drivers_autoprobe
        if before.drivers_autoprobe is None:
            autoprobe = None
        elif autoprobe is None and asked.count:
            autoprobe = False
        elif autoprobe is None:
            first = PfState.from_json(record.before) if record is not None else before
            autoprobe = first.drivers_autoprobe
        needed = asked.vfs or before.count != asked.count
        present = read_settings(self._host, device.address) if before.count and needed else {}
        transition = PfTransition(
            device,
            asked.selector.name,
            asked,
            interface_of(self._host, device.address),
            controller_of(self._host, device.address),
            before,
            PfState(asked.count, autoprobe),
            present,
            self._request.persistent and asked.count > 0,
        )
        addresses = _predicted(device, asked.count) if transition.resizes else device.vfs_by_index
        for index in range(asked.count):
            address = addresses.get(index)
            settings = asked.vfs.get(index, VfSettings()).to_json()
            transition.vf_results.append(
                {"vf": index, "address": None if address is None else str(address), "settings": settings}
            )
        return transition

    def _look_for_findings(self, transitions: Iterable[PfTransition], context: GuardContext) -> Iterator[Finding]:
        for transition in transitions:
            harmless: dict[int, bool] = {}
            if transition.resizes:
                harmless = dict.fromkeys(transition.device.vfs_by_index, False)
            else:
                for index, _unused, missing in transition.settings_to_make():
                    harmless[index] = set(missing.to_json()) <= _TUNABLE
            for index, address in transition.device.vfs_by_index.items():
                if index not in harmless or address not in context.bus:
                    continue
                for finding in check_device(context.bus.device(address), context, Change.REMOVE):
                    if not (harmless[index] and finding.code == _IN_USE_BY_DOMAIN):
                        yield finding

    def _look_for_warnings(self, transitions: Iterable[PfTransition], context: GuardContext) -> Iterator[str]:
        for transition in transitions:
            if not transition.resizes:
                continue
            device = transition.device
            kept = [
                str(address)
                for address in device.vfs
                if address in context.bus and is_vfio_driver(context.bus.device(address).driver)
            ]
            if kept:
                yield (
                    f"{', '.join(kept)} of {device.address} {'is' if len(kept) == 1 else 'are'} bound to VFIO and will "
                    "vanish. New virtual functions are bound again at once only where kvm.passthrough.vfio_devices "
                    "made that persistent; run it again afterwards."
                )
            for index, address in device.vfs_by_index.items():
                domains = sorted({use.domain for use in context.definitions.uses(address)})
                if index >= transition.after.count and domains:
                    yield (
                        f"The virtual function {address} of {device.address} will be gone, with which these domains "
                        f"are defined: {', '.join(domains)}. They do not start without it."
                    )
            if transition.interface is not None:
                try:
                    uses = context.network.uses(transition.interface)
                except EvidenceMissing:
                    continue
                if uses:
                    yield (
                        f"{transition.interface} of {device.address} carries {'; '.join(uses)}. Many drivers reset the "
                        "card when its number of virtual functions changes, so its link may be down for some seconds."
                    )

    def _persistent(self, transitions: Sequence[PfTransition], boot: BootVfs) -> tuple[PersistentPf, ...]:
        """The present persistent PFs, less those this request is about, plus those it makes persistent."""
        concerned = {transition.device.address for transition in transitions}
        kept = [item for item in boot.pfs if item.address not in concerned]
        added = [
            PersistentPf.of(transition.device, transition.after, transition.asked.vfs)
            for transition in transitions
            if transition.persistent
        ]
        return tuple(sorted([*kept, *added], key=lambda item: item.address))

    def plan(self, observed: Observation) -> Plan:
        """For each PF its number of VFs and then their settings, and last what makes it all again at every boot.

        :raises PassthroughError: with everything that stands against it
        """
        self._refuse(observed)
        plan = Plan()
        for transition in observed.transitions:
            if transition.changes:
                plan.add(self._resize(transition, observed))
            plan.extend(self._settings(transition, observed.store))
        plan.extend(observed.boot.plan(observed.persistent))
        return plan

    def _resize(self, transition: PfTransition, observed: Observation, kind: type[Resize] = Resize) -> Resize:
        device = transition.device
        vanishing: dict[int, VfPicture] = {}
        remembered: dict[tuple[int, str], Record] = {}
        if transition.resizes:
            remembered = records_of_vfs(observed.store, device)
            for index, address in device.vfs_by_index.items():
                binding = Binding.of(observed.bus.device(address))
                vanishing[index] = VfPicture(address, binding, transition.present.get(index, VfSettings()))
        return kind(
            device,
            transition.before,
            transition.after,
            settings=transition.asked.vfs,
            vanishing=vanishing,
            remembered=remembered,
            timeout=self._request.timeout,
            on_made=transition.tell_addresses,
        )

    def _settings(self, transition: PfTransition, store: StateStore) -> Iterator[Action]:
        device = transition.device
        record = store.get(PF_KIND, device.key)
        # A run that was killed may have made them; then there was no such VF before ours.
        is_ours = record is not None and PfState.from_json(record.before).count != PfState.from_json(record.after).count
        known = records_of_vfs(store, device)
        # What one gives away another may get.
        for index, former, missing in sorted(transition.settings_to_make(), key=_takes):
            was_made = [name for name in missing.to_json() if is_ours and (index, name) not in known]
            yield ConfigureVf(device, index, former, missing, was_made=was_made)

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        """The PFs, each with what it has before and after, and what is to be known."""
        result: dict[str, Any] = {"pfs": [transition.as_result() for transition in observed.transitions]}
        warnings = [*observed.warnings]
        warnings += [finding.text for finding in observed.findings if not finding.refuses]
        return {**result, "warnings": warnings} if warnings else result

    # -- what stands against it --------------------------------------------------------------------------

    def _refuse(self, observed: Observation) -> None:
        problems: list[Problem] = []
        for transition in observed.transitions:
            problems += self._problems_of(transition)
        problems += _repeated_macs(observed.transitions)
        forced = self._request.force
        problems += [finding.as_problem() for finding in observed.findings if finding.stands_against(forced)]
        if observed.persistent and observed.boot.obstacle is not None:
            problems.append(observed.boot.obstacle)
        if problems:
            raise PassthroughError.of(problems)

    def _problems_of(self, transition: PfTransition) -> Iterator[Problem]:
        device, count = transition.device, transition.after.count
        details = {"device": str(device.address)}
        total = device.sriov_totalvfs
        if total is None:
            yield _not_a_pf(device)
            return
        if count > total:
            yield Problem(
                "count_exceeds_totalvfs",
                f"{transition.asked.where}: {count} virtual functions of {device.address} are asked for, and it can "
                f"have {total} (sriov_totalvfs).",
                "Ask for fewer. Some cards have a limit in their firmware or its settings that can be raised with the "
                "vendor's tool (NUM_OF_VFS with mlxconfig), and some firmware setups have one, too."
                if total
                else "SR-IOV is switched off in the card: its vendor's tool switches it on (SRIOV_EN and NUM_OF_VFS "
                "with mlxconfig), or the setup of the host's firmware does.",
                {**details, "value": count, "totalvfs": total},
            )
        if transition.resizes:
            yield from self._driver_problems(device)
        yield from self._channel_problems(transition)
        if not transition.resizes:
            yield from _unknown_settings(transition)

    def _channel_problems(self, transition: PfTransition) -> Iterator[Problem]:
        """Settings that there is no way to make: neither network cards nor drives have those of the other."""
        device, asked = transition.device, transition.asked.vfs.values()
        details = {"device": str(device.address)}
        if any(settings.is_network for settings in asked) and transition.interface is None:
            yield Problem(
                "vf_settings_impossible",
                f"{device.address} has no network interface through which its virtual functions could be set (driver "
                f"{device.driver or 'none'}).",
                "Such settings of virtual functions are for network cards whose driver of the host is bound, in the "
                "host's own network namespace.",
                details,
            )
        if any(settings.is_nvme for settings in asked):
            if transition.controller is None:
                yield Problem(
                    "vf_settings_impossible",
                    f"{device.address} has no NVMe controller whose secondary controllers could have queues and "
                    f"interrupts (driver {device.driver or 'none'}).",
                    "queues and interrupts are for NVMe drives that the host's driver has.",
                    details,
                )
            elif self._host.which(NVME_PROGRAM) is None:
                yield Problem(
                    "command_missing",
                    f"nvme is not installed, which gives the secondary controllers of {device.address} their queues.",
                    "Install the package nvme-cli.",
                    {**details, "command": [NVME_PROGRAM]},
                )

    def _driver_problems(self, device: PciDevice) -> Iterator[Problem]:
        details = {"device": str(device.address)}
        if device.driver is None:
            yield Problem(
                "pf_without_driver",
                f"{device.address} has no driver, and the driver of a physical function is what makes virtual ones.",
                "Load the driver of the card; dmesg says why it is not bound.",
                details,
            )
        elif is_vfio_driver(device.driver) and self._host.attribute(_ENABLE_SRIOV) != "Y":
            yield Problem(
                "pf_bound_to_vfio",
                f"{device.address} is bound to {device.driver}, which makes no virtual functions.",
                "Give the card back to its driver (kvm.passthrough.vfio_devices with state released). To have virtual "
                "functions of a card that a user-space program drives (DPDK), set enable_sriov of the module vfio_pci.",
                details,
            )


def _takes(step: tuple[int, VfSettings | None, VfSettings]) -> bool:
    """Whether the controller of a VF gets more of the drive's queues than it has."""
    _index, former, wanted = step
    return (wanted.queues or 0) > ((former.queues if former is not None else None) or 0)


def _not_a_pf(device: PciDevice) -> Problem:
    if device.pf is not None:
        what, remedy = f"is a virtual function of {device.pf}", "Name the physical function."
    else:
        what = "is no SR-IOV physical function"
        remedy = (
            "The card has no SR-IOV, or it is switched off in the card's firmware (the vendor's tool switches it on, "
            "such as SRIOV_EN with mlxconfig) or in the setup of the host's firmware."
        )
    return Problem("not_a_pf", f"{device.address} {what}.", remedy, {"device": str(device.address)})


def _unknown_settings(transition: PfTransition) -> Iterator[Problem]:
    """What is asked for and the driver does not tell, so that it could neither be compared nor verified."""
    for index, wanted in transition.asked.vfs.items():
        present = transition.present.get(index)
        if present is None:
            continue
        unknown = [name for name in wanted.to_json() if getattr(present, name) is None]
        if unknown:
            yield Problem(
                "vf_setting_unsupported",
                f"The driver {transition.device.driver} of {transition.device.address} does not tell "
                f"{', '.join(unknown)} of VF {index}, so it does not support that.",
                "Leave it out. Some drivers have it only with newer kernels or firmware.",
                {"device": str(transition.device.address), "vf": index, "settings": unknown},
            )


def _repeated_macs(transitions: Iterable[PfTransition]) -> Iterator[Problem]:
    """MAC addresses that several VFs would have because one request means several PFs, or that a PF has itself."""
    owners: dict[str, str] = {}
    for transition in transitions:
        for mac in transition.device.mac_addresses().values():
            owners.setdefault(mac, f"{transition.device.address} itself")
    for transition in transitions:
        for index, settings in transition.asked.vfs.items():
            if settings.mac is None or settings.mac == NO_MAC:
                continue
            this = f"VF {index} of {transition.device.address}"
            if settings.mac in owners:
                yield Problem(
                    "mac_duplicate",
                    f"The MAC address {settings.mac}, which is asked for {this}, is that of {owners[settings.mac]}.",
                    "Give each virtual function an address of its own.",
                    {"device": str(transition.device.address), "vf": index, "value": settings.mac},
                )
            owners.setdefault(settings.mac, this)


def _predicted(device: PciDevice, count: int) -> dict[int, PciAddress]:
    """The addresses of VFs that are not there yet, where the device tells offset and stride of their routing ids.

    Source: PCI Express Base Specification, "First VF Offset" and "VF Stride"; ``pci_iov_virtfn_bus`` of
    drivers/pci/iov.c.
    """
    offset, stride = (integer(device.attribute(name)) for name in ("sriov_offset", "sriov_stride"))
    if not offset or stride is None or (count > 1 and not stride):
        return {}
    own = device.address
    first = (own.bus << 8 | own.slot << 3 | own.function) + offset
    found = {}
    for index in range(count):
        routing = first + index * stride
        if routing > 0xFFFF:
            return {}
        found[index] = PciAddress(own.domain, routing >> 8, routing >> 3 & 0x1F, routing & 7)
    return found
