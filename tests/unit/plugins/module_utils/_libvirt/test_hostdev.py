# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given as everything
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.change import hostdev_text
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import PciHostdev, element_text
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.element import bindings
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev import (
    GUEST_SIDE,
    HOSTDEV,
    INTERFACE,
    VIRTUALPORT_TYPE,
    Hostdev,
    changed_to,
    emit,
    given,
    hostdev_options,
    parse,
    unlike,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.tests.unit.support.domains import hostdev_xml

etree = pytest.importorskip("lxml.etree")

ADDRESSES = st.builds(PciAddress, st.integers(0, 0xFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7))
NAMES = st.text(alphabet="abcXYZ019_-", min_size=1, max_size=8)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


ASSIGNED = st.builds(
    Hostdev,
    kind=st.just(HOSTDEV),
    source=ADDRESSES,
    managed=st.booleans(),
    assigned=st.just(True),
    guest_address=maybe(ADDRESSES),
    multifunction=maybe(st.booleans()),
    driver_model=maybe(NAMES),
    iommufd=maybe(st.booleans()),
    boot_order=maybe(st.integers(1, 99)),
    rom_enabled=maybe(st.booleans()),
    rom_bar=maybe(st.booleans()),
    rom_file=maybe(NAMES.map(lambda name: f"/roms/{name} <&'\">")),
    alias=maybe(NAMES.map(lambda name: f"ua-{name}")),
    acpi_index=maybe(st.integers(1, 16383)),
    teaming_persistent=maybe(NAMES.map(lambda name: f"ua-{name}")),
    zpci_uid=maybe(st.integers(1, 0xFFFF)),
    zpci_fid=maybe(st.integers(0, 0xFFFFFFFF)),
    startup_policy=maybe(st.sampled_from(["mandatory", "optional"])),
    write_filtering=maybe(st.sampled_from(["yes", "no"])),
).map(lambda one: one if one.guest_address is not None else replace(one, multifunction=None))
NOTHING: dict[str, Any] = dict.fromkeys(GUEST_SIDE)
WITHHELD = ASSIGNED.map(lambda one: replace(one, assigned=False, **NOTHING))
NO_HOSTDEV: dict[str, Any] = {"startup_policy": None, "write_filtering": None}
INTERFACES = st.builds(
    lambda one, mac, vlan, profile: replace(
        one,
        **NO_HOSTDEV,
        kind=INTERFACE,
        mac=mac,
        vlan=vlan,
        virtualport_type=profile and VIRTUALPORT_TYPE,
        virtualport_profileid=profile,
    ),
    ASSIGNED,
    maybe(st.integers(0, 0xFFFFFF).map(lambda n: f"52:54:00:{n >> 16:02x}:{n >> 8 & 0xFF:02x}:{n & 0xFF:02x}")),
    maybe(st.integers(1, 4094) | st.lists(st.integers(1, 4094), min_size=2, max_size=3).map(tuple)),
    maybe(NAMES),
)
HOSTDEVS = ASSIGNED | WITHHELD | INTERFACES


def new(hostdev: Hostdev) -> Any:
    element = etree.Element("hostdev")
    emit(hostdev, element)
    return element


def rewritten(before: Hostdev, after: Hostdev) -> Any:
    """What ``after`` becomes when ``before`` stands there."""
    element = new(before)
    return etree.fromstring(hostdev_text(after, PciHostdev(element, element_text(element), before)))


@everything(HOSTDEVS)
def test_what_is_written_is_read_again(hostdev: Hostdev) -> None:
    element = new(hostdev)
    assert parse(element) == hostdev
    assert parse(etree.fromstring(etree.tostring(element))) == hostdev


@everything(HOSTDEVS, HOSTDEVS)
def test_an_element_that_was_rewritten_says_the_new_and_nothing_of_the_old(before: Hostdev, after: Hostdev) -> None:
    element = rewritten(before, after)
    assert parse(element) == after
    if before.zpci_uid is None and before.zpci_fid is None:  # <address type='pci'/> may stay, and means nothing

        def said(whole: Any) -> list[bytes]:
            return sorted(
                etree.tostring(etree.fromstring(element_text(child)), method="c14n")
                for child in whole
                if child.attrib != {"type": "pci"}
            )

        assert said(element) == said(new(after))


@everything(HOSTDEVS)
def test_writing_twice_is_writing_once(hostdev: Hostdev) -> None:
    element = new(hostdev)
    text = element_text(element)
    emit(hostdev, element)
    assert element_text(element) == text


@everything(HOSTDEVS, HOSTDEVS, st.booleans())
def test_what_was_changed_is_no_longer_unlike(wanted: Hostdev, present: Hostdev, exact: bool) -> None:
    wanted = replace(wanted, source=present.source)
    final = changed_to(wanted, present, exact=exact)
    assert unlike(wanted, final, exact=exact) == []
    for name, _unused in bindings(wanted):
        if getattr(wanted, name) is not None:
            assert getattr(final, name) == getattr(wanted, name)


@everything(HOSTDEVS)
def test_what_libvirt_fills_in_is_no_difference(hostdev: Hostdev) -> None:
    asked = replace(hostdev, kind=None, guest_address=None, multifunction=None, zpci_uid=None, zpci_fid=None, mac=None)
    assert unlike(asked, hostdev) == []
    assert unlike(asked, hostdev, exact=True) == []


@everything(HOSTDEVS, st.data())
def test_every_difference_is_named(hostdev: Hostdev, data: st.DataObject) -> None:
    other = data.draw(HOSTDEVS)
    names = [name for name, _unused in bindings(hostdev) if getattr(hostdev, name) != getattr(other, name)]
    if hostdev.assigned and other.assigned and None not in vars(hostdev).values():
        assert unlike(hostdev, other) == names


def test_addresses_are_always_written_with_0x() -> None:
    text = element_text(
        new(Hostdev(HOSTDEV, PciAddress(1, 0x10, 8, 3), guest_address=PciAddress(0, 9, 0, 0), managed=False))
    )
    assert text == (
        '<hostdev mode="subsystem" type="pci" managed="no">\n'
        "  <source>\n"
        '    <address domain="0x0001" bus="0x10" slot="0x08" function="0x3"/>\n'
        "  </source>\n"
        '  <address type="pci" domain="0x0000" bus="0x09" slot="0x00" function="0x0"/>\n'
        "</hostdev>"
    )


@pytest.mark.parametrize(
    ("attributes", "address"),
    [
        ("domain='0' bus='10' slot='010' function='1'", "0000:0a:08.1"),
        ("domain='0x1' bus='0x10'", "0001:10:00.0"),
        ("", "0000:00:00.0"),
    ],
)
def test_a_source_is_read_as_libvirt_reads_it(attributes: str, address: str) -> None:
    element = etree.fromstring(f"<hostdev type='pci'><source><address {attributes}/></source></hostdev>")
    assert str(parse(element).source) == address


def test_no_source_at_all_is_device_0() -> None:
    assert parse(etree.fromstring("<hostdev type='pci'/>")).source == PciAddress(0, 0, 0, 0)


@pytest.mark.parametrize("attributes", ["bus='1z'", "bus='256'", "slot='32'", "function='8'", "domain='-1'"])
def test_a_source_that_libvirt_cannot_read(attributes: str) -> None:
    with pytest.raises(ValueError, match="source"):
        parse(etree.fromstring(f"<hostdev type='pci'><source><address {attributes}/></source></hostdev>"))


@pytest.mark.parametrize(("value", "managed"), [("yes", True), ("no", False), ("true", False), ("on", False)])
def test_managed_is_yes_or_no(value: str, managed: bool) -> None:
    # libvirt's plain define takes managed='true' for no
    assert parse(etree.fromstring(hostdev_xml("01:00.0", attributes=f"managed='{value}'"))).managed is managed
    assert parse(etree.fromstring(hostdev_xml("01:00.0", attributes=""))).managed is False


def test_an_alias_of_libvirt_is_none() -> None:
    assert parse(etree.fromstring(hostdev_xml("01:00.0", "<alias name='hostdev0'/>"))).alias is None
    assert parse(etree.fromstring(hostdev_xml("01:00.0", "<alias name='ua-a'/>"))).alias == "ua-a"


def test_a_guest_address_of_zpci_only_is_none() -> None:
    found = parse(etree.fromstring(hostdev_xml("01:00.0", "<address type='pci'><zpci uid='17'/></address>")))
    assert (found.guest_address, found.zpci_uid, found.zpci_fid) == (None, 17, None)


def test_what_is_not_described_stays() -> None:
    inner = "<driver name='vfio'/><teaming type='transient' persistent='ua-b'/><readonly/>"
    element = etree.fromstring(hostdev_xml("01:00.0", inner + "<boot order='1'/>"))
    emit(replace(parse(element), managed=False, boot_order=None, driver_model="x"), element)
    text = etree.tostring(element).decode()
    assert '<driver name="vfio" model="x"/>' in text
    assert '<teaming type="transient" persistent="ua-b"/>' in text
    assert "<readonly/>" in text
    assert "<boot" not in text


# -- what a person asks for ---------------------------------------------------------------------------------


def asked(**options: Any) -> Hostdev:
    found, problems = given(options, "hostdevs[0]")
    assert not problems, problems
    return found


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("05:00.3", "0000:05:00.3"),
        ("pci_0000_05_00_3", "0000:05:00.3"),
        ({"bus": 5, "slot": "0", "function": "0x3"}, "0000:05:00.3"),
        ({"bus": "10", "slot": "a", "function": 0, "domain": None}, "0000:10:0a.0"),
    ],
)
def test_a_guest_address_in_any_notation(value: Any, address: str) -> None:
    assert str(asked(guest_address=value).guest_address) == address


def test_multifunction_stands_in_the_mapping() -> None:
    assert asked(guest_address={"bus": 5, "slot": 0, "function": 0, "multifunction": True}).multifunction is True
    assert asked(guest_address="05:00.0").multifunction is None


@pytest.mark.parametrize(("value", "number"), [("0011", 0x11), ("0x11", 0x11), (17, 17), ("ffff", 0xFFFF)])
def test_a_uid_is_hexadecimal(value: Any, number: int) -> None:
    assert asked(zpci={"uid": value}).zpci_uid == number


@pytest.mark.parametrize(
    ("options", "field", "rule"),
    [
        ({"alias": "net0"}, "alias", "starts with ua-"),
        ({"alias": "ua-a b"}, "alias", "starts with ua-"),
        ({"alias": "ua-"}, "alias", "starts with ua-"),
        ({"boot_order": 0}, "boot_order", "whole number from 1 to"),
        ({"acpi_index": 0}, "acpi_index", "whole number from 1 to 16383"),
        ({"acpi_index": 16384}, "acpi_index", "whole number from 1 to 16383"),
        ({"rom": {"file": "card.rom"}}, "rom.file", "absolute path"),
        ({"driver_model": "vfio pci"}, "driver_model", "name of a kernel driver"),
        ({"driver_model": ""}, "driver_model", "name of a kernel driver"),
        ({"zpci": {"uid": 0}}, "zpci.uid", "hexadecimal number from 0x0001 to 0xffff"),
        ({"zpci": {"uid": "0x10000"}}, "zpci.uid", "hexadecimal number from 0x0001 to 0xffff"),
        ({"zpci": {"uid": "seven"}}, "zpci.uid", "hexadecimal number from 0x0001 to 0xffff"),
        ({"zpci": {"uid": True}}, "zpci.uid", "hexadecimal number"),
        ({"zpci": {"fid": 0x100000000}}, "zpci.fid", "hexadecimal number from 0x00000000 to 0xffffffff"),
        ({"guest_address": "05:20.0"}, "guest_address", "out of range"),
        ({"guest_address": "05:00.9"}, "guest_address", "05:00.9"),
        ({"guest_address": 300.0}, "guest_address", "is no PCI address"),
        ({"guest_address": {"bus": 1}}, "guest_address", "missing slot, function"),
        ({"guest_address": {"bus": 1, "slot": 0, "function": 0, "port": 1}}, "guest_address", "has no port"),
        (
            {"guest_address": {"bus": 1, "slot": 0, "function": 0, "multifunction": "on"}},
            "guest_address.multifunction",
            "true or false",
        ),
    ],
)
def test_a_value_that_cannot_be(options: dict[str, Any], field: str, rule: str) -> None:
    _unused, problems = given(options, "hostdevs[3]")
    assert len(problems) == 1
    assert problems[0].code == "hostdev_value_invalid"
    assert problems[0].message.startswith(f"hostdevs[3]: {field.split('.')[0]}")
    assert rule in problems[0].message
    assert problems[0].details["field"] == field


def test_every_wrong_value_is_named() -> None:
    _unused, problems = given({"alias": "x", "boot_order": -1, "rom": {"file": "y"}}, "hostdevs[0]")
    assert [problem.details["field"] for problem in problems] == ["boot_order", "rom.file", "alias"]


# -- the description itself ---------------------------------------------------------------------------------


def test_the_options_come_from_the_description() -> None:
    options = hostdev_options()
    assert list(options) == [
        "kind",
        "managed",
        "assigned",
        "guest_address",
        "driver_model",
        "iommufd",
        "boot_order",
        "rom",
        "alias",
        "acpi_index",
        "teaming",
        "zpci",
        "mac",
        "vlan",
        "virtualport",
    ]
    assert options["kind"] == {"type": "str", "choices": ["hostdev", "interface"]}
    assert options["virtualport"] == {
        "type": "dict",
        "options": {
            "type": {"type": "str", "choices": ["802.1Qbh"], "default": "802.1Qbh"},
            "profileid": {"type": "str", "required": True},
        },
    }
    assert options["managed"] == {"type": "bool", "default": True}
    assert options["rom"] == {
        "type": "dict",
        "options": {"enabled": {"type": "bool"}, "bar": {"type": "bool"}, "file": {"type": "path"}},
    }
    assert options["guest_address"] == {"type": "raw"}


def test_every_field_of_the_guest_side_is_one() -> None:
    assert set(GUEST_SIDE) < {field.name for field in fields(Hostdev)}


def test_the_result_has_the_names_of_the_options() -> None:
    hostdev = asked(
        managed=False,
        assigned=True,
        guest_address={"bus": 5, "slot": 0, "function": 0, "multifunction": True},
        rom={"bar": False},
        zpci={"uid": 1, "fid": 2},
    )
    assert changed_to(replace(hostdev, source=PciAddress(0, 1, 0x10, 0)), None).as_result() == {
        "address": "0000:01:10.0",
        "kind": "hostdev",
        "managed": False,
        "assigned": True,
        "guest_address": "0000:05:00.0",
        "multifunction": True,
        "rom": {"bar": False},
        "zpci": {"uid": "0x0001", "fid": "0x00000002"},
    }
