# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One PCI device of the host added to a domain, taken out, or replaced.

libvirt offers two ways. To read the definition, edit it and define it again loses whatever somebody else changed in
between. ``virDomainAttachDeviceFlags`` and ``virDomainDetachDeviceFlags`` with ``VIR_DOMAIN_AFFECT_CONFIG`` change
one device in one step and nothing else, so they are used here, and secrets in the definition are never read.

What they lack is ``VIR_DOMAIN_DEFINE_VALIDATE``: they drop what they do not know without a word. So the element is
checked against the host's own schema beforehand (:mod:`.schema`), and read back and compared by meaning afterwards.
A guest that runs is changed in the same way, with ``VIR_DOMAIN_AFFECT_LIVE``. A hostdev cannot be updated
(``qemuDomainUpdateDeviceConfig`` knows none): one that changes is detached and attached.

libvirt adds PCI controllers to a guest that has no free port; an undo takes them away again, unless they are in use.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Sequence

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.plan import Action
from .._core.state import Record
from .._pci.address import PciAddress
from .definition import PciHostdev, element_text, parse_xml
from .element import bindings
from .hostdev import USER_ALIAS_PREFIX, Hostdev, emit, option_of
from .place import Place

RECORD_KIND = "domain_hostdev"
"""Records of hostdevs: the elements themselves."""
CONTROLLERS_KIND = "domain_controllers"
"""Records of domains: the PCI buses they have. libvirt adds some for our devices."""


def hostdev_text(wanted: Hostdev, present: PciHostdev | None) -> str:
    """The element for ``wanted``: ``present`` changed accordingly, or a new one."""
    if present is None or present.value.kind != wanted.kind:
        element = parse_xml(f"<{wanted.kind}/>")
    else:
        element = copy.deepcopy(present.element)
    emit(wanted, element)
    return element_text(element)


def records_of(key: str, before: str | None, after: str | None) -> Sequence[Record]:
    """What is remembered of a changed hostdev; the elements themselves, which have no secrets."""
    return (Record(RECORD_KIND, key, before, after),)


class HostdevChange(Action):
    """Bring the hostdev of one device from ``before`` to ``after``, each the element's text or None for none."""

    def __init__(
        self,
        place: Place,
        key: str | None,
        source: PciAddress,
        before: str | None,
        after: str | None,
        wanted: Hostdev | None,
    ) -> None:
        """:param key: the key of the record; None when nothing is remembered (of a guest that runs)
        :param before: as it was observed; when it is different by the time it is changed, it is left alone
        :param wanted: what ``after`` says; None exactly when that is None
        """
        self.before = before
        self.after = after
        name = place.name
        if before is None:
            self.description = f"{'plug' if place.live else 'add'} {source} {'into' if place.live else 'to'} {name}"
        elif after is None:
            self.description = f"{'unplug' if place.live else 'remove'} {source} from {name}"
        else:
            self.description = f"change {source} in {name}"
        self.target = f"{name.partition('the ')[2]}, hostdev {source}"
        self._place = place
        self.source = source
        self._wanted = wanted
        self._key = key
        self._left = self.after
        self._grown: set[int] = set()
        self._buses: list[int] | None = None

    def apply(self, host: Host) -> None:
        there = self._look()
        if essence(there) != essence(self.before):
            raise self._changed_meanwhile("while this module was planning")
        if there is not None:
            self._place.detach(there)
        if self.after is None or self._wanted is None:
            return
        try:
            self._attach(self.after)
            self._left = self._look()
            self._verify(self._wanted)
        except PassthroughError:
            try:
                self._restore()
            except PassthroughError:
                # The runner tries once more, and says so when that fails too.
                self.partial = True
                with contextlib.suppress(PassthroughError):
                    self._left = self._look()
            raise

    def undo(self, host: Host) -> None:
        if essence(self._look()) != essence(self._left):
            raise self._changed_meanwhile("since this module changed it")
        self._restore()

    def records(self) -> Sequence[Record]:
        if self._key is None:
            return ()
        now = sorted(self._place.definition().pci_controllers)
        if self._buses is None:
            self._buses = now
        domain = self._key.rpartition(" ")[0]
        return (*records_of(self._key, self.before, self._left), Record(CONTROLLERS_KIND, domain, self._buses, now))

    # -- parts ------------------------------------------------------------------------------------------

    def _look(self) -> str | None:
        """The element as it stands in the definition now."""
        found = self._place.definition().hostdev(self.source)
        return None if found is None else found.text

    def _attach(self, text: str) -> None:
        before = set(self._place.definition().pci_controllers)
        self._place.attach(text)
        self._grown |= set(self._place.definition().pci_controllers) - before

    def _verify(self, wanted: Hostdev) -> None:
        """What libvirt wrote down has to mean what was asked for.

        :raises PassthroughError: ``libvirt_changed_setting``
        """
        found = self._place.definition().hostdev(self.source)
        problems = []
        for name, binding in bindings(wanted):
            asked = getattr(wanted, name)
            got = None if found is None else getattr(found.value, name)
            if asked is not None and got != asked:
                problems.append(
                    Problem(
                        "libvirt_changed_setting",
                        f"libvirt took the hostdev of {self.source}, but its {option_of(name)} is then "
                        f"{binding.shown(got)!r} and not {binding.shown(asked)!r}.",
                        "This libvirt does not support the setting; leave it out, or update libvirt.",
                        {"device": str(self.source), "field": option_of(name), "value": binding.shown(asked)},
                    )
                )
        if problems:
            raise PassthroughError.of(problems)

    def _restore(self) -> None:
        """Bring ``before`` back, whatever is there now.

        :raises PassthroughError: ``libvirt_refused``, ``hostdev_not_restored``
        """
        there = self._look()
        if there is not None:
            self._place.detach(there)
        if self.before is not None:
            self._place.attach(self.before)
            there = self._look()
            if essence(there) != essence(self.before):
                raise PassthroughError(
                    "hostdev_not_restored",
                    f"The hostdev of {self.source} in {self._place.name} is back, but it is\n{there}\n"
                    f"and was\n{self.before}",
                    "Compare the two, and correct it with virsh edit.",
                    device=str(self.source),
                    domain=self._place.name,
                )
        for index in sorted(self._grown, reverse=True):
            definition = self._place.definition()
            text = definition.pci_controller_text(index)
            if text is not None and index not in definition.used_buses:
                self._place.detach(text)
        self._grown.clear()

    def _changed_meanwhile(self, when: str) -> PassthroughError:
        return PassthroughError(
            "domain_changed_meanwhile",
            f"The hostdev of {self.source} in {self._place.name} was changed by somebody else {when}; "
            "it was left alone.",
            "Run the module again when the other change is complete.",
            device=str(self.source),
            domain=self._place.name,
        )


class RemoveControllers(Action):
    """Take PCI controllers out of a definition, on whose buses nothing is."""

    after = None

    def __init__(self, place: Place, buses: Sequence[int]) -> None:
        """:param buses: in the order in which their controllers can be taken out"""
        self.description = f"remove the PCI controllers {', '.join(str(bus) for bus in buses)} from {place.name}"
        self.target = f"{place.name.partition('the ')[2]}, PCI controllers"
        self.before = list(buses)
        self._place = place
        self._buses = buses
        self._removed: list[str] = []

    def apply(self, host: Host) -> None:
        self.partial = True
        for bus in self._buses:
            definition = self._place.definition()
            text = definition.pci_controller_text(bus)
            if text is not None and bus not in definition.used_buses:
                self._place.detach(text)
                self._removed.append(text)

    def undo(self, host: Host) -> None:
        while self._removed:
            self._place.attach(self._removed[-1])
            self._removed.pop()


def essence(text: str | None) -> str | None:
    """The element without what libvirt sets by itself: ``multifunction``, when another function comes into the slot
    (``virDomainPCIAddressSetAllMulti``), and in what runs an alias that no user gave."""
    if text is None:
        return None
    element = parse_xml(text)
    for alias in element.findall("alias"):
        if not alias.get("name", "").startswith(USER_ALIAS_PREFIX):
            element.remove(alias)
    for address in element.iterfind("address"):
        address.attrib.pop("multifunction", None)
    return element_text(element)
