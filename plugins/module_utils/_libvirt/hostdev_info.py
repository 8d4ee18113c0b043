# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module ``hostdev_info`` does: who has which PCI device of the host, and what is wrong with that."""

from __future__ import annotations

import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.state import StateStore
from .._pci.address import PciAddress
from .._pci.device import Bus, is_vfio_driver
from .._vfio.guards.base import GuardContext
from .._vfio.memory import DriverRecords, recalling_bus
from .connection import Connect, Connection, check_uri, connect
from .definition import Definition, parse_xml
from .document import spliced
from .domain_hostdevs import DEFAULT_URI
from .element import Version
from .inventory import DomainEntry, Inventory, PoolEntry, inventory
from .network import NetworkDefinition, members
from .rules.context import Context, OtherDomain, Subject
from .rules.needed import refusals
from .rules.network import WITHIN_POOL, PoolContext, broken_pool
from .rules.registry import WITHIN, broken
from .schema import NetworkSchema, Schema
from .text import MAX_BYTES

DOMAIN = "domain"
NETWORK = "network"


def argument_spec() -> dict[str, Any]:
    """The argument spec of the module."""
    return {"uri": {"type": "str", "default": DEFAULT_URI}, "path": {"type": "list", "elements": "path"}}


def hostdev_report(host: Host, parameters: Mapping[str, Any], connector: Connect = connect) -> dict[str, Any]:
    """The module's result.

    :raises PassthroughError: when nothing can be said at all (no libvirt, no such path)
    """
    if parameters.get("path") is not None:
        return _of_files(host, parameters["path"])
    check_uri(parameters["uri"])
    return _OfHost(host, connector, parameters["uri"]).report()


@dataclass(frozen=True)
class Owner:
    """Somebody who has a device."""

    kind: str
    name: str
    how: str
    """``hostdev``, ``interface``, ``network`` (a domain has it from a pool now) or ``pool`` (it may give it)."""
    configured: bool
    running: bool

    @property
    def claims(self) -> bool:
        """Whether nobody else can have the device beside."""
        return self.how != NETWORK

    def as_result(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))


# -- a host -------------------------------------------------------------------------------------------------


class _OfHost:
    def __init__(self, host: Host, connector: Connect, uri: str) -> None:
        self._host = host
        connection = connector(uri)
        self._version, self._qemu = connection.version, _qemu_version(connection)
        self._bus = recalling_bus(host)
        self._guards = GuardContext(host, self._bus)
        self._found: Inventory = inventory(connection)
        self._members = {pool.name: members(pool.pool, host, self._bus) for pool in self._found.pools}
        self._owners = self._owned()
        self._unreadable: list[str] = []
        try:
            self._records: DriverRecords | None = DriverRecords(StateStore(host))
        except PassthroughError as error:
            if error.code != "file_unreadable":
                raise
            self._records = None
            self._unreadable.append(str(error.problems[0].details.get("path", error.problems[0].message)))

    def report(self) -> dict[str, Any]:
        problems = [(where, None, problem) for where, problem in self._found.unreadable]
        domains, networks = [], []
        for domain in self._found.domains:
            found = self._of_domain(domain)
            problems += [(f"{DOMAIN} {domain.name}", None, problem) for problem in found]
            domains.append(_domain_result(domain.config, found, entry=domain))
        for pool in self._found.pools:
            found = self._of_pool(pool)
            problems += [(f"{NETWORK} {pool.name}", None, problem) for problem in found]
            networks.append(_network_result(pool.config, found, self._members[pool.name], entry=pool))
        return _result(domains, networks, self._devices(), problems, self._unreadable)

    def _owned(self) -> dict[PciAddress, list[Owner]]:
        owners: dict[PciAddress, list[Owner]] = defaultdict(list)
        for domain in self._found.domains:
            configured = {one.source: one.value.kind for one in domain.config.hostdevs} if domain.persistent else {}
            live = {} if domain.live is None else {one.source: one.value.kind for one in domain.live.hostdevs}
            for address in domain.own:
                how = str(configured.get(address) or live.get(address) or "hostdev")
                owners[address].append(Owner(DOMAIN, domain.name, how, address in configured, address in live))
            for address in domain.pooled:
                owners[address].append(Owner(DOMAIN, domain.name, NETWORK, False, True))
        for pool in self._found.pools:
            for address in self._members[pool.name]:
                owners[address].append(Owner(NETWORK, pool.name, "pool", pool.persistent, pool.active))
        return owners

    def _devices(self) -> list[dict[str, Any]]:
        found = []
        for address in sorted(self._owners):
            device = self._bus.device(address) if address in self._bus else None
            found.append(
                {
                    **_device_result(address, self._owners[address]),
                    "present": device is not None,
                    "description": None if device is None else device.line,
                    "driver": None if device is None else device.driver,
                    "iommu_group": None if device is None else device.iommu_group,
                }
            )
        return found

    def _of_domain(self, domain: DomainEntry) -> list[Problem]:
        context = Context(
            subjects=_subjects(domain.name, domain.config),
            removed=frozenset(),
            definition=domain.config,
            others=[
                OtherDomain(
                    other.name,
                    other.live is not None,
                    frozenset(other.config.sources),
                    frozenset(() if other.live is None else other.live.sources),
                )
                for other in self._found.domains
                if other.uuid != domain.uuid
            ],
            version=self._version,
            host=self._host,
            bus=self._bus,
            qemu=self._qemu,
        )
        found = broken(context)
        found += self._host_needs(context) if domain.live is None else []
        found += self._drifted(context)
        found += self._lost_networks(domain)
        return list({problem.text: problem for problem in found}.values())

    def _host_needs(self, context: Context) -> Iterator[Problem]:
        """What the host lives on and would lose when the domain starts."""
        for subject in context.requested:
            device = context.device(subject.source)
            if device is None or subject.hostdev.managed is False or is_vfio_driver(device.driver):
                continue
            for finding in refusals(device, self._guards):
                yield subject.problem(finding.code, finding.message, finding.remedy)

    def _drifted(self, context: Context) -> Iterator[Problem]:
        """Devices that are not those that this collection once prepared for a guest at their address."""
        for subject in context.requested:
            device = context.device(subject.source)
            recorded = [] if self._records is None else self._records.ids_at(subject.source)
            if device is not None and recorded and device.ids not in recorded:
                yield subject.problem(
                    "device_drifted",
                    f"at this address is {device.line} now, but a device {' or '.join(recorded)} was bound there for a "
                    "guest; addresses move when hardware is added or removed.",
                    "Find where it is now with kvm.passthrough.pci_device_info, and name that address. With expect in "
                    "selectors this is found before anything is changed.",
                    value=device.ids,
                    recorded=recorded,
                )

    def _lost_networks(self, domain: DomainEntry) -> Iterator[Problem]:
        """Interfaces of a network, or of a port group of a pool, that is not there.

        Source: libvirt ``networkAllocatePort``, when the domain starts.
        """
        pools = {pool.name: pool for pool in self._found.pools}
        for source in domain.config.root.iterfind("devices/interface[@type='network']/source"):
            network, group = source.get("network", ""), source.get("portgroup")
            if network not in self._found.networks:
                yield Problem(
                    "network_not_found",
                    f"{domain.name}: it has an interface of the network {network}, which is not there, so that it does "
                    "not start.",
                    "Define the network (a pool of VFs: kvm.passthrough.hostdev_network), or correct the domain.",
                    {"network": network},
                )
            elif group and network in pools:
                names = [one.name for one in pools[network].pool.portgroups or ()]
                if group not in names:
                    yield Problem(
                        "portgroup_not_found",
                        f"{domain.name}: it has an interface of the port group {group} of the network {network}, which "
                        f"has {', '.join(names) or 'none'}; the interface gets the settings of the network itself.",
                        "Add the port group (portgroups of kvm.passthrough.hostdev_network), or correct the domain.",
                        {"network": network, "portgroup": group},
                    )

    def _of_pool(self, pool: PoolEntry) -> list[Problem]:
        others = {
            address: [f"the {owner.kind} {owner.name}" for owner in owners if owner.claims and not _is(owner, pool)]
            for address, owners in self._owners.items()
        }
        return broken_pool(
            PoolContext(
                name=pool.name,
                pool=pool.pool,
                asked=None,
                known=frozenset(),
                runs=pool.active or pool.autostart,
                others=others,
                version=self._version,
                host=self._host,
                bus=self._bus,
            )
        )


def _qemu_version(connection: Connection) -> Version | None:
    """The version of QEMU, or None: a host without it may have definitions all the same."""
    try:
        return connection.qemu_version
    except PassthroughError:
        return None


def _is(owner: Owner, pool: PoolEntry) -> bool:
    return (owner.kind, owner.name) == (NETWORK, pool.name)


# -- files --------------------------------------------------------------------------------------------------


def _of_files(host: Host, paths: Sequence[str]) -> dict[str, Any]:
    """What is wrong in definitions on disk, by what can be known without libvirt and without the host they are for."""
    schema, network_schema = Schema(host), NetworkSchema(host)
    domains, networks = [], []
    problems: list[tuple[str, Optional[str], Problem]] = []
    owners: dict[PciAddress, list[Owner]] = defaultdict(list)
    for path, named in _files(host, paths):
        try:
            definition = _read(host, path, named)
            if isinstance(definition, Definition):
                name = (definition.root.findtext("name") or "").strip()
                found = _of_domain_file(host, name, definition, schema)
                domains.append({**_domain_result(definition, found), "path": path})
                for one in definition.hostdevs:
                    owners[one.source].append(Owner(DOMAIN, name, str(one.value.kind), True, False))
            elif definition is not None:
                name = definition.name
                found = _of_network_file(host, definition, network_schema)
                networks.append({**_network_result(definition, found, definition.pool.addresses or ()), "path": path})
                for address in definition.pool.addresses or ():
                    owners[address].append(Owner(NETWORK, name, "pool", True, False))
            else:
                continue
            kind = DOMAIN if isinstance(definition, Definition) else NETWORK
            problems += [(f"{kind} {name}", path, problem) for problem in found]
        except PassthroughError as error:
            problems += [(f"file {path}", path, problem) for problem in error.problems]
    devices = [
        {
            **_device_result(address, owners[address]),
            **dict.fromkeys(("present", "description", "driver", "iommu_group")),
        }
        for address in sorted(owners)
    ]
    result = _result(domains, networks, devices, problems, [])
    if not schema.installed:
        result["warnings"] = [
            "libvirt's schema (/usr/share/libvirt/schemas) is not installed here, so the definitions were not checked "
            "against it."
        ]
    return result


def _files(host: Host, paths: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """The files that are meant, each once, and whether it was named itself.

    :raises PassthroughError: ``path_not_found``, ``path_not_absolute``
    """
    problems = []
    for number, path in enumerate(paths):
        if not path.startswith("/"):
            problems.append(
                Problem("path_not_absolute", f"path[{number}] {path!r} is no absolute path.", "Give the whole path.")
            )
        elif not host.exists(path):
            problems.append(Problem("path_not_found", f"path[{number}] {path} does not exist.", details={"path": path}))
    if problems:
        raise PassthroughError.of(problems)
    done: set[str] = set()
    todo = [(path, True) for path in reversed(paths)]
    while todo:
        path, named = todo.pop()
        real = host.real_path(path)
        if real in done:
            continue
        done.add(real)
        if host.is_dir(path):
            inside = [posixpath.join(path, name) for name in sorted(host.list_dir(path), reverse=True)]
            todo += [(one, False) for one in inside if one.endswith(".xml") or host.is_dir(one)]
        else:
            yield path, named


def _read(host: Host, path: str, named: bool) -> Definition | NetworkDefinition | None:
    """A definition of a domain or a pool; None for another document that was found in a folder.

    :raises PassthroughError: with what stands against reading it
    """
    content = host.read_bytes(path)
    if len(content) > MAX_BYTES:
        raise PassthroughError(
            "domain_xml_invalid",
            f"It has {len(content)} bytes; libvirt takes {MAX_BYTES} at most.",
            "A definition has some thousand bytes: is this one?",
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PassthroughError(
            "domain_xml_invalid", f"It is not in UTF-8: {error}.", "Save it in UTF-8; virsh reads no other."
        ) from error
    root = parse_xml(text)
    if root.tag == DOMAIN:
        spliced(text, {})  # what libvirt does not read either: too large, too deep
        return Definition(text)
    if root.tag == NETWORK:
        network = NetworkDefinition(text)
        return network if network.is_pool else None
    if named:
        raise PassthroughError(
            "domain_xml_invalid",
            f"It is no definition of a domain or a network: its outermost element is {root.tag!r}.",
        )
    return None


def _of_domain_file(host: Host, name: str, definition: Definition, schema: Schema) -> list[Problem]:
    context = Context(
        subjects=_subjects(name, definition),
        removed=frozenset(),
        definition=definition,
        others=(),
        version=None,
        host=host,
        bus=Bus(host),  # no rule of these looks at it
    )
    found = broken(context, WITHIN)
    for subject, one in zip(context.subjects, definition.hostdevs):
        messages = schema.check_part(parse_xml(one.text)) if schema.installed else []
        if messages:
            found.append(
                subject.problem(
                    "schema_violation",
                    f"libvirt's schema does not allow\n{one.text}\nIt says: {'; '.join(messages)}.",
                    "Correct it; without a check (virsh define --validate) libvirt drops or misreads it silently.",
                    schema_errors=messages,
                )
            )
    return found


def _of_network_file(host: Host, definition: NetworkDefinition, schema: NetworkSchema) -> list[Problem]:
    bus = Bus(host)
    context = PoolContext(definition.name, definition.pool, None, frozenset(), False, {}, (0, 0, 0), host, bus)
    found = broken_pool(context, WITHIN_POOL)
    messages = schema.check_network(definition.root) if schema.installed else []
    if messages:
        found.append(
            context.problem(
                "schema_violation",
                f"libvirt's schema does not allow it. It says: {'; '.join(messages)}.",
                "Correct it; without a check (virsh net-define --validate) libvirt drops or misreads it silently.",
                schema_errors=messages,
            )
        )
    return found


# -- both ---------------------------------------------------------------------------------------------------


def _subjects(name: str, definition: Definition) -> list[Subject]:
    """Every device of a definition, as what somebody asks for, so that the rules look at all of them."""
    return [Subject(one.value, f"{name}, {one.value.kind}") for one in definition.hostdevs]


def _domain_result(
    definition: Definition, problems: Sequence[Problem], entry: DomainEntry | None = None
) -> dict[str, Any]:
    live = None if entry is None else entry.live
    hostdevs = [one.value.as_result() for one in definition.hostdevs]
    configured = {one.source for one in definition.hostdevs}
    return {
        "name": (definition.root.findtext("name") or "").strip(),
        "uuid": (definition.root.findtext("uuid") or "").strip() or None,
        "path": None,
        "active": None if entry is None else live is not None,
        "persistent": None if entry is None else entry.persistent,
        "hostdevs": hostdevs,
        "running_with": [str(address) for address in (live.sources if live else ())],
        "restart_required": live is not None and {one.source for one in live.hostdevs} != configured,
        "networks": sorted(
            {
                source.get("network", "")
                for source in definition.root.iterfind("devices/interface[@type='network']/source")
            }
        ),
        "codes": sorted({problem.code for problem in problems}),
    }


def _network_result(
    definition: NetworkDefinition,
    problems: Sequence[Problem],
    vfs: Sequence[PciAddress],
    entry: PoolEntry | None = None,
) -> dict[str, Any]:
    return {
        "name": definition.name,
        "uuid": (definition.root.findtext("uuid") or "").strip() or None,
        "path": None,
        "active": None if entry is None else entry.active,
        "autostart": None if entry is None else entry.autostart,
        **definition.pool.as_result(),
        "vfs": [str(address) for address in vfs],
        "used_by": [] if entry is None else sorted({port.owner for port in entry.users}),
        "codes": sorted({problem.code for problem in problems}),
    }


def _device_result(address: PciAddress, owners: Sequence[Owner]) -> dict[str, Any]:
    claims = {(owner.kind, owner.name) for owner in owners if owner.claims}
    return {
        "address": str(address),
        "owners": [owner.as_result() for owner in owners],
        "conflict": len(claims) > 1,
    }


def _result(
    domains: Sequence[Mapping[str, Any]],
    networks: Sequence[Mapping[str, Any]],
    devices: Sequence[Mapping[str, Any]],
    problems: Sequence[tuple[str, Optional[str], Problem]],
    unreadable: Sequence[str],
) -> dict[str, Any]:
    return {
        "domains": list(domains),
        "networks": list(networks),
        "devices": list(devices),
        "problems": [
            {**problem.as_result(), "where": where, "path": path, "remedy": problem.remedy}
            for where, path, problem in problems
        ],
        "ok": not problems,
        "unreadable": list(unreadable),
    }
