# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A PCI device of the host in a definition: ``<hostdev>``, or ``<interface type='hostdev'>``.

Both give the guest the device itself. By an interface, libvirt also sets the MAC address and the VLAN of a VF,
through its PF, before the guest gets it (and resets them afterwards).

Source: libvirt, "Domain XML format", host device assignment and network interfaces; ``virDomainHostdevDefParseXML``,
``virDomainNetDefParseXML`` and ``virDomainDeviceInfoParseXML`` in ``src/conf/domain_conf.c``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional, Union

from .._core.errors import Problem
from .._pci.address import FIELDS, PciAddress
from .element import (
    ON_OFF,
    YES_NO,
    Address,
    Assigned,
    Attribute,
    Binding,
    Spelling,
    add_child,
    argument_options,
    bindings,
    bound,
    combined,
    given_values,
    hexadecimal,
    libvirt_number,
    one_of,
    read_element,
    text,
    whole_number,
    write_element,
)

if TYPE_CHECKING:
    from lxml.etree import _Element

HOSTDEV = "hostdev"
INTERFACE = "interface"

USER_ALIAS_PREFIX = "ua-"
VIRTUALPORT_TYPE = "802.1Qbh"
"""The one kind that a VF can have: libvirt ``virHostdevNetConfigVirtPortProfile`` sets up no other."""

# virDomainDeviceAliasIsUserAlias, virDomainDefValidateAliases: anything else is dropped without a word.
_ALIAS = text(
    r"ua-[A-Za-z0-9_-]+",
    "an alias of a user starts with ua-, followed by letters, digits, - and _ (libvirt drops any other without a word)",
)
_DRIVER = text(r"[A-Za-z0-9_-]+", "it is the name of a kernel driver, like vfio-pci or mlx5_vfio_pci")
_PATH = text(r"/.+", "it is an absolute path", "path")
_PEER = text(r"ua-[A-Za-z0-9_-]+", "it is the alias of an interface, which a user gave it (ua-…)")
# networkcommon.rng, virtualPortProfileID.
_PROFILE = text(r"(?s).{1,39}", "it has 1 to 39 characters")
# What only libvirt's plain define and files have; nothing may be asked for.
_ANYTHING = Spelling(str, str, str, "str")


def _mac(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"([0-9a-f]{2}[:-]){5}[0-9a-f]{2}", value.strip(), re.IGNORECASE):
        raise ValueError("it has six pairs of hexadecimal digits, like 52:54:00:12:34:56")
    mac = value.strip().lower().replace("-", ":")
    # virDomainNetDefParseXML ("expected unicast mac address"); basictypes.rng, uniMacAddr.
    if int(mac[:2], 16) & 1:
        raise ValueError("it is the address of a group (the lowest bit of its first pair is set), and not of one card")
    if not int(mac.replace(":", ""), 16):
        raise ValueError("a card with an address of zeros has none")
    return mac


def read_mac(text: str) -> str:
    """A MAC address as libvirt reads it: pairs may have one digit only.

    Source: ``virMacAddrParse``.

    :raises ValueError: for anything else
    """
    return ":".join(f"{int(pair, 16):02x}" for pair in text.split(":"))


_MAC = Spelling(read_mac, str, _mac, "str")


class _Alias(Attribute):
    """An alias of a user; libvirt's own (``hostdev0``, in the XML of a running domain) is none."""

    def read(self, element: _Element) -> Any:
        found = super().read(element)
        return found if found is not None and found.startswith(USER_ALIAS_PREFIX) else None


class _Kind(Binding):
    """Which element it is."""

    @property
    def type(self) -> str:
        return "str"

    def read(self, element: _Element) -> str:
        return str(element.tag)

    def write(self, element: _Element, value: str | None) -> None:
        if value == INTERFACE:
            element.tag = INTERFACE
            element.attrib.pop("mode", None)
            element.set("type", "hostdev")
        else:
            element.tag = HOSTDEV
            element.set("mode", "subsystem")
            element.set("type", "pci")

    def given(self, value: Any) -> str:
        return str(one_of(HOSTDEV, INTERFACE).given(value))


class _Source(Address):
    """The device; in an interface, the source says that it is a PCI device."""

    def write(self, element: _Element, value: PciAddress | None) -> None:
        super().write(element, value)
        address = element.find("source/address")
        if address is not None and element.tag == INTERFACE:
            address.set("type", "pci")


Vlan = Union[int, tuple[int, ...]]
"""The tag of a VLAN; several, or one of a trunk, as a tuple: a VF cannot have them."""


class _Vlan(Binding):
    """``<vlan><tag id='42'/></vlan>``.

    Source: libvirt ``virNetDevVlanParse``.
    """

    @property
    def type(self) -> str:
        return "int"

    def read(self, element: _Element) -> Vlan | None:
        vlan = element.find("vlan")
        if vlan is None:
            return None
        tags = tuple(libvirt_number(tag.get("id", "")) for tag in vlan.iterfind("tag"))
        plain = len(tags) == 1 and vlan.get("trunk") is None and vlan.find("tag[@nativeMode]") is None
        return tags[0] if plain else tags

    def write(self, element: _Element, value: Vlan | None) -> None:
        if self.read(element) == value:
            return
        for vlan in element.findall("vlan"):
            element.remove(vlan)
        if value is not None:
            vlan = add_child(element, "vlan")
            for tag in (value,) if isinstance(value, int) else value:
                add_child(vlan, "tag").set("id", str(tag))

    def given(self, value: Any) -> int:
        # IEEE 802.1Q, table 9-2: 0 is no VLAN, 4095 is reserved.
        return int(whole_number(1, 4094).given(value))

    def shown(self, value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Hostdev:
    """What a ``<hostdev mode='subsystem' type='pci'>`` or an ``<interface type='hostdev'>`` says. None: nothing."""

    # The kind comes first: others are written by it.
    kind: Optional[str] = bound(_Kind("kind", argument={"choices": [HOSTDEV, INTERFACE]}, filled=True), required=True)
    source: PciAddress = bound(_Source("source/address", None, always=True), required=True)
    managed: Optional[bool] = bound(Attribute("@managed", YES_NO, "managed", absent=False, argument={"default": True}))
    assigned: Optional[bool] = bound(Assigned("assigned", argument={"default": True}, since=(6, 0, 0), only=HOSTDEV))
    guest_address: Optional[PciAddress] = bound(Address("address", "guest_address", kind="pci", filled=True))
    multifunction: Optional[bool] = bound(
        Attribute("address/@multifunction", ON_OFF, "guest_address.multifunction", kind="pci", filled=True)
    )
    driver_model: Optional[str] = bound(Attribute("driver/@model", _DRIVER, "driver_model", since=(10, 0, 0)))
    # 12.1 has it too, but passes it on only from 12.2 on.
    iommufd: Optional[bool] = bound(Attribute("driver/@iommufd", YES_NO, "iommufd", since=(12, 2, 0)))
    # virDomainDeviceBootParseXML: an unsigned integer from 1 on.
    boot_order: Optional[int] = bound(Attribute("boot/@order", whole_number(1, 0x7FFFFFFF), "boot_order"))
    rom_enabled: Optional[bool] = bound(Attribute("rom/@enabled", YES_NO, "rom.enabled", since=(4, 3, 0)))
    rom_bar: Optional[bool] = bound(Attribute("rom/@bar", ON_OFF, "rom.bar"))
    rom_file: Optional[str] = bound(Attribute("rom/@file", _PATH, "rom.file"))
    alias: Optional[str] = bound(_Alias("alias/@name", _ALIAS, "alias", since=(3, 9, 0)))
    # QEMU acpi_pcihp_device_pre_plug_cb: ONBOARD_INDEX_MAX; libvirt itself takes more and QEMU then does not start.
    acpi_index: Optional[int] = bound(Attribute("acpi/@index", whole_number(1, 16383), "acpi_index", since=(7, 3, 0)))
    # qemuValidateDomainDeviceDefHostdev, virDomainNetTeamingInfoParseXML: a device that is passed through is transient.
    teaming_persistent: Optional[str] = bound(
        Attribute("teaming/@persistent", _PEER, "teaming.persistent", kind="transient", since=(7, 1, 0))
    )
    # virZPCIDeviceAddressIsValid: a uid of 0 is no uid.
    zpci_uid: Optional[int] = bound(
        Attribute("address/zpci/@uid", hexadecimal(1, 0xFFFF), "zpci.uid", kind="pci", filled=True, since=(4, 10, 0))
    )
    zpci_fid: Optional[int] = bound(
        Attribute(
            "address/zpci/@fid", hexadecimal(0, 0xFFFFFFFF), "zpci.fid", kind="pci", filled=True, since=(4, 10, 0)
        )
    )
    mac: Optional[str] = bound(Attribute("mac/@address", _MAC, "mac", filled=True, only=INTERFACE))
    vlan: Optional[Vlan] = bound(_Vlan("vlan", only=INTERFACE))
    virtualport_type: Optional[str] = bound(
        Attribute(
            "virtualport/@type",
            one_of(VIRTUALPORT_TYPE),
            "virtualport.type",
            argument={"choices": [VIRTUALPORT_TYPE], "default": VIRTUALPORT_TYPE},
            only=INTERFACE,
        )
    )
    virtualport_profileid: Optional[str] = bound(
        Attribute(
            "virtualport/parameters/@profileid",
            _PROFILE,
            "virtualport.profileid",
            argument={"required": True},
            only=INTERFACE,
        )
    )
    startup_policy: Optional[str] = bound(Attribute("source/@startupPolicy", _ANYTHING, None, only=HOSTDEV))
    write_filtering: Optional[str] = bound(Attribute("source/@writeFiltering", _ANYTHING, None, only=HOSTDEV))

    @property
    def zpci_ids_missing(self) -> int:
        """How many of its two ids in a guest on IBM Z libvirt has to make up."""
        return [self.zpci_uid, self.zpci_fid].count(None)

    def as_result(self) -> dict[str, Any]:
        """The hostdev in a module's result: what is said about it, by option name, addresses as lspci writes them."""
        result: dict[str, Any] = {"address": str(self.source), "kind": self.kind, "guest_address": None}
        for name, binding in bindings(self):
            value = getattr(self, name)
            if value is None or binding.option is None or binding.only not in ("", self.kind):
                continue
            group, _unused, suboption = binding.option.partition(".")
            if group == "guest_address":
                result[name] = binding.shown(value)
            elif suboption:
                result.setdefault(group, {})[suboption] = binding.shown(value)
            else:
                result[group] = binding.shown(value)
        return result


GUEST_SIDE = (
    "guest_address",
    "multifunction",
    "boot_order",
    "rom_enabled",
    "rom_bar",
    "rom_file",
    "alias",
    "acpi_index",
    "teaming_persistent",
    "zpci_uid",
    "zpci_fid",
)
"""The fields that speak of what the guest sees, and mean nothing for a device that the guest does not get."""


# domaincommon.rng, hostdevsubsyspci: an interleave within an interleave, the elements of which libxml2 takes only when
# they stand together.
_BESIDE_SOURCE = ("driver", "teaming")

SAYS_NOTHING = {"assigned": True}
"""What every device has unless something else is said, by field: to say it changes nothing."""


def option_of(field: str) -> str:
    """The option that sets a field: ``rom.file`` for ``rom_file``."""
    return next(binding.option or name for name, binding in bindings(Hostdev) if name == field)


def fields_of_others(kind: Optional[str]) -> list[str]:
    """The fields that a device of this kind cannot have."""
    return [name for name, binding in bindings(Hostdev) if binding.only not in ("", kind)]


def hostdev_options() -> dict[str, Any]:
    """The argument spec of one hostdev, without the selector of its device."""
    return argument_options(Hostdev)


def is_hostdev(element: _Element) -> bool:
    """Whether an element of ``<devices>`` gives a PCI device of the host to the guest."""
    if element.tag == INTERFACE:
        address = element.find("source/address")
        return element.get("type") == "hostdev" and address is not None and address.get("type") == "pci"
    # virDomainHostdevDefParseXML: the mode is subsystem when it is not there.
    return element.tag == HOSTDEV and element.get("type") == "pci" and element.get("mode", "subsystem") == "subsystem"


def parse(element: _Element) -> Hostdev:
    """Read an element as libvirt reads it.

    :raises ValueError: when libvirt could not read it either
    """
    return read_element(Hostdev, element)


def emit(hostdev: Hostdev, element: _Element) -> None:
    """Make an element of the same kind, or a new one, say exactly ``hostdev``. What else it says stays."""
    there = list(element)
    write_element(hostdev, element)
    source = element.find("source")
    for child in list(element):
        if source is not None and child.tag in _BESIDE_SOURCE and child not in there:
            source.addnext(child)


def given(options: Mapping[str, Any], where: str) -> tuple[Hostdev, list[Problem]]:
    """What a person asked for, of a device not known yet (0000:00:00.0), and everything that is wrong with it."""
    values, problems = given_values(Hostdev, options, where)
    address = options.get("guest_address")
    if isinstance(address, Mapping):
        known = (*FIELDS, "multifunction")
        strange = sorted(str(name) for name in address if name not in known)
        if strange:
            problems.append(
                Problem(
                    "hostdev_value_invalid",
                    f"{where}: guest_address has no {', '.join(strange)}.",
                    f"It may have {', '.join(known)}.",
                    {"hostdev": where, "field": "guest_address", "value": dict(address)},
                )
            )
    if "virtualport_profileid" in values:
        values.setdefault("virtualport_type", VIRTUALPORT_TYPE)
    return Hostdev(**{"kind": None, "source": PciAddress(0, 0, 0, 0), **values}), problems


def changed_to(wanted: Hostdev, present: Hostdev | None, *, exact: bool = False) -> Hostdev:
    """``present`` changed to what ``wanted`` says; for ``exact`` see :func:`element.combined`.

    A device that the guest no longer gets loses what only a guest sees, one whose ROM is switched off loses the ROM's
    other settings, and one that moves to another guest address loses what belonged to the old one. One that becomes an
    interface, or a hostdev, keeps what both can have; one of which nothing is said stays what it is.
    """
    wanted = replace(wanted, kind=wanted.kind or (HOSTDEV if present is None else present.kind))
    if present is not None and present.kind != wanted.kind:
        nothing: dict[str, Any] = dict.fromkeys(fields_of_others(wanted.kind))
        present = replace(present, **nothing)
    result = combined(wanted, present, exact=exact)
    if present is None:
        return result
    if result.assigned is False:
        return replace(result, **{name: getattr(wanted, name) for name in GUEST_SIDE})
    if wanted.rom_enabled is False:
        result = replace(result, rom_bar=wanted.rom_bar, rom_file=wanted.rom_file)
    if wanted.multifunction is None and result.guest_address != present.guest_address:
        return replace(result, multifunction=None)
    return result


def unlike(wanted: Hostdev, present: Hostdev, *, exact: bool = False) -> list[str]:
    """The fields in which ``present`` is not as wanted, by meaning; empty when nothing has to be changed."""
    target = changed_to(wanted, present, exact=exact)
    return [name for name, _unused in bindings(target) if getattr(target, name) != getattr(present, name)]
