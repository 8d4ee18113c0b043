# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domains and networks of a libvirt, as far as they are about PCI devices of the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from .._core.errors import PassthroughError, Problem
from .._pci.address import PciAddress
from .connection import Connection, Domain, Network
from .definition import Definition
from .network import NetworkDefinition, Pool, Port
from .network_change import users_of
from .place import running


@dataclass(frozen=True)
class DomainEntry:
    """One domain."""

    name: str
    uuid: str
    persistent: bool
    config: Definition
    """The definition for its next start; of a domain that has none, what it was made from."""
    live: Optional[Definition]
    """What runs; None for a domain that does not."""

    own: Sequence[PciAddress]
    """The devices that it has by hostdev or interface, in its definition or while it runs, each once."""
    pooled: Sequence[PciAddress]
    """The devices that it has from a network now."""


@dataclass(frozen=True)
class PoolEntry:
    """One network that is a pool of VFs."""

    name: str
    uuid: str
    persistent: bool
    active: bool
    autostart: bool
    config: NetworkDefinition
    pool: Pool
    """What that says of the pool."""
    users: Sequence[Port]
    """The guest interfaces that are connected now."""


@dataclass(frozen=True)
class Inventory:
    """What a libvirt has, by name, and what of it could not be read."""

    domains: Sequence[DomainEntry]
    pools: Sequence[PoolEntry]
    networks: frozenset[str]
    """The names of all networks, pools or not."""
    unreadable: Sequence[tuple[str, Problem]]
    """What cannot be read (``domain web01``), and why."""


def inventory(connection: Connection) -> Inventory:
    """Ask a libvirt for everything. What vanishes meanwhile is left out.

    :raises PassthroughError: ``libvirt_refused``
    """
    domains, pools, names, unreadable = [], [], set(), []
    for domain in connection.domains():
        try:
            domains.append(domain_entry(domain))
        except PassthroughError as error:
            unreadable += _told("domain", domain, error)
    for network in connection.networks():
        try:
            names.add(network.name)
            pool = pool_entry(network)
        except PassthroughError as error:
            unreadable += _told("network", network, error)
            continue
        if pool is not None:
            pools.append(pool)
    return Inventory(
        sorted(domains, key=lambda one: one.name),
        sorted(pools, key=lambda one: one.name),
        frozenset(names),
        unreadable,
    )


def domain_entry(domain: Domain) -> DomainEntry:
    """Ask for one domain.

    :raises PassthroughError: ``libvirt_refused``, ``domain_xml_invalid``
    """
    config = Definition(domain.config_xml())
    live = running(domain) if domain.active else None
    own = [one.source for one in config.hostdevs] + ([] if live is None else [one.source for one in live.hostdevs])
    pooled = [] if live is None else live.pooled_sources
    return DomainEntry(
        domain.name, domain.uuid, domain.persistent, config, live, list(dict.fromkeys(own)), list(pooled)
    )


def pool_entry(network: Network) -> PoolEntry | None:
    """Ask for one network; None for one that is no pool.

    :raises PassthroughError: ``libvirt_refused``, ``network_xml_invalid``
    """
    config = NetworkDefinition(network.config_xml())
    if not config.is_pool:
        return None
    return PoolEntry(
        network.name,
        network.uuid,
        network.persistent,
        network.active,
        network.persistent and network.autostart,
        config,
        config.pool,
        users_of(network),
    )


def _told(kind: str, thing: Domain | Network, error: PassthroughError) -> list[tuple[str, Problem]]:
    if error.problems[0].details.get("libvirt_code") in ("VIR_ERR_NO_DOMAIN", "VIR_ERR_NO_NETWORK"):
        return []
    return [(f"{kind} {thing.name}", problem) for problem in error.problems]
