# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module ``domain_hostdevs`` does: the PCI devices of the host that one domain has, as a person wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.options import time_limit_problems
from .._core.plan import Plan
from .._pci.address import PciAddress
from .._pci.device import Bus
from .._pci.grammar import parse_selector
from .._pci.selector import Selector, select_all
from .._vfio.memory import recalling_bus
from .change import HostdevChange
from .connection import Connect, Connection, Domain, check_uri, connect
from .definition import Definition, parse_xml
from .definition_file import DefinitionFile
from .element import Version, bindings, version_text
from .hostdev import Hostdev, given, hostdev_options
from .place import ConfigPlace, LivePlace, Place, running
from .rules.context import Context, OtherDomain
from .rules.registry import broken
from .schema import Schema
from .target import ABSENT, EXACT, PRESENT, Target, Wanted, steps_of, subjects_of, targets_of

CONFIG = "config"
LIVE = "live"
BOTH = "both"

DEFAULT_URI = "qemu:///system"
DEFAULT_TIMEOUT = 60


def argument_spec() -> dict[str, Any]:
    """The argument spec of the module."""
    return {
        "domain": {"type": "str"},
        "path": {"type": "path"},
        "uri": {"type": "str", "default": DEFAULT_URI},
        "state": {"type": "str", "choices": [PRESENT, ABSENT, EXACT], "default": PRESENT},
        "scope": {"type": "str", "choices": [CONFIG, LIVE, BOTH], "default": CONFIG},
        "timeout": {"type": "int", "default": DEFAULT_TIMEOUT},
        "hostdevs": {
            "type": "list",
            "elements": "dict",
            "options": {"device": {"type": "raw", "required": True}, **hostdev_options()},
        },
        "revert": {"type": "bool", "default": False},
    }


REQUIRED_IF = [("revert", False, ("domain", "path"), True), ("revert", False, ("hostdevs",))]
"""Which options have to be there."""


@dataclass(frozen=True)
class Request:
    """One item of ``hostdevs``."""

    where: str
    selector: Selector
    settings: Hostdev
    """What is asked for, of no device yet."""


class Devices:
    """The devices that are asked for."""

    def __init__(self, requests: Sequence[Request], state: str) -> None:
        self._requests = requests
        self.state = state

    def select(self, bus: Bus) -> list[Wanted]:
        """The devices that are meant.

        :raises PassthroughError: with every problem of every selector
        """
        found = []
        chosen = dict(enumerate(self._requests))
        if self.state == ABSENT:
            # What is no longer in the host may still be in a definition, and has to be removable.
            for number, request in enumerate(self._requests):
                address = request.selector.address
                if address is not None and address not in bus:
                    del chosen[number]
                    found.append((number, Wanted(request.where, replace(request.settings, source=address))))
        selection = select_all([request.selector for request in chosen.values()], bus, distinct=self.state != ABSENT)
        for (number, request), (_unused, devices) in zip(chosen.items(), selection):
            for device in devices:
                found.append((number, Wanted(request.where, replace(request.settings, source=device.address))))
        return [wanted for _unused, wanted in sorted(found, key=lambda item: (item[0], item[1].hostdev.source))]


def build(host: Host, parameters: Mapping[str, Any], connector: Connect = connect) -> DomainHostdevs | FileHostdevs:
    """Check the options of the module, all of them at once.

    :raises PassthroughError: with every problem of the options and of the devices they select
    """
    problems = list(_option_problems(parameters))
    requests = []
    for number, item in enumerate(parameters["hostdevs"] or []):
        where = f"hostdevs[{number}]"
        settings, wrong = given(item, where)
        problems += wrong
        try:
            selector = parse_selector(item["device"], f"{where}.device")
        except PassthroughError as error:
            problems += error.problems
            continue
        requests.append(Request(f"{where} {selector.name}" if selector.name else where, selector, settings))
    devices = Devices(requests, parameters["state"])
    try:
        devices.select(recalling_bus(host))
    except PassthroughError as error:
        problems += error.problems
    if problems:
        raise PassthroughError.of(problems)
    if parameters.get("path") is not None:
        return FileHostdevs(host, parameters["path"], devices)
    how = (parameters["uri"], parameters["scope"], float(parameters["timeout"]))
    return DomainHostdevs(host, connector, str(parameters["domain"]).strip(), *how, devices)


def _option_problems(parameters: Mapping[str, Any]) -> Sequence[Problem]:
    problems: list[Problem] = []
    path = parameters.get("path")
    if path is None and not str(parameters["domain"] or "").strip():
        problems.append(Problem("domain_empty", "domain is empty.", "Give the name or the UUID of a domain."))
    if path is not None and not path.startswith("/"):
        problems.append(
            Problem(
                "path_not_absolute",
                f"path {path!r} is no absolute path.",
                "Give the whole path of the file.",
                {"field": "path", "value": path},
            )
        )
    if path is not None and parameters["scope"] != CONFIG:
        problems.append(
            Problem(
                "scope_needs_domain",
                f"scope is {parameters['scope']}, but a file ({path}) does not run.",
                "Give domain instead of path, or leave scope out.",
                {"field": "scope", "value": parameters["scope"]},
            )
        )
    problems += time_limit_problems(parameters["timeout"])
    try:
        check_uri(parameters["uri"])
    except PassthroughError as error:
        problems += error.problems
    return problems


# -- a domain of libvirt ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """A domain's definition, or what runs, when it is to be changed."""

    place: Place
    definition: Definition


@dataclass(frozen=True)
class Observation:
    """The domain and the host at one moment."""

    name: str
    uuid: str
    active: bool
    sides: Sequence[Side]
    """What is to be changed, in this order."""
    running: Optional[Definition]
    """What runs, when that is not changed."""
    others: Sequence[OtherDomain]
    version: Version
    qemu: Optional[Version]
    """Where a rule needs it: libvirt may look at every QEMU of the host to tell."""
    bus: Bus
    wanted: Sequence[Wanted]


class DomainHostdevs:
    """The procedure of the module for a domain; see :class:`_core.runner.Procedure`."""

    def __init__(
        self, host: Host, connector: Connect, domain: str, uri: str, scope: str, timeout: float, devices: Devices
    ) -> None:
        self._host = host
        self._connector = connector
        self._domain = domain
        self._uri = uri
        self._scope = scope
        self._timeout = timeout
        self._devices = devices
        self._connection: Connection | None = None
        self._schema = Schema(host)

    def observe(self) -> Observation:
        bus = recalling_bus(self._host)
        wanted = self._devices.select(bus)
        if self._connection is None:
            self._connection = self._connector(self._uri)
        domain = self._connection.domain(self._domain)
        name, active = domain.name, domain.active
        live = running(domain) if active else None
        sides = self._sides(domain, name, live)
        on_z = any(side.definition.arch == "s390x" for side in sides)
        return Observation(
            name=name,
            uuid=domain.uuid,
            active=active,
            sides=sides,
            running=live if self._scope == CONFIG else None,
            others=[] if self._devices.state == ABSENT else _others(self._connection, domain.uuid),
            version=self._connection.version,
            qemu=self._connection.qemu_version if on_z else None,
            bus=bus,
            wanted=wanted,
        )

    def _sides(self, domain: Domain, name: str, live: Definition | None) -> list[Side]:
        """What is to be changed. The guest comes first: it may refuse, and the definition will not."""
        if self._scope != LIVE and not domain.persistent:
            raise PassthroughError(
                "domain_transient",
                f"The domain {name} is transient: it has no definition to be changed, and is gone when it stops.",
                "Define it (virsh define), or give it the devices in the XML that it is created from, or use scope: "
                "live.",
                domain=name,
            )
        if self._scope == LIVE and live is None:
            raise PassthroughError(
                "domain_not_running",
                f"The domain {name} does not run, so that there is nothing to be changed with scope: live.",
                "Start it, or use scope: both, which changes what runs as far as something does.",
                domain=name,
            )
        sides = []
        if self._scope != CONFIG and live is not None:
            sides.append(Side(LivePlace(domain, self._host, self._timeout), live))
        if self._scope != LIVE:
            place = ConfigPlace(domain)
            sides.append(Side(place, place.definition()))
        return sides

    def plan(self, observed: Observation) -> Plan:
        problems: list[Problem] = []
        actions: list[HostdevChange] = []
        for side in observed.sides:
            targets = targets_of(side.definition, observed.wanted, self._devices.state)
            problems += broken(self._context(observed, side, targets))
            problems += against_schema(
                self._schema, side.definition, targets, side.place.name, version_text(observed.version)
            )
            for step in steps_of(targets):
                key = None if side.place.live else f"{self._uri} {observed.uuid} {step.source}"
                actions.append(HostdevChange(side.place, key, step.source, step.before, step.after, step.final))
        if problems:
            raise PassthroughError.of(list({problem.text: problem for problem in problems}.values()))
        return Plan(list(actions))

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        definition = observed.sides[-1].definition
        targets = targets_of(definition, observed.wanted, self._devices.state)
        result: dict[str, Any] = {
            "domain": {"name": observed.name, "uuid": observed.uuid, "active": observed.active},
            "hostdevs": [target.final.as_result() for target in targets if target.final is not None],
            "restart_required": self._restart_required(observed, targets),
        }
        warnings = warnings_of(self._schema, definition, targets, observed.sides[-1].place.name, observed.bus)
        if warnings:
            result["warnings"] = warnings
        return result

    def _context(self, observed: Observation, side: Side, targets: Sequence[Target]) -> Context:
        return Context(
            subjects=subjects_of(targets),
            removed=_removed(targets),
            definition=side.definition,
            others=observed.others,
            version=observed.version,
            host=self._host,
            bus=observed.bus,
            live=side.place.live,
            qemu=observed.qemu,
        )

    def _restart_required(self, observed: Observation, targets: Sequence[Target]) -> bool:
        """Whether the domain runs with something else than what is asked for."""
        if observed.running is None:
            return False
        exact = self._devices.state == EXACT
        asked = {one.hostdev.source for one in observed.wanted}
        for target in targets:
            there = observed.running.hostdev(target.source)
            if target.source not in asked and not exact:
                continue
            if (there is None) != (target.final is None):
                return True
            if there is not None and target.final is not None and _runs_otherwise(target, there.value):
                return True
        known = {target.source for target in targets}
        extra = {one.source for one in observed.running.hostdevs} - known
        if exact:
            return bool(extra)
        return self._devices.state == ABSENT and bool(extra & asked)


# -- a file -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileObservation:
    """The file and the host at one moment."""

    file: DefinitionFile
    bus: Bus
    wanted: Sequence[Wanted]


class FileHostdevs:
    """The procedure of the module for a definition in a file. libvirt is not asked."""

    def __init__(self, host: Host, path: str, devices: Devices) -> None:
        self._host = host
        self._path = path
        self._devices = devices
        self._schema = Schema(host)

    def observe(self) -> FileObservation:
        bus = recalling_bus(self._host)
        return FileObservation(DefinitionFile(self._host, self._path), bus, self._devices.select(bus))

    def plan(self, observed: FileObservation) -> Plan:
        file = observed.file
        targets = self._targets(observed)
        context = Context(
            subjects=subjects_of(targets),
            removed=_removed(targets),
            definition=file.definition,
            others=(),
            version=None,
            host=self._host,
            bus=observed.bus,
        )
        problems = broken(context) + against_schema(self._schema, file.definition, targets, self._path, "")
        if problems:
            raise PassthroughError.of(problems)
        changes = {
            target.source: (None if target.present is None else target.present.text, target.text)
            for target in sorted(targets, key=lambda target: target.rank)
            if target.changes
        }
        return Plan([file.edit(changes)] if changes else [])

    def report(self, observed: FileObservation, plan: Plan) -> dict[str, Any]:
        targets = self._targets(observed)
        result: dict[str, Any] = {
            "path": self._path,
            "hostdevs": [target.final.as_result() for target in targets if target.final is not None],
            "restart_required": False,
        }
        warnings = warnings_of(self._schema, observed.file.definition, targets, self._path, observed.bus)
        if warnings:
            result["warnings"] = warnings
        return result

    def _targets(self, observed: FileObservation) -> list[Target]:
        return targets_of(observed.file.definition, observed.wanted, self._devices.state)


# -- what both have -----------------------------------------------------------------------------------------


def against_schema(
    schema: Schema, definition: Definition, targets: Sequence[Target], name: str, version: str
) -> list[Problem]:
    """What the host's own schema has against the new elements, and against the definition with them in it.

    :param name: what messages call the definition
    :param version: libvirt's; empty when it is not known
    """
    changes = [target for target in targets if target.changes]
    if not changes or not schema.installed:
        return []
    libvirt = f"libvirt {version}".strip()
    problems = []
    texts: dict[PciAddress, str | None] = {}
    for target in changes:
        text = texts[target.source] = target.text
        found = [] if text is None else schema.check_part(parse_xml(text))
        if found:
            label = target.wanted.where if target.wanted else "the hostdev"
            problems.append(
                Problem(
                    "schema_violation",
                    f"{label} ({target.source}): the schema of this host's {libvirt} does not allow\n{text}\n"
                    f"It says: {'; '.join(found)}.",
                    "Leave out what it does not know, or update libvirt on the host.",
                    {"device": str(target.source), "schema_errors": found},
                )
            )
    if not problems and not schema.check_domain(definition.root):
        found = schema.check_domain(definition.with_hostdevs(texts))
        if found:
            problems.append(
                Problem(
                    "schema_violation",
                    f"With these hostdevs the definition of {name} does not match the schema of this host's "
                    f"{libvirt}: {'; '.join(found)}.",
                    details={"schema_errors": found},
                )
            )
    return problems


def warnings_of(schema: Schema, definition: Definition, targets: Sequence[Target], name: str, bus: Bus) -> list[str]:
    """What could not be checked."""
    warnings = []
    if not schema.installed:
        warnings.append(
            "This host does not have libvirt's schema of domains (/usr/share/libvirt/schemas), so the hostdevs "
            "were not checked against it."
        )
    elif any(target.changes for target in targets):
        found = schema.check_domain(definition.root)
        if found:
            warnings.append(
                f"The definition of {name} does not match the schema of this host's libvirt "
                f"even without this change, so only the hostdevs were checked against it: {'; '.join(found)}."
            )
    ungrouped = [
        str(target.source)
        for target in targets
        if target.wanted is not None
        and target.final is not None
        and target.source in bus
        and bus.device(target.source).iommu_group is None
    ]
    if ungrouped:
        warnings.append(
            f"{', '.join(ungrouped)} {'has' if len(ungrouped) == 1 else 'have'} no IOMMU group now (the IOMMU is "
            "not active, or no driver has used the device yet), so what else would have to be declared is not "
            "known. See kvm.passthrough.iommu_info."
        )
    return warnings


def _removed(targets: Sequence[Target]) -> frozenset[PciAddress]:
    return frozenset(target.source for target in targets if target.changes and target.final is None)


def _others(connection: Connection, uuid: str) -> list[OtherDomain]:
    """The other domains that have host devices."""
    found = []
    for domain in connection.domains():
        try:
            if domain.uuid == uuid:
                continue
            config = _sources(domain.config_xml()) if domain.persistent else frozenset()
            active = domain.active
            live = _sources(domain.live_xml()) if active else frozenset()
            if config or live:
                found.append(OtherDomain(domain.name, active, config, live))
        except PassthroughError as error:
            # Undefined or stopped since it was listed.
            if error.problems[0].details.get("libvirt_code") != "VIR_ERR_NO_DOMAIN":
                raise error.about(f"domain {domain.name}") from error
    return found


def _sources(xml: str) -> frozenset[PciAddress]:
    return frozenset(Definition(xml).sources if "hostdev" in xml else ())


def _runs_otherwise(target: Target, there: Hostdev) -> bool:
    """Whether a running hostdev differs from the target, in what was asked for or libvirt does not choose itself."""
    asked = None if target.wanted is None else target.wanted.hostdev
    return any(
        getattr(target.final, name) != getattr(there, name)
        for name, binding in bindings(there)
        if not binding.filled or (asked is not None and getattr(asked, name) is not None)
    )
