# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any, Callable, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.grammar import (
    SELECTOR_KEYS,
    parse_selector,
    parse_selectors,
)

Result = TypeVar("Result")

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SELECTOR_KEYS, "bus", "slot", "function"]) | st.text(max_size=5), inner)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("value", "fragments"),
    [
        ({}, ["nothing says which device is meant"]),
        ({"name": "gpu"}, ["devices[0] (gpu): nothing says which device"]),
        ({"count": "all"}, ["nothing says which device is meant"]),
        ({"address": None}, ["nothing says which device is meant"]),
        ({"adress": "01:00.0"}, ["a selector has no 'adress'", "It may have address"]),
        ({"address": "01:20.0"}, ["address: '01:20.0'", "slot 0x20"]),
        ({"address": 70.0}, ["70.0 is no PCI address", "put it in quotes"]),
        ({"vendor_id": 8086}, ["vendor_id: 8086 is a number", "'8086' or '1f96'", "quotes"]),
        ({"vendor_id": 0x8086}, ["32902 is a number", "'8086'", "quotes"]),
        ({"device_id": True}, ["True is no id"]),
        ({"device_id": "10caf"}, ["'10caf' is no id"]),
        ({"device_id": ""}, ["'' is no id"]),
        ({"device_id": ["10ca"]}, ["['10ca'] is no id"]),
        ({"device_id": 8}, ["8 is a number", "'0008' or '0010'", "quotes"]),
        ({"uid": "10000"}, ["'10000' is no id", "one to four hexadecimal digits"]),
        ({"uid": "0x"}, ["'0x' is no id"]),
        ({"uid": 161}, ["161 is a number", "'0161' or '00a1'", "quotes"]),
        ({"uid": 0x10000}, ["65536 is no id"]),
        ({"fid": "100000000"}, ["'100000000' is no id", "one to eight hexadecimal digits"]),
        ({"fid": 16}, ["16 is a number", "'00000016' or '00000010' or '00000020'", "quotes"]),
        ({"slot": 7}, ["7 is a number", "quotes"]),
        ({"slot": " "}, ["no name of a physical slot"]),
        ({"slot": "a/b"}, ["no name of a physical slot"]),
        ({"slot": ["7"]}, ["no name of a physical slot"]),
        ({"serial": "00-1b-21-ff-ff-aa-bb"}, ["no PCI Express device serial number", "eight bytes"]),
        ({"serial": "00-1b:21-ff-ff-aa-bb-cc"}, ["no PCI Express device serial number", "or none"]),
        ({"serial": 1122334455667788}, ["1122334455667788 is no PCI Express", "quotes"]),
        ({"serial": True}, ["True is no PCI Express"]),
        ({"address": "01:00.0", "expect": {"serial": "1"}}, ["devices[0].expect: serial: '1' is no PCI Express"]),
        ({"address": "01:00.0", "expect": {"uid": 8}}, ["devices[0].expect: uid: 8 is a number"]),
        ({"address": "01:00.0", "expect": {"slot": "7"}}, ["expect has no 'slot'", "serial"]),
        ({"pci_class": "020"}, ["'020' is no PCI class", "ethernet"]),
        ({"pci_class": "modem"}, ["'modem' is no PCI class"]),
        ({"pci_class": 200}, ["200 is a number", "quotes"]),
        ({"interface": "a/b"}, ["no name of a network interface"]),
        ({"interface": "a" * 16}, ["no name of a network interface"]),
        ({"interface": ".."}, ["no name of a network interface"]),
        ({"mac": "52:54:00:aa:00"}, ["no MAC address"]),
        ({"mac": 190443254}, ["no MAC address", "put it in quotes"]),
        ({"vf": 0}, ["vf is given without pf"]),
        ({"pf": "01:00.0", "vf": -1}, ["-1 is no VF index"]),
        ({"pf": "01:00.0", "vf": []}, ["[] is no VF index"]),
        ({"pf": "01:00.0", "vf": [0, 0]}, ["names a VF twice"]),
        ({"pf": "01:00.0", "vf": True}, ["True is no VF index"]),
        ({"pf": {"address": "01:00.0", "count": 2}, "vf": 0}, ["the selector of a PF has no 'count'"]),
        ({"pf": {"pf": "01:00.0"}, "vf": 0}, ["the selector of a PF has no 'pf'"]),
        ({"pf": {"address": "bad"}, "vf": 0}, ["devices[0].pf: address: 'bad'"]),
        ({"pf": []}, ["devices[0].pf: [] is no selector"]),
        ({"address": "01:00.0", "count": 0}, ["0 is neither a number of devices"]),
        ({"address": "01:00.0", "count": "many"}, ["'many' is neither"]),
        ({"address": "01:00.0", "index": -1}, ["-1 is no index"]),
        ({"address": "01:00.0", "index": 0, "count": 1}, ["exclude each other"]),
        ({"address": "01:00.0", "expect": {}}, ["expect: {} names nothing"]),
        ({"address": "01:00.0", "expect": "8086"}, ["expect: '8086' names nothing"]),
        ({"address": "01:00.0", "expect": {"vendor": "8086"}}, ["expect has no 'vendor'"]),
        ({"address": "01:00.0", "expect": {"vendor_id": 8086}}, ["devices[0].expect: vendor_id: 8086 is a number"]),
        ({"address": "01:00.0", "name": ""}, ["'' is no name"]),
        ({"address": "01:00.0", "name": 5}, ["5 is no name"]),
        ({1: 2}, ["a selector has no 1"]),
        ("", ["'' is no selector", "8086:10ca"]),
        ("01:20.0", ["'01:20.0' is no PCI address", "slot 0x20"]),
        ("0000:01:10.9", ["function 0x9"]),
        ("01:10", ["'01:10' is no selector", "0000:01:10.0"]),
        ("8086:10ca:1", ["is no selector"]),
        ("52:54:00:aa:00:01", ["is no selector"]),
        ("a name with spaces", ["is no selector"]),
        (70.0, ["70.0 is no selector", "put it in quotes"]),
        (None, ["None is no selector"]),
        (["01:00.0"], ["is no selector"]),
    ],
)
def test_what_is_no_selector(value: Any, fragments: list[str]) -> None:
    with pytest.raises(PassthroughError) as caught:
        parse_selector(value, "devices[0]")
    assert len(caught.value.problems) == 1, str(caught.value)
    assert "devices[0]" in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_all_problems_of_all_selectors_are_reported_together() -> None:
    with pytest.raises(PassthroughError) as caught:
        parse_selectors(
            [
                {"vendor_id": 8086, "device_id": "xyz", "count": 0, "driver": "igb"},
                "01:00.0",
                {"name": "nic", "mac": "1"},
                {"name": "nic", "address": "01:20.0", "expect": {"serial": "1"}},
            ]
        )
    problems = caught.value.problems
    assert [problem.details["selector"] for problem in problems] == ["devices[0]"] * 4 + [
        "devices[2]",
        "devices[3]",
        "devices[3].expect",
    ]
    assert "7 problems" in str(caught.value)


def test_a_name_can_be_given_once() -> None:
    with pytest.raises(PassthroughError) as caught:
        parse_selectors([{"name": "nic", "address": "01:00.0"}, {"name": "nic", "address": "01:00.1"}])
    assert caught.value.code == "duplicate_name"
    assert "devices[1] (nic)" in str(caught.value)
    assert "devices[0]" in str(caught.value)


@pytest.mark.parametrize("values", [5, None, True, 1.5])
def test_what_is_no_list_of_selectors(values: Any) -> None:
    with pytest.raises(PassthroughError) as caught:
        parse_selectors(values)
    assert caught.value.code == "selector_invalid"


def test_a_single_selector_is_a_list_of_one() -> None:
    assert [selector.address for selector in parse_selectors("01:00.0")] == [PciAddress.parse("01:00.0")]
    assert [selector.where for selector in parse_selectors({"interface": "eth0"})] == ["devices[0]"]


def result_or_error(action: Callable[[], Result]) -> Result | PassthroughError:
    """What an action gives; any other exception goes through."""
    try:
        return action()
    except PassthroughError as error:
        return error


@given(ANYTHING)
def test_parsing_anything_gives_a_selector_or_a_passthrough_error(value: Any) -> None:
    found = result_or_error(lambda: parse_selector(value))
    if isinstance(found, PassthroughError):
        assert all(problem.details["selector"].startswith("selector") for problem in found.problems)
    else:
        assert found.describe()


@given(st.lists(ANYTHING, max_size=4))
def test_parsing_any_list_gives_selectors_or_a_passthrough_error(values: list[Any]) -> None:
    found = result_or_error(lambda: parse_selectors(values))
    if not isinstance(found, PassthroughError):
        assert len(found) == len(values)


@given(
    ids=st.dictionaries(
        st.sampled_from(["vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id", "uid", "fid"]),
        st.integers(0, 0xFFFF),
        min_size=1,
    ),
    prefix=st.sampled_from(["", "0x"]),
    upper=st.booleans(),
    width=st.integers(1, 4),
)
def test_ids_mean_the_same_however_they_are_spelled(ids: dict[str, int], prefix: str, upper: bool, width: int) -> None:
    spelled = {name: prefix + format(number, f"0{width}{'X' if upper else 'x'}") for name, number in ids.items()}
    assert parse_selector(spelled).ids == ids
    assert parse_selector({"address": "01:00.0", "expect": spelled}).expect == ids


@given(serial=st.binary(min_size=8, max_size=8), separator=st.sampled_from(["-", ":", ""]), upper=st.booleans())
def test_a_serial_number_means_the_same_however_it_is_spelled(serial: bytes, separator: str, upper: bool) -> None:
    text = serial.hex(separator) if separator else serial.hex()
    spelled = f" {text.upper() if upper else text}\n"
    assert parse_selector({"serial": spelled}).serial == serial.hex("-")
    assert parse_selector({"address": "01:00.0", "expect": {"serial": spelled}}).expect == {"serial": serial.hex("-")}


@given(
    st.one_of(
        st.text(),
        st.integers(),
        st.from_regex(r"([0-9a-fA-F]{1,3}[-: ]?){6,9}", fullmatch=True),
        st.binary(min_size=8, max_size=8).map(lambda data: data.hex("-")),
    )
)
def test_anything_else_is_no_serial_number_and_the_reason_is_told(value: Any) -> None:
    found = result_or_error(lambda: parse_selector({"serial": value}, "devices[0]"))
    if isinstance(found, PassthroughError):
        assert len(found.problems) == 1
        assert found.problems[0].details["field"] == "serial"
        assert "is no PCI Express device serial number" in str(found)
    else:
        assert re.fullmatch("([0-9a-f]{2}-){7}[0-9a-f]{2}", found.serial or "")
        assert (found.serial or "").replace("-", "") == re.sub("[-:]", "", str(value).strip().lower())


@given(fid=st.integers(0, 0xFFFFFFFF), prefix=st.sampled_from(["", "0x"]), width=st.integers(1, 8))
def test_a_fid_has_up_to_eight_digits(fid: int, prefix: str, width: int) -> None:
    assert parse_selector({"fid": f"{prefix}{fid:0{width}x}"}).ids == {"fid": fid}
