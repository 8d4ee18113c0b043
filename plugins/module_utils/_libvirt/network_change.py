# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps by which a network changes: defined or defined anew, undefined, started, stopped, its autostart set.

A network that is there is never undefined to be defined again: ``virNetworkDefineXML`` replaces the definition of the
network with the same name and UUID (``virNetworkObjAssignDef``), and lets an active one run on as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.plan import Action
from .._core.state import Record
from .connection import Connection, Network
from .element import bindings
from .network import UNKNOWN_GUEST, NetworkDefinition, Pool, Port

DEFINITION_KIND = "network"
AUTOSTART_KIND = "network_autostart"
ACTIVE_KIND = "network_active"


class _NetworkAction(Action):
    """A step for one network of one libvirt."""

    def __init__(self, connection: Connection, uri: str, name: str) -> None:
        self.target = f"network {name}"
        self._connection = connection
        self._name = name
        self._key = f"{uri} {name}"

    def _network(self) -> Network:
        found = self._connection.network(self._name)
        if found is None:
            raise self._changed_meanwhile()
        return found

    def _changed_meanwhile(self) -> PassthroughError:
        return PassthroughError(
            "network_changed_meanwhile",
            f"The network {self._name} was changed by somebody else while this module was at work; it was left alone.",
            "Run the module again when the other change is complete.",
            network=self._name,
        )


class DefineNetwork(_NetworkAction):
    """Bring the definition from ``before`` to ``after``, each the XML or None for none."""

    def __init__(
        self, connection: Connection, uri: str, name: str, before: str | None, after: str | None, wanted: Pool | None
    ) -> None:
        """:param before: as it was observed; when it is different by the time it is changed, it is left alone
        :param wanted: what ``after`` says; None exactly when that is None
        """
        super().__init__(connection, uri, name)
        verb = "undefine" if after is None else "define" if before is None else "change the definition of"
        self.description = f"{verb} the network {name}"
        self.before = before
        self.after = after
        self._wanted = wanted
        self._left = after

    def apply(self, host: Host) -> None:
        if self._look() != self.before:
            raise self._changed_meanwhile()
        if self.after is None or self._wanted is None:
            self._network().undefine()
            return
        self._connection.define_network(self.after)
        try:
            self._left = self._look()
            self._verify(self._wanted)
        except PassthroughError:
            try:
                self._restore()
            except PassthroughError:
                # The runner tries once more, and says so when that fails too.
                self.partial = True
            raise

    def undo(self, host: Host) -> None:
        if self._look() != self._left:
            raise self._changed_meanwhile()
        self._restore()

    def records(self) -> Sequence[Record]:
        return (Record(DEFINITION_KIND, self._key, self.before, self._left),)

    def _look(self) -> str | None:
        found = self._connection.network(self._name)
        return None if found is None else NetworkDefinition(found.config_xml()).text

    def _verify(self, wanted: Pool) -> None:
        """What libvirt wrote down has to mean what was asked for.

        :raises PassthroughError: ``libvirt_changed_setting``
        """
        found = NetworkDefinition(self._network().config_xml()).pool
        problems = []
        for name, binding in bindings(wanted):
            asked, got = getattr(wanted, name), getattr(found, name)
            if asked is not None and got != asked:
                option = binding.option or name
                problems.append(
                    Problem(
                        "libvirt_changed_setting",
                        f"libvirt took the network {self._name}, but its {option} is then {binding.shown(got)!r} and "
                        f"not {binding.shown(asked)!r}.",
                        "This libvirt does not support the setting; leave it out, or update libvirt.",
                        {"network": self._name, "field": option, "value": binding.shown(asked)},
                    )
                )
        if problems:
            raise PassthroughError.of(problems)

    def _restore(self) -> None:
        if self.before is None:
            self._network().undefine()
        else:
            self._connection.define_network(self.before)


class SetAutostart(_NetworkAction):
    """Have the network started together with the daemon, or not."""

    def __init__(self, connection: Connection, uri: str, name: str, wanted: bool) -> None:
        super().__init__(connection, uri, name)
        self.target = f"network {name}, autostart"
        self.description = f"switch autostart of the network {name} {'on' if wanted else 'off'}"
        self.before = not wanted
        self.after = wanted

    def apply(self, host: Host) -> None:
        self._network().set_autostart(self.after)

    def undo(self, host: Host) -> None:
        network = self._connection.network(self._name)
        if network is not None:  # it goes with the definition
            network.set_autostart(self.before)

    def records(self) -> Sequence[Record]:
        return (Record(AUTOSTART_KIND, self._key, self.before, self.after),)


class SetActive(_NetworkAction):
    """Start or stop the network."""

    def __init__(self, connection: Connection, uri: str, name: str, wanted: bool) -> None:
        super().__init__(connection, uri, name)
        self.target = f"network {name}, activity"
        self.description = f"{'start' if wanted else 'stop'} the network {name}"
        self.before = "inactive" if wanted else "active"
        self.after = "active" if wanted else "inactive"
        self._wanted = wanted

    def apply(self, host: Host) -> None:
        network = self._network()
        if not self._wanted:
            users = users_of(network)
            if users:
                raise in_use(self._name, users, "stopped")
        self._set(network, self._wanted)

    def undo(self, host: Host) -> None:
        self._set(self._network(), not self._wanted)

    def records(self) -> Sequence[Record]:
        return (Record(ACTIVE_KIND, self._key, self.before, self.after),)

    @staticmethod
    def _set(network: Network, wanted: bool) -> None:
        if network.active != wanted:
            (network.start if wanted else network.stop)()


def users_of(network: Network) -> list[Port]:
    """The guest interfaces that are connected to an active network now.

    Where libvirt (before 5.5) does not tell whose they are, they are those of ``a guest``.
    """
    if not network.active:
        return []
    count = NetworkDefinition(network.live_xml()).connections
    ports = sorted((Port.parse(xml) for xml in network.port_xmls() or ()), key=lambda port: port.owner)
    return ports + [Port(UNKNOWN_GUEST)] * (count - len(ports))


def in_use(name: str, users: Sequence[Port], what: str) -> PassthroughError:
    """The error for a network that cannot be stopped."""
    domains = sorted({port.owner for port in users})
    return PassthroughError(
        "network_in_use",
        f"The network {name} cannot be {what}: {', '.join(domains)} {'has' if len(domains) == 1 else 'have'} "
        f"{'an interface' if len(users) == 1 else f'{len(users)} interfaces'} of it.",
        "Shut these domains down first, or take the interfaces from them.",
        network=name,
        domains=domains,
        connections=len(users),
    )
