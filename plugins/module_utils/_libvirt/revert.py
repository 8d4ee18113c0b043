# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take back what domain_hostdevs and hostdev_network did on a host, by its records.

What still is as the last change left it becomes what it was before the first. What somebody else has changed since is
theirs: it stays, and is told. A domain, a file or a network that is gone needs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

from .._core.host import Host
from .._core.kept import Kept
from .._core.options import refuse_options_beside_revert
from .._core.plan import Action, Plan
from .._core.python import missing_modules
from .._core.state import Record, StateStore
from .._pci.address import PciAddress
from .change import CONTROLLERS_KIND, RECORD_KIND, HostdevChange, RemoveControllers, essence
from .connection import PACKAGES, XML_MODULE, Connect, Connection, Network, connect
from .definition import Definition, element_text, parse_xml
from .definition_file import DefinitionFile, path_of
from .hostdev import parse
from .network import NetworkDefinition
from .network_change import (
    ACTIVE_KIND,
    AUTOSTART_KIND,
    DEFINITION_KIND,
    DefineNetwork,
    SetActive,
    SetAutostart,
    in_use,
    users_of,
)
from .place import ConfigPlace

DOMAIN_KINDS = (RECORD_KIND, CONTROLLERS_KIND)
NETWORK_KINDS = (DEFINITION_KIND, AUTOSTART_KIND, ACTIVE_KIND)


def build_domains(
    host: Host, parameters: Mapping[str, Any], missing: Sequence[str] = (), connector: Connect = connect
) -> RevertDomains:
    """Make the procedure of domain_hostdevs with the option revert.

    :param missing: Python modules that libvirt takes, and that are not there
    :raises PassthroughError: ``revert_excludes_options``, ``python_module_missing``, ``state_unreadable``
    """
    refuse_options_beside_revert(parameters, ("revert", "uri", "state", "scope", "timeout"))
    store = StateStore(host)
    in_files = [record for record in store.all(RECORD_KIND) if path_of(record.key) is not None]
    in_domains = len(store.all(RECORD_KIND)) > len(in_files) or store.all(CONTROLLERS_KIND)
    needed = [name for name in missing if in_domains or (in_files and name == XML_MODULE)]
    if needed:
        raise missing_modules(needed, PACKAGES)
    return RevertDomains(host, connector)


def build_networks(
    host: Host, parameters: Mapping[str, Any], missing: Sequence[str] = (), connector: Connect = connect
) -> RevertNetworks:
    """Make the procedure of hostdev_network with the option revert; see :func:`build_domains`."""
    refuse_options_beside_revert(parameters, ("revert", "uri", "state", "managed"))
    # A host on which nothing was done needs no bindings to be left as it is.
    if missing and any(StateStore(host).all(kind) for kind in NETWORK_KINDS):
        raise missing_modules(missing, PACKAGES)
    return RevertNetworks(host, connector)


class _Revert:
    """What both procedures have: the records, and the libvirts they speak of."""

    kinds: Sequence[str]

    def __init__(self, host: Host, connector: Connect) -> None:
        self._host = host
        self._connector = connector
        self._connections: dict[str, Connection] = {}

    def _connection(self, uri: str) -> Connection:
        if uri not in self._connections:
            self._connections[uri] = self._connector(uri)
        return self._connections[uri]

    def _returned(self, store: StateStore, actions: Sequence[Action]) -> list[tuple[str, str]]:
        """All records. Also when nothing is left to do: an earlier run may have been killed just before that."""
        names = [(record.kind, record.key) for kind in self.kinds for record in store.all(kind)]
        return names + [(record.kind, record.key) for action in actions for record in action.records()]


def _result(kept: Sequence[Kept], gone: Sequence[str]) -> dict[str, Any]:
    """The result fields of both."""
    warnings = [item.warning for item in kept]
    warnings += [f"{name}, which this collection had changed, is not there any more." for name in gone]
    result: dict[str, Any] = {"kept": [item.as_result() for item in kept]}
    return {**result, "warnings": warnings} if warnings else result


# -- domains ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changed:
    """A definition that we changed, at one moment: a domain of libvirt, or a file."""

    name: str
    """What messages call it."""
    definition: Definition
    hostdevs: Mapping[PciAddress, Record]

    @property
    def ours(self) -> dict[PciAddress, str | None]:
        """Of each hostdev that is as we left it, and not as it was, the element it had."""
        found = {}
        for source, record in self.hostdevs.items():
            now = self.text(source)
            if essence(now) != essence(record.before) and _explained(record, now):
                found[source] = record.before
        return found

    @property
    def kept(self) -> list[Kept]:
        """What somebody else changed after us."""
        return [
            Kept(f"The hostdev {source} of {self.name}", record.after, self.text(source))
            for source, record in self.hostdevs.items()
            if not _explained(record, self.text(source))
        ]

    def text(self, source: PciAddress) -> str | None:
        """The element of a device now; None for none."""
        found = self.definition.hostdev(source)
        return None if found is None else found.text


@dataclass(frozen=True)
class ChangedDomain(Changed):
    """A domain of libvirt that we changed."""

    place: ConfigPlace
    buses: Optional[Sequence[int]]
    """The PCI buses that it had before, where we remember them."""


@dataclass(frozen=True)
class ChangedFile(Changed):
    """A file that we changed."""

    file: DefinitionFile


@dataclass(frozen=True)
class DomainsObservation:
    """What we changed of domains, at one moment."""

    store: StateStore
    domains: Sequence[ChangedDomain]
    files: Sequence[ChangedFile]
    gone: Sequence[str]


class RevertDomains(_Revert):
    """Give every domain back the hostdevs it had; a :class:`~.._core.runner.Procedure`."""

    kinds = DOMAIN_KINDS

    def observe(self) -> DomainsObservation:
        """
        :raises PassthroughError: ``domain_xml_invalid``, naming a file that cannot be read any more
        """
        store = StateStore(self._host)
        in_domains: dict[tuple[str, str], dict[PciAddress, Record]] = {}
        in_files: dict[str, dict[PciAddress, Record]] = {}
        for record in store.all(RECORD_KIND):
            where, _blank, source = record.key.rpartition(" ")
            path = path_of(record.key)
            if path is None:
                uri, uuid = where.split(" ")
                in_domains.setdefault((uri, uuid), {})[PciAddress.parse(source)] = record
            else:
                in_files.setdefault(path, {})[PciAddress.parse(source)] = record
        domains, files, gone = [], [], []
        buses = {tuple(record.key.split(" ")): record.before for record in store.all(CONTROLLERS_KIND)}
        for uri, uuid in sorted({*in_domains, *buses}):
            found = [one for one in self._connection(uri).domains() if one.uuid == uuid and one.persistent]
            if not found:
                gone.append(f"The domain {uuid} at {uri}")
                continue
            place = ConfigPlace(found[0])
            records = in_domains.get((uri, uuid), {})
            domains.append(ChangedDomain(place.name, place.definition(), records, place, buses.get((uri, uuid))))
        for path, records in sorted(in_files.items()):
            if not self._host.exists(path):
                gone.append(f"The file {path}")
                continue
            file = DefinitionFile(self._host, path)
            files.append(ChangedFile(f"the file {path}", file.definition, records, file))
        return DomainsObservation(store, domains, files, gone)

    def plan(self, observed: DomainsObservation) -> Plan:
        """First what goes, so that its place in the guest is free, then what comes back; then controllers that libvirt
        added for our devices, and on which nothing is any more. Files come last: nothing depends on them."""
        ours: list[HostdevChange] = []
        controllers: list[RemoveControllers] = []
        for domain in observed.domains:
            changes = [_give_back(domain, source, before) for source, before in domain.ours.items()]
            ours += changes
            surplus = _surplus(domain, changes)
            if surplus:
                controllers.append(RemoveControllers(domain.place, surplus))
        ours.sort(key=lambda change: (change.after is not None, change.before is None))
        edits = [
            one.file.edit({source: (one.text(source), before) for source, before in one.ours.items()})
            for one in observed.files
            if one.ours
        ]
        actions: list[Action] = [*ours, *controllers, *edits]
        return Plan(actions, self._returned(observed.store, ()))

    def report(self, observed: DomainsObservation, plan: Plan) -> dict[str, Any]:
        kept = [item for one in (*observed.domains, *observed.files) for item in one.kept]
        return {"hostdevs": [], "restart_required": False, **_result(kept, observed.gone)}


def _explained(record: Record, now: str | None) -> bool:
    return essence(now) in [essence(text) for text in (record.before, record.after, *record.pending)]


def _give_back(domain: ChangedDomain, source: PciAddress, before: str | None) -> HostdevChange:
    wanted = None if before is None else parse(parse_xml(before))
    return HostdevChange(domain.place, None, source, domain.text(source), before, wanted)


def _surplus(domain: ChangedDomain, changes: Sequence[HostdevChange]) -> list[int]:
    """The buses that the domain did not have, and on which nothing is when these changes are made; the last ones first.

    One that is followed by another in use stays: libvirt would put it back, since it leaves out no number
    (``qemuDomainAssignPCIAddresses``).
    """
    if domain.buses is None:
        return []
    root = domain.definition.with_hostdevs({change.source: change.after for change in changes})
    surplus: list[int] = []
    while True:
        definition = Definition(element_text(root))
        last = max(definition.pci_controllers, default=0)
        if last in (*domain.buses, *definition.used_buses):
            return surplus
        surplus.append(last)
        for devices in root.iterfind("devices"):
            for element in devices.findall(f"controller[@type='pci'][@index='{last}']"):
                devices.remove(element)


# -- networks -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChangedNetwork:
    """A network that we changed, at one moment."""

    uri: str
    name: str
    records: Mapping[str, Record]
    """By their kinds."""
    network: Optional[Network]
    text: Optional[str]
    """The definition; None without one."""

    @property
    def is_ours(self) -> bool:
        """Whether the definition is one that we found or left."""
        record = self.records.get(DEFINITION_KIND)
        return record is None or record.explains(self.text)

    @property
    def target(self) -> Optional[str]:
        """The definition it had."""
        record = self.records.get(DEFINITION_KIND)
        return self.text if record is None else record.before

    def former(self, kind: str, now: Any) -> Any:
        """What it had of this kind, where it is as we left it."""
        record = self.records.get(kind)
        return record.before if record is not None and record.explains(now) else now


@dataclass(frozen=True)
class NetworksObservation:
    """What we changed of networks, at one moment."""

    store: StateStore
    networks: Sequence[ChangedNetwork]

    @property
    def gone(self) -> list[str]:
        """Those that are not there any more, and were before us."""
        return [
            f"The network {one.name} at {one.uri}"
            for one in self.networks
            if one.network is None and one.target is not None
        ]


class RevertNetworks(_Revert):
    """Give every network back what it had, and remove those that are ours; a :class:`~.._core.runner.Procedure`."""

    kinds = NETWORK_KINDS

    def observe(self) -> NetworksObservation:
        store = StateStore(self._host)
        records: dict[tuple[str, str], dict[str, Record]] = {}
        for kind in NETWORK_KINDS:
            for record in store.all(kind):
                uri, name = record.key.split(" ", 1)
                records.setdefault((uri, name), {})[kind] = record
        networks = []
        for (uri, name), known in sorted(records.items()):
            network = self._connection(uri).network(name)
            text = None if network is None else NetworkDefinition(network.config_xml()).text
            networks.append(ChangedNetwork(uri, name, known, network, text))
        return NetworksObservation(store, networks)

    def plan(self, observed: NetworksObservation) -> Plan:
        """
        :raises PassthroughError: ``network_in_use``
        """
        actions = [action for network in observed.networks if network.is_ours for action in self._give_back(network)]
        return Plan(actions, self._returned(observed.store, actions))

    def _give_back(self, changed: ChangedNetwork) -> list[Action]:
        network, target = changed.network, changed.target
        how = (self._connection(changed.uri), changed.uri, changed.name)
        if network is None:
            # Somebody else removed it; one that we removed comes back.
            removed = DEFINITION_KIND in changed.records and changed.records[DEFINITION_KIND].after is None
            if target is None or not removed:
                return []
        is_active = network is not None and network.active
        starts = network is not None and network.autostart
        active = target is not None and changed.former(ACTIVE_KIND, "active" if is_active else "inactive") == "active"
        autostart = target is not None and changed.former(AUTOSTART_KIND, starts)
        redefined = target != changed.text
        actions: list[Action] = []
        if network is not None and is_active and (redefined or not active):
            users = users_of(network)
            if users:
                raise in_use(changed.name, users, "stopped")
            actions.append(SetActive(*how, False))
            is_active = False
        if target is None and starts:
            actions.append(SetAutostart(*how, False))
        if redefined:
            wanted = None if target is None else NetworkDefinition(target).pool
            actions.append(DefineNetwork(*how, changed.text, target, wanted))
        if target is not None and autostart != starts:
            actions.append(SetAutostart(*how, bool(autostart)))
        if active and not is_active:
            actions.append(SetActive(*how, True))
        return actions

    def report(self, observed: NetworksObservation, plan: Plan) -> dict[str, Any]:
        kept = [
            Kept(f"The network {one.name}", one.records[DEFINITION_KIND].after, one.text)
            for one in observed.networks
            if not one.is_ours
        ]
        nothing: dict[str, Any] = {"network": None, "vfs": [], "connections": 0, "used_by": [], "referenced_by": []}
        return {**nothing, "restart_required": False, **_result(kept, observed.gone)}
