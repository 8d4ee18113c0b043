# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give devices to guests and take them back: selection, guards, groups, bindings, and the next boot, as one plan."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.options import time_limit_problems
from .._core.plan import Action, Forget, Plan
from .._core.state import StateStore
from .._pci.address import PciAddress
from .._pci.device import DRIVERS, Bus, PciDevice, is_vfio_driver
from .._pci.grammar import parse_selectors
from .._pci.selector import Selector, merged, select_all
from .binding import AUTO, Binding, Hang, LoadModule, Rebind, unavailable
from .choice import DriverChoice
from .group import mates, mates_to_take, unlisted_mates
from .guards.base import Change, Finding, GuardContext
from .guards.registry import check_device
from .memory import KIND, DriverRecords, RecallingBus, Stale
from .persistence import options as vfio_options
from .persistence.modprobe import HostDrivers
from .persistence.rules import PersistentDevice
from .persistence.settings import BootSettings, Wanted

_DRIVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class State(enum.Enum):
    """Where the devices are to be."""

    BOUND = "bound"
    RELEASED = "released"


class GroupPolicy(enum.Enum):
    """What becomes of the devices that share an IOMMU group with one that is asked for."""

    REQUIRE = "require"
    INCLUDE = "include"


@dataclass(frozen=True)
class Request:
    """What is asked for. See the options of the module vfio_devices."""

    selectors: tuple[Selector, ...]
    state: State = State.BOUND
    driver: str = AUTO
    group: GroupPolicy = GroupPolicy.REQUIRE
    exclusive: bool = False
    persistent: bool = True
    force: frozenset[str] = frozenset()
    timeout: float = 60.0
    options: Mapping[str, str] | None = None
    """Options of vfio-pci; None: they stay as they are."""

    @classmethod
    def from_params(cls, params: dict[str, Any]) -> Request:
        """Read the module's options.

        :raises PassthroughError: with every problem of every option
        """
        problems: list[Problem] = []
        selectors: list[Selector] = []
        try:
            selectors = parse_selectors(params["devices"])
        except PassthroughError as error:
            problems += error.problems
        driver = params["driver"]
        if driver != AUTO and not (_DRIVER_NAME.fullmatch(driver) and is_vfio_driver(driver)):
            problems.append(
                Problem(
                    "driver_invalid",
                    f"driver: {driver!r} is not the name of a VFIO driver.",
                    "Name vfio-pci or a variant of it (their names contain vfio), or leave the choice to auto. To give "
                    "devices back to the host's drivers, set state to released.",
                    {"field": "driver", "value": driver},
                )
            )
        problems += time_limit_problems(params["timeout"])
        if params["exclusive"] and params["state"] == State.RELEASED.value:
            problems.append(
                Problem(
                    "options_conflict",
                    "exclusive goes with state bound only: with state released the list says what to release.",
                    details={"field": "exclusive"},
                )
            )
        options = None
        try:
            options = vfio_options.from_params(params.get("options"))
        except PassthroughError as error:
            problems += error.problems
        if params.get("options") is not None and (params["state"] == State.RELEASED.value or not params["persistent"]):
            problems.append(
                Problem(
                    "options_conflict",
                    "options goes with state bound and persistent true only: the file with them is kept for as long as "
                    "devices are bound at every boot, and goes with the last of them.",
                    details={"field": "options"},
                )
            )
        if problems:
            raise PassthroughError.of(problems)
        return cls(
            tuple(selectors),
            State(params["state"]),
            driver,
            GroupPolicy(params["group"]),
            params["exclusive"],
            params["persistent"],
            frozenset(params["force"]),
            float(params["timeout"]),
            options,
        )


@dataclass(frozen=True)
class Transition:
    """One device and where it goes."""

    device: PciDevice
    name: str | None
    change: Change
    before: Binding
    after: Binding
    persistent: bool
    lost_driver: str | None = None
    """The driver it had before it was bound, when it is released and that driver is gone."""

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.before != self.after

    def as_result(self) -> dict[str, Any]:
        """The device in the module's result."""
        return {
            "address": str(self.device.address),
            "name": self.name,
            "ids": self.device.ids,
            "iommu_group": self.device.iommu_group,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "persistent": self.persistent,
        }


@dataclass(frozen=True)
class Observation:
    """The host as far as a request is concerned."""

    bus: RecallingBus
    transitions: tuple[Transition, ...]
    findings: tuple[Finding, ...]
    """What the guards find about the devices that would change."""
    records: DriverRecords
    boot: BootSettings
    persistent: Wanted
    """The files for the devices that are to be persistent in the end, other requests' included."""
    stale: tuple[Stale, ...]
    """What this collection remembers of devices that are not in their places any more."""
    confirmed: frozenset[PciAddress]
    """Where the request itself says which device it means, and not only in which place."""
    drivers: DriverChoice


class LookAgain(Action):
    """Look at a device again that is bound now, where something could not be known before (its IOMMU group)."""

    before = "not known"
    after = "known"

    def __init__(self, address: PciAddress, bound: Sequence[PciAddress], request: Request) -> None:
        """:param bound: all devices that are bound to a VFIO driver in the end"""
        self.description = f"look at the IOMMU group of {address}, which shows once the device is bound"
        self.target = str(address)
        self._address = address
        self._bound = bound
        self._request = request

    def apply(self, host: Host) -> None:
        bus = Bus(host)
        device = bus.device(self._address)
        findings = check_device(device, GuardContext(host, bus, self._bound), Change.towards_guest(device))
        problems = [finding.as_problem() for finding in findings if finding.stands_against(self._request.force)]
        asked = [bus.device(address) for address in self._bound if address in device.group_members]
        for problem in unlisted_mates(asked, bus):
            if self._request.group is GroupPolicy.INCLUDE:
                remedy = "The group stays known until the next boot, so that another run finds them and takes them too."
                problem = replace(problem, remedy=remedy)
            problems.append(problem)
        if problems:
            raise PassthroughError.of(problems)

    def undo(self, host: Host) -> None:
        """Nothing was changed."""


class VfioDevices:
    """The procedure of the module vfio_devices."""

    def __init__(self, host: Host, request: Request) -> None:
        self._host = host
        self._request = request

    def observe(self) -> Observation:
        """Read the host and choose the devices.

        :raises PassthroughError: what selectors raise (``no_match``, ``identity_mismatch``, …)
        """
        records = DriverRecords(StateStore(self._host))
        bus = RecallingBus(self._host, records)
        selection = select_all(self._request.selectors, bus)
        names = {device.address: selector.name for selector, found in selection for device in found if selector.name}
        asked = merged(selection)
        boot = BootSettings.observe(self._host)
        drivers = DriverChoice(self._host, self._request.driver)
        if self._request.state is State.RELEASED:
            if self._request.group is GroupPolicy.INCLUDE:
                asked = _with_kept_mates(asked, records.kept_for_guests(bus))
            transitions = [self._release(device, names.get(device.address), records) for device in asked]
        else:
            if self._request.group is GroupPolicy.INCLUDE:
                asked = _with_mates(asked, drivers, bus)
            transitions = [self._bind(device, names.get(device.address), drivers) for device in asked]
            if self._request.exclusive:
                listed = {device.address for device in asked}
                others = [device for device in records.kept_for_guests(bus) if device.address not in listed]
                transitions += [self._release(device, None, records) for device in others]
        return Observation(
            bus,
            tuple(transitions),
            self._look_for_findings(transitions, bus),
            records,
            boot,
            self._persistent(transitions, boot),
            tuple(records.stale(bus, boot.devices)),
            frozenset(
                device.address for selector, found in selection if _tells_devices_apart(selector) for device in found
            ),
            drivers,
        )

    def _look_for_findings(self, transitions: Sequence[Transition], bus: Bus) -> tuple[Finding, ...]:
        leaving = [transition.device.address for transition in transitions if transition.change is Change.BIND]
        context = GuardContext(self._host, bus, leaving)
        found: list[Finding] = []
        for transition in transitions:
            if transition.changes:
                device = transition.device
                bind = transition.change is Change.BIND
                found += check_device(device, context, Change.towards_guest(device) if bind else transition.change)
        return tuple(found)

    def _bind(self, device: PciDevice, name: str | None, drivers: DriverChoice) -> Transition:
        before = Binding.of(device)
        driver = drivers.of(device)
        after = before if before.driver == driver else Binding(driver, driver)
        return Transition(device, name, Change.BIND, before, after, self._request.persistent)

    def _release(self, device: PciDevice, name: str | None, records: DriverRecords) -> Transition:
        before = Binding.of(device)
        record = records.of(device)
        first = Binding.from_json(record.before) if record is not None else None
        after, lost = Binding(AUTO, None), None
        if not before.is_vfio and (before.driver is not None or record is None):
            after = before  # it is released, whatever driver of the host has it
        elif first is not None and self._can_have(first):
            after = first  # also when it has no driver now: a run was killed, or hung, between the two steps
        elif record is not None and record.after == after.to_json() and not before.is_vfio:
            after = before  # the kernel was asked before, and has none for it
        elif first is not None and not first.is_vfio:
            lost = first.driver
        if before.driver is not None and not is_vfio_driver(before.driver):
            after = Binding(before.driver, after.driver_override)  # only what keeps it for guests goes
        return Transition(device, name, Change.RELEASE, before, after, persistent=False, lost_driver=lost)

    def _can_have(self, first: Binding) -> bool:
        """Whether a device can be given back what it had. A driver may be gone with an upgrade of the kernel."""
        return not first.is_vfio and (first.driver is None or unavailable(self._host, first.driver) is None)

    def _persistent(self, transitions: Sequence[Transition], boot: BootSettings) -> Wanted:
        """The present persistent devices, less those this request is about (or all), plus those it makes persistent."""
        host_drivers = HostDrivers(self._host)
        concerned = {transition.device.address for transition in transitions}
        kept = [item for item in boot.devices if not self._request.exclusive and item.address not in concerned]
        added = [
            PersistentDevice.of(transition.device, transition.after.driver, host_drivers.of(transition.device))
            for transition in transitions
            if transition.persistent and transition.after.driver is not None
        ]
        return boot.wanted([*kept, *added], self._request.options)

    def plan(self, observed: Observation) -> Plan:
        """All bindings as one transaction: every device is detached before the first is bound.

        :raises PassthroughError: with everything that stands against it
        """
        self._refuse(observed)
        plan = Plan(observed.boot.plan_first(observed.persistent))
        changing = [transition for transition in observed.transitions if transition.changes]
        plan.extend(self._forgetting(observed))
        plan.extend(LoadModule(driver) for driver in _drivers(changing) if not self._host.is_dir(f"{DRIVERS}/{driver}"))
        pairs = [self._actions(transition, observed.records) for transition in changing]
        plan.extend(action for detach, _unused in pairs for action in detach)
        plan.extend(action for _unused, attach in pairs for action in attach)
        plan.extend(self._second_looks(observed))
        leaving = [str(item.device.address) for item in changing if item.change is Change.RELEASE]
        plan.extend(observed.boot.plan_last(observed.persistent, leaving))
        return plan

    def _actions(self, transition: Transition, records: DriverRecords) -> tuple[list[Action], list[Action]]:
        """The two steps of a device, detaching it and giving it its driver; either may be empty."""
        before, after = transition.before, transition.after
        between = Binding(before.driver if before.driver == after.driver else None, after.driver_override)
        hang = Hang()

        def step(earlier: Binding, later: Binding) -> list[Action]:
            if earlier == later:
                return []
            record = records.change(transition.device, earlier, later)
            address = transition.device.address
            return [Rebind(address, earlier, later, timeout=self._request.timeout, hang=hang, record=record)]

        return step(before, between), step(between, after)

    def _forgetting(self, observed: Observation) -> list[Action]:
        """Drop what is remembered of devices that are gone, or that somebody else took back, and are concerned."""
        actions: list[Action] = []
        for transition in observed.transitions:
            device = transition.device
            if observed.records.outlived(device, changes=transition.changes):
                has = transition.before.driver or "no driver"
                names = [(KIND, device.key)]
                actions.append(Forget(str(device.address), names, f"it has {has}, and not through this collection"))
        for stale in observed.stale:
            if stale.records and self._drops(stale, observed):
                names = [(KIND, key) for key in stale.records]
                actions.append(Forget(str(stale.address), names, f"the device {stale.ids} is gone"))
        return actions

    def _drops(self, stale: Stale, observed: Observation) -> bool:
        """Whether this run ends what is remembered of a device that is gone."""
        return self._request.exclusive or any(item.device.address == stale.address for item in observed.transitions)

    def _second_looks(self, observed: Observation) -> list[Action]:
        """For each device of which something shows only once it is bound."""
        bound = [transition.device.address for transition in observed.transitions if transition.change is Change.BIND]
        undecided = {finding.device for finding in observed.findings if finding.is_undecided}
        return [LookAgain(address, bound, self._request) for address in bound if str(address) in undecided]

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        """The devices, each with what it has before and after, and what is to be known beside it."""
        pending = observed.boot.pending_options(observed.persistent)
        result: dict[str, Any] = {
            "devices": [transition.as_result() for transition in observed.transitions],
            "stale": [stale.as_result() for stale in observed.stale if stale.driver is not None],
            "options": dict(observed.persistent.options),
            "reboot_required": bool(pending),
        }
        warnings = [finding.text for finding in observed.findings if not finding.refuses]
        warnings += [text for transition in observed.transitions for text in self._to_be_known(transition, observed)]
        warnings += [
            f"{stale.text} When it does not come back, a run with exclusive, or one about that address, forgets it."
            for stale in observed.stale
            if stale.driver is not None and not self._drops(stale, observed)
        ]
        if pending:
            warnings.append(
                f"The running kernel has the module of vfio-pci with other options ({', '.join(pending)}), and reads "
                "them again when the module is loaded only. Devices are bound to it, so it stays loaded: reboot the "
                "host, or give all devices back and bind them again."
            )
        return {**result, "warnings": warnings} if warnings else result

    def _to_be_known(self, transition: Transition, observed: Observation) -> list[str]:
        device = transition.device
        if transition.lost_driver is not None:
            return [
                f"{device.address} had the driver {transition.lost_driver}, which this kernel does not have any more. "
                "The kernel chooses one by the ids of the device, if it has one."
            ]
        better = observed.drivers.passed_over(device) if transition.change is Change.BIND else None
        if better is None:
            return []
        return [
            f"{device.address} keeps vfio-pci, which it has. There is a driver made for it, {better}: to change to "
            f"that, set driver to {better}."
        ]

    # -- what stands against it --------------------------------------------------------------------------

    def _refuse(self, observed: Observation) -> None:
        problems = [
            finding.as_problem() for finding in observed.findings if finding.stands_against(self._request.force)
        ]
        bound = [transition for transition in observed.transitions if transition.change is Change.BIND]
        returning = {item.device.address for item in observed.transitions if item.change is Change.RELEASE}
        problems += unlisted_mates([transition.device for transition in bound], observed.bus, returning)
        drivers = _drivers(transition for transition in bound if transition.changes)
        problems += [missing for missing in map(observed.drivers.missing, drivers) if missing is not None]
        problems += self._replaced(bound, observed)
        if observed.persistent.devices and observed.boot.obstacle is not None:
            problems.append(observed.boot.obstacle)
        problems += self._refuse_options(observed)
        if problems:
            raise PassthroughError.of(problems)

    def _replaced(self, bound: Sequence[Transition], observed: Observation) -> list[Problem]:
        """One problem for each device in the place of another one that this collection bound, unless it is meant."""
        unsure = {item.device.address for item in bound} - observed.confirmed
        return [
            Problem(
                "identity_mismatch",
                f"The device at {stale.address} is not the one that this collection bound there: expected {stale.ids}, "
                f"found {stale.found}.",
                "The hardware was changed or moved. When the device that is there now is meant, say which one it is "
                "(vendor_id and device_id, or expect, in its selector); else correct the address. A run with state "
                "released for this address forgets the old device.",
                {
                    "device": str(stale.address),
                    "differences": [{"field": "ids", "expected": stale.ids, "found": stale.found}],
                },
            )
            for stale in observed.stale
            if stale.address in unsure and stale.found is not None and stale.driver is not None
        ]

    def _refuse_options(self, observed: Observation) -> list[Problem]:
        options = self._request.options
        if not options:
            return []
        problem = vfio_options.built_in_problem(options, observed.boot.loaded)
        kept = {device.address for device in observed.persistent.devices}
        return [*([problem] if problem is not None else []), *vfio_options.unlisted_twins(options, observed.bus, kept)]


def _drivers(transitions: Iterable[Transition]) -> list[str]:
    """The VFIO drivers that devices are to be bound to."""
    return sorted({item.after.driver for item in transitions if item.after.driver and item.change is Change.BIND})


def _tells_devices_apart(selector: Selector) -> bool:
    """Whether a selector says what the device is, so that no other one in the same place is taken for it."""
    said = {*selector.ids, *selector.expect}
    return {"vendor_id", "device_id"} <= said or "serial" in said or bool(selector.serial or selector.mac)


def _with_mates(devices: Sequence[PciDevice], drivers: DriverChoice, bus: RecallingBus) -> list[PciDevice]:
    """The devices and all that have to go with them, in bus order.

    A mate that has another VFIO driver than was named, or is parked on pci-stub, keeps it, and one that has the driver
    that was named is kept bound.
    """
    found = {device.address: device for device in devices}
    for device in devices:
        there = [mate for mate in mates(device, bus) if mate.driver == drivers.of(mate)]
        found.update({mate.address: mate for mate in [*there, *mates_to_take(device, bus)]})
    return [found[address] for address in sorted(found)]


def _with_kept_mates(devices: Sequence[PciDevice], kept: Sequence[PciDevice]) -> list[PciDevice]:
    """The devices and those of their groups that this collection took from the host, in bus order."""
    groups = {device.iommu_group for device in devices if device.iommu_group is not None}
    mates_of_them = [device for device in kept if device.iommu_group in groups]
    found = {device.address: device for device in [*devices, *mates_of_them]}
    return [found[address] for address in sorted(found)]


def build(host: Host, params: dict[str, Any]) -> VfioDevices:
    """The procedure for a module's options.

    :raises PassthroughError: with every problem of the options
    """
    return VfioDevices(host, Request.from_params(params))
