# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A libvirt network that is a pool of VFs: ``<forward mode='hostdev'>``, from which each guest interface gets a VF.

Source: libvirt, "Network XML format"; ``virNetworkDefParseXML`` in ``src/conf/network_conf.c``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Optional

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._pci.address import FIELDS, PciAddress
from .._pci.device import Bus, PciDevice
from .._pci.tree import functions_in
from .definition import element_text, parse_xml
from .element import (
    YES_NO,
    Attribute,
    Binding,
    add_child,
    argument_options,
    bindings,
    bound,
    combined,
    given_values,
    libvirt_number,
    read_element,
    text,
    write_element,
)
from .hostdev import VIRTUALPORT_TYPE

if TYPE_CHECKING:
    from lxml.etree import _Element

MODE = "hostdev"

NONE = "none"

UNKNOWN_GUEST = "a guest"
"""What a domain is called whose name libvirt does not tell."""

_DRIVER = text(r"[A-Za-z0-9_-]+", "it is the name of a kernel driver, like mlx5_vfio_pci")
_INTERFACE = text(r"[^/:\s]{1,15}", "it is the name of a network interface")
# networkcommon.rng, virtualPortProfileID.
_PROFILE = text(r".{1,39}", "it is text of 1 to 39 characters")
# network.rng, deviceName.
_PORTGROUP = text(r"[a-zA-Z0-9_.\-:/]+", "it consists of letters, digits and _ . - : /")
# libvirt virNetworkDefParseXML (no slash: it becomes the name of a file); white space makes trouble on command lines.
_NAME = text(r"[^/\s]+", "it is text without slashes and white space")


@dataclass(frozen=True)
class Vlan:
    """The ``<vlan>`` of a network or a port group: (id, native mode or None) for each tag; no tag: there is none.

    A VF takes one tag, and no trunk: libvirt ``virNetDevSetNetConfig``, when the guest starts. More is read, not made.
    """

    tags: tuple[tuple[int, Optional[str]], ...] = ()
    trunk: bool = False

    @property
    def possible(self) -> bool:
        """Whether a VF can have it."""
        return not self.trunk and len(self.tags) <= 1

    @property
    def shown(self) -> Any:
        """The id of the one tag, None for none, and otherwise words."""
        if not self.tags:
            return None
        if self.possible and self.tags[0][1] is None:
            return self.tags[0][0]
        named = [f"{number} ({mode})" if mode else str(number) for number, mode in self.tags]
        return f"{'trunk of ' if self.trunk else ''}{', '.join(named)}"


@dataclass(frozen=True)
class VirtualPort:
    """The ``<virtualport>`` of a network or a port group; no type: there is none."""

    type: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> Optional[dict[str, str]]:
        """As a JSON value."""
        return {"type": self.type, **dict(self.parameters)} if self.type else None


class _VlanBinding(Binding):
    @property
    def type(self) -> str:
        return "int"

    def read(self, element: _Element) -> Vlan:
        child = element.find("vlan")
        if child is None:
            return Vlan()
        tags = []
        for tag in child.iterfind("tag"):
            tags.append((libvirt_number(tag.get("id", "0")), tag.get("nativeMode")))
        # virNetDevVlanParse: several tags are a trunk.
        return Vlan(tuple(tags), child.get("trunk") == "yes" or len(tags) > 1)

    def write(self, element: _Element, value: Vlan | None) -> None:
        if value == self.read(element):
            return
        _remove(element, "vlan")
        if value is not None and value.tags:
            child = add_child(element, "vlan")
            if value.trunk:
                child.set("trunk", "yes")
            for number, mode in value.tags:
                tag = add_child(child, "tag")
                tag.set("id", str(number))
                if mode:
                    tag.set("nativeMode", mode)

    def given(self, value: Any) -> Vlan:
        # IEEE 802.1Q: 0 is "no VLAN", and 4095 is reserved.
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 4094:
            return Vlan(((value, None),)) if value else Vlan()
        raise ValueError("it is the number of a VLAN, from 1 to 4094, or 0 for none")

    def shown(self, value: Vlan | None) -> Any:
        return None if value is None else value.shown


_VIRTUALPORT_OPTIONS = {
    "type": {"type": "str", "choices": [VIRTUALPORT_TYPE, NONE], "default": VIRTUALPORT_TYPE},
    "profileid": {"type": "str"},
}


class _VirtualPortBinding(Binding):
    @property
    def type(self) -> str:
        return "dict"

    def read(self, element: _Element) -> VirtualPort:
        child = element.find("virtualport")
        if child is None:
            return VirtualPort()
        parameters = child.find("parameters")
        found = {} if parameters is None else dict(parameters.attrib)
        return VirtualPort(child.get("type", "?"), tuple(sorted((str(name), str(one)) for name, one in found.items())))

    def write(self, element: _Element, value: VirtualPort | None) -> None:
        if value == self.read(element):
            return
        _remove(element, "virtualport")
        if value is not None and value.type:
            child = add_child(element, "virtualport")
            child.set("type", value.type)
            if value.parameters:
                parameters = add_child(child, "parameters")
                for name, one in value.parameters:
                    parameters.set(name, one)

    def given(self, value: Any) -> VirtualPort:
        profile = value.get("profileid")
        if value.get("type") == NONE:
            if profile is not None:
                raise ValueError("with type none there is no profileid")
            return VirtualPort()
        if profile is None:
            raise ValueError("it needs a profileid, the name of the port profile in the switch")
        return VirtualPort(VIRTUALPORT_TYPE, (("profileid", _PROFILE.given(profile)),))

    def shown(self, value: VirtualPort | None) -> Any:
        return None if value is None else value.shown


class _Addresses(Binding):
    """The VFs that ``<forward>`` lists, in bus order."""

    @property
    def type(self) -> str:
        return "raw"

    def read(self, element: _Element) -> tuple[PciAddress, ...]:
        return tuple(sorted(address for address, _child in self._all(element)))

    def write(self, element: _Element, value: tuple[PciAddress, ...] | None) -> None:
        forward = element.find("forward")
        if forward is None:
            return
        there = set()
        for address, child in list(self._all(element)):
            if address in there or address not in (value or ()):
                forward.remove(child)
            there.add(address)
        for address in value or ():
            if address not in there:
                child = add_child(forward, "address")
                child.set("type", "pci")
                for name, number in address.xml_attributes.items():
                    child.set(name, number)

    def given(self, value: Any) -> Any:
        raise ValueError("they are selected, not given")

    def shown(self, value: tuple[PciAddress, ...] | None) -> Any:
        return [str(address) for address in value or ()]

    @staticmethod
    def _all(element: _Element) -> Iterator[tuple[PciAddress, _Element]]:
        for child in element.iterfind("forward/address"):
            try:
                yield PciAddress(*(libvirt_number(child.get(name, "0")) for name in FIELDS)), child
            except PassthroughError as error:
                raise ValueError(error.problems[0].message) from error


@dataclass(frozen=True)
class Portgroup:
    """One ``<portgroup>``: a guest interface may name it, and then has its settings."""

    name: str = bound(Attribute("@name", _PORTGROUP, "name", argument={"required": True}), required=True)
    default: Optional[bool] = bound(Attribute("@default", YES_NO, "default", absent=False, argument={"default": False}))
    vlan: Optional[Vlan] = bound(_VlanBinding("vlan"))
    virtualport: Optional[VirtualPort] = bound(
        _VirtualPortBinding("virtualport", argument={"options": _VIRTUALPORT_OPTIONS})
    )

    def as_result(self) -> dict[str, Any]:
        """The port group in a module's result."""
        return {name: binding.shown(getattr(self, name)) for name, binding in bindings(self)}


class _Portgroups(Binding):
    """The port groups, by name; given ones are all that there shall be."""

    @property
    def type(self) -> str:
        return "list"

    def read(self, element: _Element) -> tuple[Portgroup, ...]:
        groups = [read_element(Portgroup, child) for child in element.iterfind("portgroup")]
        if any(group.name is None for group in groups):
            raise ValueError("a port group has no name")
        return _by_name(groups)

    def write(self, element: _Element, value: tuple[Portgroup, ...] | None) -> None:
        there: dict[str, _Element] = {}
        for child in element.findall("portgroup"):
            name = child.get("name", "")
            if name in there or all(group.name != name for group in value or ()):
                element.remove(child)
            else:
                there[name] = child
        for group in value or ():
            child = there[group.name] if group.name in there else add_child(element, "portgroup")
            if group != _filled(read_element(Portgroup, child)):
                write_element(group, child)

    def given(self, value: Any) -> tuple[Portgroup, ...]:
        groups, problems = [], []
        for number, item in enumerate(value):
            values, wrong = given_values(Portgroup, item, f"portgroups[{number}]")
            problems += wrong
            if not wrong:
                groups.append(_filled(Portgroup(**values)))
        if problems:
            raise PassthroughError.of(problems)
        return _by_name(groups)

    def shown(self, value: tuple[Portgroup, ...] | None) -> Any:
        return [group.as_result() for group in value or ()]


def _by_name(groups: Iterable[Portgroup]) -> tuple[Portgroup, ...]:
    return tuple(sorted((_filled(group) for group in groups), key=lambda group: group.name))


def _filled(group: Portgroup) -> Portgroup:
    """A port group is given as a whole: what is not said is not there."""
    return replace(group, vlan=group.vlan or Vlan(), virtualport=group.virtualport or VirtualPort())


@dataclass(frozen=True)
class Pool:
    """What a ``<network>`` says of a pool of VFs. None: nothing is said."""

    managed: Optional[bool] = bound(
        Attribute("forward/@managed", YES_NO, "managed", absent=False, argument={"default": True})
    )
    pf: Optional[str] = bound(Attribute("forward/pf/@dev", _INTERFACE, None))
    addresses: Optional[tuple[PciAddress, ...]] = bound(_Addresses(None))
    driver_model: Optional[str] = bound(Attribute("forward/driver/@model", _DRIVER, "driver_model", since=(10, 0, 0)))
    vlan: Optional[Vlan] = bound(_VlanBinding("vlan"))
    virtualport: Optional[VirtualPort] = bound(
        _VirtualPortBinding("virtualport", argument={"options": _VIRTUALPORT_OPTIONS})
    )
    portgroups: Optional[tuple[Portgroup, ...]] = bound(
        _Portgroups("portgroups", argument={"elements": "dict", "options": argument_options(Portgroup)})
    )

    def as_result(self) -> dict[str, Any]:
        """The pool in a module's result, by option name."""
        shown = {name: binding.shown(getattr(self, name)) for name, binding in bindings(self)}
        return {**shown, "addresses": None if self.pf else shown["addresses"]}

    @property
    def groups(self) -> list[Portgroup]:
        """The settings that a guest interface can get: those of the network itself (without a name), and those of each
        port group, where they take the place of the network's.

        Source: libvirt ``networkAllocatePort`` and ``virNetDevVPortProfileMerge3``.
        """
        whole = _filled(Portgroup("", False, self.vlan, self.virtualport))
        found = [whole]
        for group in self.portgroups or ():
            found.append(
                replace(
                    group,
                    vlan=group.vlan if group.vlan and group.vlan.tags else whole.vlan,
                    virtualport=group.virtualport
                    if group.virtualport and group.virtualport.type
                    else whole.virtualport,
                )
            )
        return found


def pool_options() -> dict[str, Any]:
    """The argument spec of a pool's settings."""
    return argument_options(Pool)


def given(options: Mapping[str, Any], where: str) -> tuple[Pool, list[Problem]]:
    """The settings that a person asked for, of no VFs yet, and everything that is wrong with them."""
    try:
        values, problems = given_values(Pool, options, where)
    except PassthroughError as error:  # each with its own place
        values, problems = given_values(Pool, {**options, "portgroups": None}, where)
        problems += error.problems
    return Pool(**values), problems


def name_given(value: str) -> str:
    """The name of a network.

    :raises ValueError: with the rule that it breaks
    """
    return str(_NAME.given(value))


def changed_to(wanted: Pool, present: Pool | None) -> Pool:
    """``present`` changed to what ``wanted`` says: a PF takes the place of listed VFs, and they that of a PF."""
    result = combined(wanted, present)
    if wanted.pf:
        return replace(result, addresses=())
    if wanted.addresses:
        return replace(result, pf=None)
    return result


class NetworkDefinition:
    """What an XML document says of a network. Looked at, never changed."""

    def __init__(self, xml: str) -> None:
        """Parse the document.

        :raises PassthroughError: ``domain_xml_invalid``
        """
        self.root = parse_xml(xml)
        self.text = element_text(self.root)

    @property
    def name(self) -> str:
        """The name."""
        return (self.root.findtext("name") or "").strip()

    @property
    def mode(self) -> str | None:
        """How it forwards (``nat``, ``hostdev``); None for a network that does not."""
        forward = self.root.find("forward")
        # virNetworkForwardDefParseXML: nat is the mode of a <forward> that names none.
        return None if forward is None else forward.get("mode", "nat")

    @property
    def is_pool(self) -> bool:
        """Whether guests get VFs from it."""
        return self.mode == MODE

    @cached_property
    def pool(self) -> Pool:
        """What it says of the pool.

        :raises PassthroughError: ``network_xml_invalid``
        """
        try:
            return read_element(Pool, self.root)
        except ValueError as error:
            raise PassthroughError(
                "network_xml_invalid",
                f"The network {self.name} cannot be read ({error}):\n{self.text}",
                "Correct it with virsh net-edit.",
                network=self.name,
            ) from error

    @property
    def connections(self) -> int:
        """The number of guest interfaces that are connected, as an active network says it."""
        return int(self.root.get("connections", "0"))


def network_text(name: str, pool: Pool, present: NetworkDefinition | None) -> str:
    """The definition of a pool: ``present`` changed accordingly, or a new one."""
    if present is None:
        root = parse_xml("<network/>")
        add_child(root, "name").text = name
        add_child(root, "forward").set("mode", MODE)
    else:
        root = copy.deepcopy(present.root)
    write_element(pool, root)
    return element_text(root)


def pf_device(host: Host, bus: Bus, interface: str) -> PciDevice | None:
    """The PCI device that a network interface belongs to now, or None."""
    path = f"/sys/class/net/{interface}"
    functions = functions_in(host.real_path(path))[1] if host.exists(path) else []
    return bus.device(functions[-1]) if functions and functions[-1] in bus else None


def members(pool: Pool, host: Host, bus: Bus) -> list[PciAddress]:
    """The VFs of a pool: those it lists, or those that its PF has now."""
    if pool.pf:
        device = pf_device(host, bus, pool.pf)
        return [] if device is None else list(device.vfs)
    return list(pool.addresses or ())


@dataclass(frozen=True, order=True)
class Port:
    """One guest interface that is connected to an active network."""

    owner: str
    """The domain, by name."""
    device: Optional[PciAddress] = None
    """The VF that it has; None where libvirt does not tell."""

    @classmethod
    def parse(cls, xml: str) -> Port:
        """Read a ``<networkport>``; see ``virNetworkPortDefFormat``."""
        root = parse_xml(xml)
        address = root.find("plug/address")
        device = None if address is None else PciAddress(*(libvirt_number(address.get(name, "0")) for name in FIELDS))
        return cls(root.findtext("owner/name") or UNKNOWN_GUEST, device)


def references(domain: _Element, network: str) -> bool:
    """Whether a domain's definition has an interface of a network."""
    return any(
        source.get("network") == network for source in domain.iterfind("devices/interface[@type='network']/source")
    )


def _remove(element: _Element, name: str) -> None:
    for child in element.findall(name):
        element.remove(child)
