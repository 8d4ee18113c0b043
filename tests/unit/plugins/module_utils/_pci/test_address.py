# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress

ADDRESSES = st.builds(
    PciAddress,
    domain=st.one_of(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)),
    bus=st.integers(0, 0xFF),
    slot=st.integers(0, 0x1F),
    function=st.integers(0, 7),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["domain", "bus", "slot", "function"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=6,
)


def notations(address: PciAddress) -> list[Any]:
    """Every notation of an address that is understood."""
    numbers = {name: getattr(address, name) for name in ("domain", "bus", "slot", "function")}
    bare = f"{address.domain:x}:{address.bus:x}:{address.slot:x}.{address.function:x}"
    found: list[Any] = [
        address,
        str(address),
        str(address).upper(),
        f"  {address}\n",
        bare,
        address.nodedev_name,
        {name: f"0x{number:x}" for name, number in numbers.items()},
        {name: f"{number:x}" for name, number in numbers.items()},
        address.xml_attributes,
    ]
    if address.domain == 0:
        found += [
            f"{address.bus:02x}:{address.slot:02x}.{address.function}",
            {name: f"{number:x}" for name, number in numbers.items() if name != "domain"},
            {**address.xml_attributes, "domain": None},
        ]
    return found


def parsed_or_error(value: Any) -> PciAddress | PassthroughError:
    """What parsing gives; any other exception goes through."""
    try:
        return PciAddress.parse(value)
    except PassthroughError as error:
        return error


@given(ADDRESSES)
def test_every_notation_of_an_address_is_that_address(address: PciAddress) -> None:
    for notation in notations(address):
        assert PciAddress.parse(notation) == address, notation


@given(ANYTHING)
def test_anything_else_is_refused_with_a_passthrough_error(value: Any) -> None:
    found = parsed_or_error(value)
    if isinstance(found, PciAddress):
        assert PciAddress.parse(str(found)) == found
    else:
        assert found.code in ("address_invalid", "address_out_of_range")
        assert "is no PCI address" in str(found)
        assert "Write it" in str(found)


def normal(text: str) -> str:
    """An address as text without what notations differ in: case, space around it, leading zeros."""
    return re.sub(r"(?<![0-9a-f])0+(?=[0-9a-f])", "", text.strip().lower())


@given(
    ADDRESSES.flatmap(lambda address: st.sampled_from([one for one in notations(address) if isinstance(one, str)])),
    st.integers(0, 24),
    st.sampled_from(["", "0", "7", "8", "f", "g", ":", ".", "_", " ", "x", "-", "\n", "\N{SUPERSCRIPT TWO}"]),
    st.booleans(),
)
def test_an_address_with_a_slip_is_another_address_or_refused(text: str, at: int, slip: str, instead: bool) -> None:
    value = text[:at] + slip + text[at + instead :]
    found = parsed_or_error(value)
    if isinstance(found, PciAddress):
        assert normal(value) in {normal(one) for one in notations(found) if isinstance(one, str)}
    else:
        assert repr(value) in str(found)


@given(ADDRESSES)
def test_the_names_of_sysfs_entries(address: PciAddress) -> None:
    assert PciAddress.from_sysfs(str(address)) == address
    assert address.order == (address.domain, address.bus, address.slot, address.function)


@given(
    st.text()
    | st.from_regex(r"[0-9a-f]{3,9}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9]", fullmatch=True)
    | ADDRESSES.map(lambda address: str(address).upper())
)
def test_any_other_name_of_a_sysfs_entry_is_no_address(name: str) -> None:
    found = PciAddress.from_sysfs(name)
    assert found is None or str(found) == name


@given(st.from_regex(r"[0-9a-f]{0,6}:?[0-9a-f]{0,3}:[0-9a-f]{0,3}[.:][0-9a-f]{0,2}", fullmatch=True))
def test_what_looks_like_an_address_is_one_or_is_refused(text: str) -> None:
    found = parsed_or_error(text)
    if isinstance(found, PciAddress):
        assert re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]", str(found))


@given(ADDRESSES, ADDRESSES)
def test_addresses_sort_in_bus_order(one: PciAddress, other: PciAddress) -> None:
    def key(address: PciAddress) -> tuple[int, int, int, int]:
        return address.domain, address.bus, address.slot, address.function

    assert (one < other) == (key(one) < key(other))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("01:20.0", "address_out_of_range"),
        ("0000:01:10.9", "address_out_of_range"),
        ("0000:01:10.8", "address_out_of_range"),
        ("pci_0000_00_20_0", "address_out_of_range"),
        ({"bus": "100", "slot": 0, "function": 0}, "address_out_of_range"),
        ({"bus": 10, "slot": 0, "function": 0}, "address_invalid"),
        ({"bus": -1, "slot": 0, "function": 0}, "address_out_of_range"),
        ("0000:01:10", "address_invalid"),
        ("01:10", "address_invalid"),
        ("0000.01.10.0", "address_invalid"),
        ("0x0000:01:10.0", "address_invalid"),
        ("0000:01:10.0 ; reboot", "address_invalid"),
        ("0000:01:10.0\n0000:01:10.1", "address_invalid"),
        ("pci_8086_3a6c", "address_invalid"),
        ("", "address_invalid"),
        (None, "address_invalid"),
        (70.0, "address_invalid"),
        ({}, "address_invalid"),
        ({"bus": "01", "slot": "10"}, "address_invalid"),
        ({"bus": "01", "slot": "10", "function": "0", "port": 1}, "address_invalid"),
        ({"bus": "zz", "slot": "10", "function": "0"}, "address_invalid"),
        ({"bus": True, "slot": "10", "function": "0"}, "address_invalid"),
        ({"domain": False, "bus": 1, "slot": "10", "function": "0"}, "address_invalid"),
        ({"domain": "", "bus": 1, "slot": "10", "function": "0"}, "address_invalid"),
    ],
)
def test_bad_addresses(value: Any, code: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        PciAddress.parse(value)
    assert caught.value.code == code


def test_the_error_names_the_value_the_field_and_the_notations() -> None:
    with pytest.raises(PassthroughError) as caught:
        PciAddress.parse("01:20.0")
    message = str(caught.value)
    assert "'01:20.0'" in message
    assert "slot 0x20" in message
    assert "0x1f" in message
    assert "pci_0000_01_10_0" in message


def test_the_names_of_an_address() -> None:
    address = PciAddress.parse("0:1:1A.7")
    assert str(address) == "0000:01:1a.7"
    assert address.nodedev_name == "pci_0000_01_1a_7"
    assert address.xml_attributes == {"domain": "0x0000", "bus": "0x01", "slot": "0x1a", "function": "0x7"}
    assert address.with_function(3) == PciAddress.parse("01:1a.3")


def test_a_domain_beyond_16_bits() -> None:
    assert str(PciAddress.parse("10000:e1:00.0")) == "10000:e1:00.0"
