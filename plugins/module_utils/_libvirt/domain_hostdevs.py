# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module ``domain_hostdevs`` does: the PCI hostdevs of one domain's definition, as a person wants them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.plan import Plan
from .._pci.address import PciAddress
from .._pci.device import Bus
from .._pci.selector import Selector, select_all
from .._vfio.memory import recalling_bus
from .change import HostdevChange, hostdev_text
from .connection import Connect, Connection, Domain, check_uri, connect
from .definition import Definition, PciHostdev, parse_xml
from .element import Version, bindings
from .hostdev import Hostdev, changed_to, given, hostdev_options, unlike
from .rules.context import Context, OtherDomain, Subject
from .rules.registry import broken
from .schema import Schema

PRESENT = "present"
ABSENT = "absent"
EXACT = "exact"

DEFAULT_URI = "qemu:///system"


def argument_spec() -> dict[str, Any]:
    """The argument spec of the module."""
    return {
        "domain": {"type": "str", "required": True},
        "uri": {"type": "str", "default": DEFAULT_URI},
        "state": {"type": "str", "choices": [PRESENT, ABSENT, EXACT], "default": PRESENT},
        "scope": {"type": "str", "choices": ["config"], "default": "config"},
        "hostdevs": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": {"device": {"type": "raw", "required": True}, **hostdev_options()},
        },
    }


@dataclass(frozen=True)
class Request:
    """One item of ``hostdevs``."""

    where: str
    selector: Selector
    settings: Hostdev
    """What is asked for, of no device yet."""


@dataclass(frozen=True)
class Wanted:
    """One device of the request, and what is asked of its hostdev."""

    where: str
    hostdev: Hostdev


@dataclass(frozen=True)
class Observation:
    """The domain and the host at one moment."""

    domain: Domain
    name: str
    uuid: str
    definition: Definition
    live: Optional[Definition]
    """What runs; None for a domain that does not."""
    others: Sequence[OtherDomain]
    version: Version
    bus: Bus
    wanted: Sequence[Wanted]


@dataclass(frozen=True)
class Target:
    """A device's hostdev as it is and as it shall be; None: none."""

    source: PciAddress
    present: Optional[PciHostdev]
    final: Optional[Hostdev]
    changes: bool
    wanted: Optional[Wanted] = None


def build(host: Host, parameters: Mapping[str, Any], connector: Connect = connect) -> DomainHostdevs:
    """Check the options of the module, all of them at once.

    :raises PassthroughError: with every problem of the options and of the devices they select
    """
    problems: list[Problem] = []
    domain = str(parameters["domain"]).strip()
    if not domain:
        problems.append(Problem("domain_empty", "domain is empty.", "Give the name or the UUID of a domain."))
    try:
        check_uri(parameters["uri"])
    except PassthroughError as error:
        problems += error.problems
    requests = []
    for number, item in enumerate(parameters["hostdevs"] or []):
        where = f"hostdevs[{number}]"
        settings, wrong = given(item, where)
        problems += wrong
        try:
            selector = Selector.parse(item["device"], f"{where}.device")
        except PassthroughError as error:
            problems += error.problems
            continue
        requests.append(Request(f"{where} {selector.name}" if selector.name else where, selector, settings))
    procedure = DomainHostdevs(host, connector, domain, parameters["uri"], parameters["state"], requests)
    try:
        procedure.select(recalling_bus(host))
    except PassthroughError as error:
        problems += error.problems
    if problems:
        raise PassthroughError.of(problems)
    return procedure


class DomainHostdevs:
    """The procedure of the module; see :class:`_core.runner.Procedure`."""

    def __init__(
        self, host: Host, connector: Connect, domain: str, uri: str, state: str, requests: Sequence[Request]
    ) -> None:
        self._host = host
        self._connector = connector
        self._domain = domain
        self._uri = uri
        self._state = state
        self._requests = requests
        self._connection: Connection | None = None
        self._schema = Schema(host)

    # -- observing --------------------------------------------------------------------------------------

    def select(self, bus: Bus) -> list[Wanted]:
        """The devices that are meant.

        :raises PassthroughError: with every problem of every selector
        """
        found = []
        chosen = dict(enumerate(self._requests))
        if self._state == ABSENT:
            # What is no longer in the host may still be in a definition, and has to be removable.
            for number, request in enumerate(self._requests):
                address = request.selector.address
                if address is not None and address not in bus:
                    del chosen[number]
                    found.append((number, Wanted(request.where, replace(request.settings, source=address))))
        selection = select_all([request.selector for request in chosen.values()], bus, distinct=self._state != ABSENT)
        for (number, request), (_unused, devices) in zip(chosen.items(), selection):
            for device in devices:
                found.append((number, Wanted(request.where, replace(request.settings, source=device.address))))
        return [wanted for _unused, wanted in sorted(found, key=lambda item: (item[0], item[1].hostdev.source))]

    def observe(self) -> Observation:
        bus = recalling_bus(self._host)
        wanted = self.select(bus)
        if self._connection is None:
            self._connection = self._connector(self._uri)
        domain = self._connection.domain(self._domain)
        name = domain.name
        if not domain.persistent:
            raise PassthroughError(
                "domain_transient",
                f"The domain {name} is transient: it has no definition to be changed, and is gone when it stops.",
                "Define it (virsh define), or give it the devices in the XML that it is created from.",
                domain=name,
            )
        return Observation(
            domain=domain,
            name=name,
            uuid=domain.uuid,
            definition=Definition(domain.config_xml()),
            live=Definition(domain.live_xml()) if domain.active else None,
            others=[] if self._state == ABSENT else _others(self._connection, domain.uuid),
            version=self._connection.version,
            bus=bus,
            wanted=wanted,
        )

    # -- planning ---------------------------------------------------------------------------------------

    def plan(self, observed: Observation) -> Plan:
        targets = self._targets(observed)
        problems = broken(self._context(observed, targets)) + self._against_schema(observed, targets)
        if problems:
            raise PassthroughError.of(problems)
        return Plan(list(self._actions(observed, [target for target in targets if target.changes])))

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        targets = self._targets(observed)
        result: dict[str, Any] = {
            "domain": {"name": observed.name, "uuid": observed.uuid, "active": observed.live is not None},
            "hostdevs": [target.final.as_result() for target in targets if target.final is not None],
            "restart_required": self._restart_required(observed, targets),
        }
        warnings = self._warnings(observed, targets)
        if warnings:
            result["warnings"] = warnings
        return result

    def _targets(self, observed: Observation) -> list[Target]:
        """Every PCI hostdev of the domain, as it is and as it shall be, in the order of the devices' addresses."""
        definition = observed.definition
        wanted = {one.hostdev.source: one for one in observed.wanted}
        exact = self._state == EXACT
        targets = []
        for source in sorted({*wanted, *(one.source for one in definition.hostdevs)}):
            present = definition.hostdev(source)
            request = wanted.get(source)
            if self._state == ABSENT or request is None:
                gone = exact or request is not None
                final = None if gone or present is None else present.value
                targets.append(Target(source, present, final, changes=gone and present is not None))
                continue
            value = None if present is None else present.value
            final = changed_to(request.hostdev, value, exact=exact)
            changes = value is None or bool(unlike(request.hostdev, value, exact=exact))
            targets.append(Target(source, present, final, changes, request))
        return with_multifunction(targets, definition)

    def _context(self, observed: Observation, targets: Sequence[Target]) -> Context:
        return Context(
            subjects=[
                Subject(
                    target.final,
                    None if target.wanted is None else target.wanted.where,
                    None if target.wanted is None else target.wanted.hostdev,
                )
                for target in targets
                if target.final is not None
            ],
            removed=frozenset(target.source for target in targets if target.changes and target.final is None),
            definition=observed.definition,
            others=observed.others,
            version=observed.version,
            host=self._host,
            bus=observed.bus,
        )

    def _against_schema(self, observed: Observation, targets: Sequence[Target]) -> list[Problem]:
        """What the host's own schema has against the new elements, and against the definition with them in it."""
        changes = [target for target in targets if target.changes]
        if not changes or not self._schema.installed:
            return []
        version = ".".join(str(number) for number in observed.version)
        problems = []
        texts: dict[PciAddress, str | None] = {}
        for target in changes:
            texts[target.source] = None
            if target.final is None:
                continue
            text = hostdev_text(target.final, target.present)
            texts[target.source] = text
            found = self._schema.check_part(parse_xml(text))
            if found:
                label = target.wanted.where if target.wanted else "the hostdev"
                problems.append(
                    Problem(
                        "schema_violation",
                        f"{label} ({target.source}): the schema of this host's libvirt {version} does not allow\n"
                        f"{text}\n"
                        f"It says: {'; '.join(found)}.",
                        "Leave out what it does not know, or update libvirt on the host.",
                        {"device": str(target.source), "schema_errors": found},
                    )
                )
        if not problems and not self._schema.check_domain(observed.definition.root):
            found = self._schema.check_domain(observed.definition.with_hostdevs(texts))
            if found:
                problems.append(
                    Problem(
                        "schema_violation",
                        f"With these hostdevs the definition of the domain {observed.name} does not match the schema "
                        f"of this host's libvirt {version}: {'; '.join(found)}.",
                        details={"schema_errors": found},
                    )
                )
        return problems

    def _actions(self, observed: Observation, changes: Sequence[Target]) -> Sequence[HostdevChange]:
        """First what goes, then what changes, then what comes, function 0 of a guest slot before the others.

        A hostdev that is to have what another one still has (a guest address, an alias, …) is taken out at the
        beginning and put back at the end.
        """

        removed = [target for target in changes if target.final is None]
        added = [target for target in changes if target.present is None]
        replaced = [target for target in changes if target.final is not None and target.present is not None]
        crossing = [target for target in replaced if _crosses(target, replaced)]
        straight = [target for target in replaced if target not in crossing]
        return [
            *(self._change(observed, target, goes_only=True) for target in [*removed, *crossing]),
            *(self._change(observed, target) for target in _ordered(straight)),
            *(self._change(observed, target, comes_only=True) for target in _ordered([*crossing, *added])),
        ]

    def _change(
        self, observed: Observation, target: Target, *, goes_only: bool = False, comes_only: bool = False
    ) -> HostdevChange:
        before = None if comes_only or target.present is None else target.present.text
        final = None if goes_only else target.final
        after = None if final is None else hostdev_text(final, target.present)
        return HostdevChange(observed.domain, self._uri, target.source, before, after, final)

    # -- reporting --------------------------------------------------------------------------------------

    def _restart_required(self, observed: Observation, targets: Sequence[Target]) -> bool:
        """Whether the domain runs with something else than what is asked for."""
        if observed.live is None:
            return False
        asked = {one.hostdev.source for one in observed.wanted}
        for target in targets:
            running = observed.live.hostdev(target.source)
            if target.source not in asked and self._state != EXACT:
                continue
            if (running is None) != (target.final is None):
                return True
            if running is not None and target.final is not None and _runs_otherwise(target, running.value):
                return True
        known = {target.source for target in targets}
        extra = {one.source for one in observed.live.hostdevs} - known
        if self._state == EXACT:
            return bool(extra)
        return self._state == ABSENT and bool(extra & asked)

    def _warnings(self, observed: Observation, targets: Sequence[Target]) -> list[str]:
        warnings = []
        if not self._schema.installed:
            warnings.append(
                "This host does not have libvirt's schema of domains (/usr/share/libvirt/schemas), so the hostdevs "
                "were not checked against it."
            )
        elif any(target.changes for target in targets):
            found = self._schema.check_domain(observed.definition.root)
            if found:
                warnings.append(
                    f"The definition of the domain {observed.name} does not match the schema of this host's libvirt "
                    f"even without this change, so only the hostdevs were checked against it: {'; '.join(found)}."
                )
        ungrouped = [
            str(target.source)
            for target in targets
            if target.wanted is not None
            and target.final is not None
            and target.source in observed.bus
            and observed.bus.device(target.source).iommu_group is None
        ]
        if ungrouped:
            warnings.append(
                f"{', '.join(ungrouped)} {'has' if len(ungrouped) == 1 else 'have'} no IOMMU group now (the IOMMU is "
                "not active, or no driver has used the device yet), so what else would have to be declared is not "
                "known. See kvm.passthrough.iommu_info."
            )
        return warnings


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
                raise
    return found


def _sources(xml: str) -> frozenset[PciAddress]:
    return frozenset(Definition(xml).sources if "hostdev" in xml else ())


def with_multifunction(targets: Sequence[Target], definition: Definition) -> list[Target]:
    """The targets, with ``multifunction`` set in function 0 of each guest slot that has other functions too."""
    addresses = [target.final.guest_address for target in targets if target.final is not None]
    addresses += [occupant.guest_address for occupant in definition.occupants]
    functions = Counter(address.with_function(0) for address in addresses if address is not None)
    return [
        replace(target, final=replace(target.final, multifunction=True))
        if target.final is not None
        and target.changes
        and target.final.multifunction is None
        and target.final.guest_address is not None
        and target.final.guest_address.function == 0
        and functions[target.final.guest_address] > 1
        else target
        for target in targets
    ]


# What no two devices of a guest may have at the same time.
_EXCLUSIVE = ("guest_address", "boot_order", "alias", "acpi_index", "zpci_uid", "zpci_fid")


def _crosses(target: Target, others: Sequence[Target]) -> bool:
    """Whether the hostdev is to have what another one has now, or has now what another one is to have."""
    for other in others:
        if other is target or target.present is None or other.present is None:
            continue
        for name in _EXCLUSIVE:
            takes = getattr(target.final, name)
            gives = getattr(target.present.value, name)
            if takes is not None and takes == getattr(other.present.value, name):
                return True
            if gives is not None and gives == getattr(other.final, name):
                return True
    return False


def _ordered(targets: Sequence[Target]) -> list[Target]:
    def function(target: Target) -> int:
        address = None if target.final is None else target.final.guest_address
        return 0 if address is None else address.function

    return sorted(targets, key=lambda target: (function(target), target.source))


def _runs_otherwise(target: Target, running: Hostdev) -> bool:
    """Whether a running hostdev differs from the target, in what was asked for or libvirt does not choose itself."""
    asked = None if target.wanted is None else target.wanted.hostdev
    return any(
        getattr(target.final, name) != getattr(running, name)
        for name, binding in bindings(running)
        if not binding.filled or (asked is not None and getattr(asked, name) is not None)
    )
