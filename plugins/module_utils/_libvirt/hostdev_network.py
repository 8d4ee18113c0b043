# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module ``hostdev_network`` does: one libvirt network that is a pool of VFs, as a person wants it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Optional

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.plan import Action, Plan
from .._pci.address import PciAddress
from .._pci.device import Bus
from .._pci.grammar import parse_selector
from .._pci.selector import Selector, select_all
from .._vfio.memory import recalling_bus
from .connection import Connect, Connection, check_uri, connect
from .definition import parse_xml
from .domain_hostdevs import DEFAULT_URI
from .element import Version, bindings, version_text
from .inventory import inventory
from .network import (
    NetworkDefinition,
    Pool,
    Port,
    changed_to,
    given,
    members,
    name_given,
    network_text,
    pool_options,
    references,
)
from .network_change import DefineNetwork, SetActive, SetAutostart, in_use, users_of
from .rules.network import PoolContext, broken_pool
from .schema import NetworkSchema

PRESENT = "present"
ABSENT = "absent"
ACTIVE = "active"
INACTIVE = "inactive"


def argument_spec() -> dict[str, Any]:
    """The argument spec of the module."""
    return {
        "name": {"type": "str"},
        "uri": {"type": "str", "default": DEFAULT_URI},
        "state": {"type": "str", "choices": [PRESENT, ABSENT, ACTIVE, INACTIVE], "default": ACTIVE},
        "autostart": {"type": "bool"},
        "pf": {"type": "raw"},
        "devices": {"type": "list", "elements": "raw"},
        **pool_options(),
        "revert": {"type": "bool", "default": False},
    }


REQUIRED_IF = [("revert", False, ("name",))]
"""Which options have to be there."""


@dataclass(frozen=True)
class Present:
    """A pool that is there."""

    uuid: str
    config: NetworkDefinition
    live: Optional[NetworkDefinition]
    """What is active; None for a network that is not."""
    autostart: bool
    users: Sequence[Port]
    """The guest interfaces that are connected now."""


@dataclass(frozen=True)
class Observation:
    """The network and the host at one moment."""

    present: Optional[Present]
    asked: Pool
    """What a person says, with the VFs that are meant."""
    others: Mapping[PciAddress, Sequence[str]]
    """Who else has a device."""
    referrers: Sequence[str]
    """The domains whose definitions name the network."""
    version: Version
    bus: Bus


@dataclass(frozen=True)
class Target:
    """The network as it shall be."""

    pool: Pool
    active: bool
    autostart: bool
    changes: bool
    """Whether the definition changes."""
    outdated: bool
    """Whether what is active is not what is defined then."""


def build(host: Host, parameters: Mapping[str, Any], connector: Connect = connect) -> HostdevNetwork:
    """Check the options of the module, all of them at once.

    :raises PassthroughError: with every problem of the options and of the devices they select
    """
    problems: list[Problem] = []
    name = str(parameters["name"])
    try:
        name = name_given(name)
    except ValueError as error:
        problems.append(
            Problem(
                "network_name_invalid",
                f"name {name!r} is not possible: {error}.",
                details={"field": "name", "value": name},
            )
        )
    try:
        check_uri(parameters["uri"])
    except PassthroughError as error:
        problems += error.problems
    settings, wrong = given(parameters, f"network {name}")
    problems += wrong
    pf: Selector | None = None
    devices: list[Selector] = []
    raw_pf, raw_devices = parameters.get("pf"), parameters.get("devices")
    if raw_pf is not None and raw_devices is not None:
        problems.append(
            Problem(
                "pf_with_devices",
                "pf and devices are both given, but libvirt takes one of them, and forgets the PF of a network that "
                "lists VFs too.",
                "Give pf for all VFs of a PF, or devices for some.",
                {"field": "pf"},
            )
        )
    if raw_devices is not None and not raw_devices and parameters["state"] != ABSENT:
        problems.append(
            Problem("pool_empty", "devices is an empty list.", "Name the VFs of the pool.", {"field": "devices"})
        )
    for where, raw in [("pf", raw_pf)] * (raw_pf is not None) + [
        (f"devices[{number}]", one) for number, one in enumerate(raw_devices or [])
    ]:
        try:
            selector = parse_selector(raw, where)
        except PassthroughError as error:
            problems += error.problems
            continue
        if where == "pf":
            pf = selector
        else:
            devices.append(selector)
    procedure = HostdevNetwork(host, connector, name, parameters, settings, pf, devices)
    try:
        procedure.select(recalling_bus(host))
    except PassthroughError as error:
        problems += error.problems
    if problems:
        raise PassthroughError.of(problems)
    return procedure


class HostdevNetwork:
    """The procedure of the module; see :class:`_core.runner.Procedure`."""

    def __init__(
        self,
        host: Host,
        connector: Connect,
        name: str,
        parameters: Mapping[str, Any],
        settings: Pool,
        pf: Selector | None,
        devices: Sequence[Selector],
    ) -> None:
        self._host = host
        self._connector = connector
        self._name = name
        self._uri: str = parameters["uri"]
        self._state: str = parameters["state"]
        self._autostart: bool | None = parameters.get("autostart")
        self._settings = settings
        self._pf = pf
        self._devices = devices
        self._schema = NetworkSchema(host)

    @cached_property
    def _connection(self) -> Connection:
        return self._connector(self._uri)

    # -- observing --------------------------------------------------------------------------------------

    def select(self, bus: Bus) -> Pool:
        """What is asked for, with the VFs that are meant.

        :raises PassthroughError: with every problem of every selector
        """
        if self._state == ABSENT:
            return self._settings
        if self._pf is not None:
            return replace(self._settings, pf=self._interface(self._pf, bus))
        if self._devices:
            found = [
                device.address for _unused, chosen in select_all(self._devices, bus, distinct=True) for device in chosen
            ]
            return replace(self._settings, addresses=tuple(sorted(found)))
        return self._settings

    def _interface(self, selector: Selector, bus: Bus) -> str:
        """The network interface of the PF that is meant."""
        devices = selector.select(bus)
        device = devices[0]
        if len(devices) > 1 or device.sriov_totalvfs is None:
            raise PassthroughError(
                "not_a_pf",
                f"pf: {device.line} has no SR-IOV capability that the kernel can use."
                if len(devices) == 1
                else f"pf: {len(devices)} devices are meant, but a pool has one PF.",
                "Name the PF of a card with SR-IOV, or the VFs as devices.",
                device=str(device.address),
            )
        # Not those that it had, which the bus may recall.
        interfaces = [name for name in device.interfaces if self._host.exists(f"/sys/class/net/{name}")]
        if not interfaces:
            raise PassthroughError(
                "pf_without_interface",
                f"pf: {device.line} has no network interface now, by which libvirt names a PF.",
                f"Bind it to its own driver; now it is bound to {device.driver or 'none'}.",
                device=str(device.address),
                driver=device.driver,
            )
        wanted = selector.interface
        return wanted if wanted in interfaces else interfaces[0]

    def observe(self) -> Observation:
        bus = recalling_bus(self._host)
        asked = self.select(bus)
        present = self._present()
        others, referrers = self._around(bus)
        return Observation(present, asked, others, referrers, self._connection.version, bus)

    def _present(self) -> Present | None:
        network = self._connection.network(self._name)
        if network is None:
            return None
        if not network.persistent:
            raise PassthroughError(
                "network_transient",
                f"The network {self._name} is transient: it has no definition to be changed, and is gone when stopped.",
                f"Stop it (virsh net-destroy {self._name}), or give the pool another name.",
                network=self._name,
            )
        config = NetworkDefinition(network.config_xml())
        if not config.is_pool:
            raise PassthroughError(
                "network_not_a_pool",
                f"The network {self._name} is there, but is no pool of VFs: "
                + (f"it forwards by {config.mode}." if config.mode else "it does not forward."),
                "This module leaves it alone. Give the pool another name.",
                network=self._name,
                mode=config.mode,
            )
        live = NetworkDefinition(network.live_xml()) if network.active else None
        return Present(network.uuid, config, live, network.autostart, users_of(network))

    def _around(self, bus: Bus) -> tuple[dict[PciAddress, list[str]], list[str]]:
        """Who else has which device, and whose definition names the network."""
        found = inventory(self._connection)
        if found.unreadable:
            told = [replace(problem, message=f"{where}: {problem.message}") for where, problem in found.unreadable]
            raise PassthroughError.of(told)
        others: dict[PciAddress, list[str]] = defaultdict(list)
        for pool in found.pools:
            if pool.name != self._name:
                for address in members(pool.pool, self._host, bus):
                    others[address].append(f"the network {pool.name}")
        for domain in found.domains:
            for address in domain.own:
                others[address].append(f"the domain {domain.name}")
        referrers = [domain.name for domain in found.domains if references(domain.config.root, self._name)]
        return dict(others), referrers

    # -- planning ---------------------------------------------------------------------------------------

    def plan(self, observed: Observation) -> Plan:
        present = observed.present
        if self._state == ABSENT:
            return Plan(self._removal(present))
        target = self._target(observed)
        problems = broken_pool(self._context(observed, target))
        text = network_text(self._name, target.pool, None if present is None else present.config)
        if target.changes and not problems:
            problems += self._against_schema(observed, text)
        if problems:
            raise PassthroughError.of(problems)
        return Plan(self._actions(observed, target, text))

    def _removal(self, present: Present | None) -> list[Action]:
        if present is None:
            return []
        actions: list[Action] = []
        if present.live is not None:
            if present.users:
                raise in_use(self._name, present.users, "removed")
            actions.append(SetActive(self._connection, self._uri, self._name, False))
        if present.autostart:
            actions.append(SetAutostart(self._connection, self._uri, self._name, False))
        return [*actions, DefineNetwork(self._connection, self._uri, self._name, present.config.text, None, None)]

    def _target(self, observed: Observation) -> Target:
        present = observed.present
        before = None if present is None else present.config.pool
        pool = changed_to(observed.asked, before)
        was_active = present is not None and present.live is not None
        active = self._state == ACTIVE or (self._state == PRESENT and was_active)
        autostart = self._autostart
        if autostart is None:
            autostart = self._state == ACTIVE if present is None else present.autostart
        return Target(
            pool=pool,
            active=active,
            autostart=autostart,
            changes=pool != before,
            outdated=present is not None
            and present.live is not None
            and not _same(present.live.pool, pool, members(pool, self._host, observed.bus)),
        )

    def _context(self, observed: Observation, target: Target) -> PoolContext:
        present = observed.present
        known = [] if present is None else members(present.config.pool, self._host, observed.bus)
        return PoolContext(
            name=self._name,
            pool=target.pool,
            asked=observed.asked,
            known=frozenset(known if present is not None and present.config.pool.managed else ()),
            runs=target.active or target.autostart,
            others=observed.others,
            version=observed.version,
            host=self._host,
            bus=observed.bus,
        )

    def _against_schema(self, observed: Observation, text: str) -> list[Problem]:
        """What the host's own schema has against the new definition, when it has nothing against the old one."""
        present = observed.present
        if not self._schema.installed or (
            present is not None and self._schema.check_network(parse_xml(present.config.text))
        ):
            return []
        found = self._schema.check_network(parse_xml(text))
        if not found:
            return []
        return [
            Problem(
                "schema_violation",
                f"network {self._name}: the schema of this host's libvirt {version_text(observed.version)} does not "
                f"allow\n{text}\nIt says: {'; '.join(found)}.",
                "Leave out what it does not know, or update libvirt on the host.",
                {"network": self._name, "schema_errors": found},
            )
        ]

    def _actions(self, observed: Observation, target: Target, text: str) -> list[Action]:
        present = observed.present
        actions: list[Action] = []
        is_active = present is not None and present.live is not None
        if present is not None and is_active:
            if not target.active and present.users:
                raise in_use(self._name, present.users, "stopped")
            if not target.active or (target.outdated and not present.users):
                actions.append(SetActive(self._connection, self._uri, self._name, False))
                is_active = False
        if target.changes:
            before = None if present is None else present.config.text
            actions.append(DefineNetwork(self._connection, self._uri, self._name, before, text, target.pool))
        if target.autostart != (present is not None and present.autostart):
            actions.append(SetAutostart(self._connection, self._uri, self._name, target.autostart))
        if target.active and not is_active:
            actions.append(SetActive(self._connection, self._uri, self._name, True))
        return actions

    # -- reporting --------------------------------------------------------------------------------------

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        present = observed.present
        users = [] if present is None else [port.owner for port in present.users]
        result: dict[str, Any] = {
            "network": None,
            "vfs": [],
            "connections": len(users),
            "used_by": sorted(set(users)),
            "referenced_by": list(observed.referrers),
            "restart_required": False,
        }
        warnings = []
        if self._state == ABSENT:
            if observed.referrers and present is not None:
                warnings.append(
                    f"The definition of {', '.join(observed.referrers)} names the network {self._name}, without which "
                    "a domain does not start."
                )
        else:
            target = self._target(observed)
            restart = target.active and target.outdated and bool(users)
            result.update(
                network={
                    "name": self._name,
                    "uuid": None if present is None else present.uuid,
                    "active": target.active,
                    "autostart": target.autostart,
                    **target.pool.as_result(),
                },
                vfs=self._vfs(observed, target),
                restart_required=restart,
            )
            if restart:
                warnings.append(
                    f"The network {self._name} is used by {', '.join(sorted(set(users)))}, so that it goes on as it "
                    "was started. Its new definition takes effect when it is started again, which this module does "
                    "once no guest uses it."
                )
            if target.changes and not self._schema.installed:
                warnings.append(
                    "This host does not have libvirt's schema of networks (/usr/share/libvirt/schemas), so the "
                    "definition was not checked against it."
                )
        if warnings:
            result["warnings"] = warnings
        return result

    def _vfs(self, observed: Observation, target: Target) -> list[dict[str, Any]]:
        users = {} if observed.present is None else {port.device: port.owner for port in observed.present.users}
        found = []
        for address in members(target.pool, self._host, observed.bus):
            device = observed.bus.device(address) if address in observed.bus else None
            found.append(
                {
                    "address": str(address),
                    "pf": None if device is None or device.pf is None else str(device.pf),
                    "driver": None if device is None else device.driver,
                    "iommu_group": None if device is None else device.iommu_group,
                    "used_by": users.get(address),
                }
            )
        return found


def _same(live: Pool, pool: Pool, vfs: Sequence[PciAddress]) -> bool:
    """Whether an active network is what the definition would be when it is started.

    One of a PF lists the VFs that the PF had when it was started (libvirt ``networkCreateInterfacePool``).
    """
    for name, _unused in bindings(pool):
        wanted = getattr(pool, name)
        if name == "addresses":
            wanted = tuple(sorted(vfs))
        if wanted is not None and getattr(live, name) != wanted:
            return False
    return True
