# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Callable, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.selector import (
    ALL,
    SELECTOR_KEYS,
    Selector,
    merged,
    parse_all,
    select_all,
)
from ansible_collections.kvm.passthrough.tests.unit.support.counting import CountingHost
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

Result = TypeVar("Result")

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*SELECTOR_KEYS, "bus", "slot", "function"]) | st.text(max_size=5), inner)
    ),
    max_leaves=10,
)


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    """A host with an 82576 (two ports, VFs on the first), a multifunction slot, virtio and NVMe."""
    tree = SysfsTree(tmp_path)
    tree.add_device("00:00.0", ids="8086:29c0", pci_class=0x060000)
    tree.add_device("00:01.0", ids="8086:3420", bridge=True, driver="pcieport")
    tree.add_device(
        "01:00.0",
        ids="8086:10c9",
        subsystem="8086:a02c",
        pci_class=0x020000,
        driver="igb",
        group=10,
        parent="00:01.0",
        totalvfs=7,
        interfaces={"enp1s0f0": "52:54:00:AA:00:00"},
    )
    tree.add_device(
        "01:00.1",
        ids="8086:10c9",
        subsystem="8086:a02c",
        pci_class=0x020000,
        driver="igb",
        group=11,
        parent="00:01.0",
        totalvfs=7,
        interfaces={"enp1s0f1": "52:54:00:AA:00:01"},
    )
    tree.add_vfs("01:00.0", 4, driver="igbvf", first_group=20)
    for function in range(4):
        tree.add_device(f"00:05.{function}", ids="1234:11e8", group=5)
    tree.add_device(
        "00:06.0",
        ids="1af4:1041",
        pci_class=0x020000,
        driver="virtio-pci",
        virtio=0,
        interfaces={"ens6": "02:00:00:00:00:01"},
    )
    tree.add_device("00:07.0", ids="1b36:0010", pci_class=0x010802, driver="nvme", nvme="nvme0")
    tree.add_device("00a1:00:00.0", ids="15b3:1014", pci_class=0x020000).set_zpci("00a1:00:00.0", fid=8, uid=0xA1)
    for address in [path.name for path in tree.path("/sys/bus/pci/devices").iterdir()]:
        is_port = address.startswith("0000:01:00.")
        tree.set_config(address, serial="00-1b-21-ff-ff-aa-bb-cc" if is_port else None)
    tree.add_slot("7", "0000:01:00")
    tree.write(
        "/usr/share/misc/pci.ids",
        "# comment\n8086  Intel Corporation\n\t10ca  82576 Virtual Function\n\t\t8086 10ca  A subsystem\n8087  Other\n",
    )
    return tree


def select(tree: SysfsTree, value: Any) -> list[str]:
    return [str(device.address) for device in Selector.parse(value).select(Bus(tree.host()))]


def refusal(tree: SysfsTree, value: Any) -> PassthroughError:
    with pytest.raises(PassthroughError) as caught:
        Selector.parse(value, "devices[0]").select(Bus(tree.host()))
    return caught.value


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ({"address": "0000:00:05.2"}, ["0000:00:05.2"]),
        ({"address": "00:05.2"}, ["0000:00:05.2"]),
        ({"address": "pci_0000_00_05_2"}, ["0000:00:05.2"]),
        ({"address": {"bus": 0, "slot": "0x05", "function": 2}}, ["0000:00:05.2"]),
        ("00:05.2", ["0000:00:05.2"]),
        ("pci_0000_00_05_2", ["0000:00:05.2"]),
        ("1b36:0010", ["0000:00:07.0"]),
        ("enp1s0f1", ["0000:01:00.1"]),
        ("ens6", ["0000:00:06.0"]),
        ({"interface": "enp1s0f0"}, ["0000:01:00.0"]),
        ({"mac": "52-54-00-aa-00-01"}, ["0000:01:00.1"]),
        ({"mac": "02:00:00:00:00:01"}, ["0000:00:06.0"]),
        ({"vendor_id": "0x1b36"}, ["0000:00:07.0"]),
        ({"vendor_id": "1B36", "device_id": "10"}, ["0000:00:07.0"]),
        ({"pci_class": "nvme"}, ["0000:00:07.0"]),
        ({"pci_class": "0108"}, ["0000:00:07.0"]),
        ({"pci_class": "0x010802"}, ["0000:00:07.0"]),
        ({"pci_class": "01", "vendor_id": "1b36"}, ["0000:00:07.0"]),
        ({"subsystem_vendor_id": "8086", "subsystem_device_id": "a02c", "index": 1}, ["0000:01:00.1"]),
        ({"subsystem_vendor_id": "8086", "subsystem_device_id": "a02c", "index": "0"}, ["0000:01:00.0"]),
        ({"vendor_id": "8086", "device_id": "10c9", "count": 2}, ["0000:01:00.0", "0000:01:00.1"]),
        ({"vendor_id": "8086", "device_id": "10c9", "count": "2"}, ["0000:01:00.0", "0000:01:00.1"]),
        ({"pci_class": "bridge", "count": "all"}, ["0000:00:00.0", "0000:00:01.0"]),
        ({"pf": "01:00.0", "vf": 0}, ["0000:01:10.0"]),
        ({"pf": "enp1s0f0", "vf": "3"}, ["0000:01:10.6"]),
        ({"pf": {"interface": "enp1s0f0"}, "vf": [2, "1"]}, ["0000:01:10.4", "0000:01:10.2"]),
        (
            {"pf": {"vendor_id": "8086", "device_id": "10c9", "index": 0}, "vf": ALL},
            [f"0000:01:10.{n}" for n in (0, 2, 4, 6)],
        ),
        ({"pf": "01:00.0", "index": 3}, ["0000:01:10.6"]),
        ({"pf": "01:00.0", "vendor_id": "8086", "count": 4}, [f"0000:01:10.{n}" for n in (0, 2, 4, 6)]),
        ({"address": "01:00.0", "expect": {"vendor_id": "8086", "device_id": "10c9"}}, ["0000:01:00.0"]),
        ({"address": "01:00.0", "name": "uplink", "count": None, "mac": None}, ["0000:01:00.0"]),
        ({"slot": "7", "index": 0}, ["0000:01:00.0"]),
        ({"slot": " 7 ", "interface": "enp1s0f1"}, ["0000:01:00.1"]),
        ({"serial": "00-1b-21-ff-ff-aa-bb-cc", "count": 2}, ["0000:01:00.0", "0000:01:00.1"]),
        ({"serial": "001B21FFFFAABBCC", "index": 1}, ["0000:01:00.1"]),
        ({"serial": "00:1b:21:ff:ff:aa:bb:cc", "interface": "enp1s0f0"}, ["0000:01:00.0"]),
        ({"pf": {"serial": "00:1b:21:ff:ff:aa:bb:cc", "index": 0}, "vf": 1}, ["0000:01:10.2"]),
        ({"address": "01:00.0", "expect": {"serial": "00:1B:21:FF:FF:AA:BB:CC"}}, ["0000:01:00.0"]),
        ({"uid": "a1"}, ["00a1:00:00.0"]),
        ({"fid": "0x00000008"}, ["00a1:00:00.0"]),
        ({"uid": "0x00A1", "fid": "8", "expect": {"uid": "a1", "fid": "8"}}, ["00a1:00:00.0"]),
    ],
)
def test_what_is_selected(tree: SysfsTree, value: Any, addresses: list[str]) -> None:
    assert select(tree, value) == addresses


@pytest.mark.parametrize(
    ("value", "code", "fragments"),
    [
        ({"vendor_id": "10de"}, "no_match", ["no PCI device matches vendor_id 10de"]),
        ("10de:2204", "no_match", ["vendor_id 10de, device_id 2204"]),
        ("00:1f.0", "no_match", ["address 0000:00:1f.0", "Addresses move"]),
        ("00:05.7", "no_match", ["address 0000:00:05.7", "0000:00:05.3 [1234:11e8]"]),
        ("enp9s0", "no_match", ["was read as the name of a network interface", "interface enp1s0f0", "vfio-pci"]),
        ({"interface": "enp9s0"}, "no_match", ["interface enp9s0", "enp1s0f1"]),
        (
            {"address": "01:00.0", "vendor_id": "10de"},
            "no_match",
            ["0000:01:00.0 [8086:10c9] Ethernet controller, driver igb"],
        ),
        (
            {"vendor_id": "8086", "device_id": "10ca"},
            "too_many_matches",
            [
                "4 PCI devices match",
                "82576 Virtual Function",
                "driver igbvf",
                "index (0 to 3)",
                "count: 4",
                "count: all",
            ],
        ),
        ({"pf": "01:00.0"}, "too_many_matches", ["4 PCI devices match a VF of the PF with address 0000:01:00.0"]),
        ({"vendor_id": "8086", "device_id": "10ca", "count": 3}, "count_mismatch", ["exactly 3 are wanted"]),
        ({"vendor_id": "1b36", "count": 2}, "count_mismatch", ["1 PCI device matches", "exactly 2 are wanted"]),
        ({"vendor_id": "1b36", "index": 1}, "index_out_of_range", ["only 1 matches"]),
        (
            {"pf": "01:00.0", "vf": 4},
            "vf_not_found",
            ["no VF 4", "4 of 7 possible VFs", "index 0 to 3", "sriov_numvfs"],
        ),
        ({"pf": "01:00.1", "vf": [0, 1]}, "vf_not_found", ["no VF 0, 1", "none of its 7 possible VFs"]),
        ({"pf": "01:00.1", "vf": "all"}, "no_match", ["The PF has no VFs enabled"]),
        ({"pf": "00:07.0", "vf": 0}, "not_a_pf", ["0000:00:07.0 [1b36:0010]", "SR-IOV"]),
        ({"pf": "8086:10c9", "vf": 0}, "too_many_matches", ["devices[0].pf"]),
        ({"slot": "8"}, "no_match", ["no PCI device matches slot 8"]),
        ({"slot": "7"}, "too_many_matches", ["2 PCI devices match slot 7", "0000:01:00.0 [", "0000:01:00.1 ["]),
        (
            {"serial": "001b21ffffaabbcc"},
            "too_many_matches",
            ["2 PCI devices match serial 00-1b-21-ff-ff-aa-bb-cc", "0000:01:00.1 [8086:10c9]", "index (0 to 1)"],
        ),
        (
            {"serial": "00-1b-21-ff-ff-aa-bb-cd", "vendor_id": "8086"},
            "no_match",
            ["no PCI device matches vendor_id 8086, serial 00-1b-21-ff-ff-aa-bb-cd", "0000:01:00.0 [8086:10c9]"],
        ),
        ({"uid": "b2"}, "no_match", ["no PCI device matches uid 00b2"]),
        ({"fid": "9"}, "no_match", ["no PCI device matches fid 00000009"]),
        (
            {"address": "01:00.0", "expect": {"serial": "00-1b-21-ff-ff-aa-bb-cd", "fid": "8"}},
            "identity_mismatch",
            [
                "serial: expected 00-1b-21-ff-ff-aa-bb-cd, found 00-1b-21-ff-ff-aa-bb-cc",
                "fid: expected 00000008, found none",
            ],
        ),
        (
            {"address": "00:06.0", "expect": {"serial": "00-1b-21-ff-ff-aa-bb-cc"}},
            "identity_mismatch",
            ["serial: expected 00-1b-21-ff-ff-aa-bb-cc, found none"],
        ),
        (
            {
                "address": "01:00.0",
                "name": "gpu",
                "expect": {"vendor_id": "10de", "device_id": "10c9", "subsystem_vendor_id": "10de"},
            },
            "identity_mismatch",
            [
                "devices[0] (gpu)",
                "0000:01:00.0",
                "vendor_id: expected 10de, found 8086",
                "subsystem_vendor_id: expected 10de, found 8086",
            ],
        ),
    ],
)
def test_what_is_not_selected(tree: SysfsTree, value: Any, code: str, fragments: list[str]) -> None:
    error = refusal(tree, value)
    assert error.code == code
    assert "devices[0]" in str(error)
    for fragment in fragments:
        assert fragment in str(error)


def test_an_identity_that_matches_is_not_listed_among_the_differences(tree: SysfsTree) -> None:
    error = refusal(tree, {"address": "01:00.0", "expect": {"vendor_id": "10de", "device_id": "10c9"}})
    assert error.problems[0].details["differences"] == [{"field": "vendor_id", "expected": "10de", "found": "8086"}]
    assert error.problems[0].details["device"] == "0000:01:00.0"


@pytest.mark.parametrize(
    "value",
    [
        {"serial": "00-1b-21-ff-ff-aa-bb-cc"},
        {"serial": "00-1b-21-ff-ff-aa-bb-cc", "count": "all"},
        {"serial": "00-1b-21-ff-ff-aa-bb-cc", "index": 0},
        {"address": "01:00.0", "serial": "00-1b-21-ff-ff-aa-bb-cc"},
        {"address": "01:00.0", "expect": {"serial": "00-1b-21-ff-ff-aa-bb-cc"}},
        {"pf": {"serial": "00-1b-21-ff-ff-aa-bb-cc", "index": 0}, "vf": 0},
    ],
)
def test_a_serial_number_that_cannot_be_read_is_no_mismatch(tree: SysfsTree, value: Any) -> None:
    for port in ("01:00.0", "01:00.1"):
        tree.set_config(port, size=64)
    error = refusal(tree, value)
    assert error.code == "serial_unreadable"
    assert "root" in str(error)
    assert "0000:01:00.0" in str(error)
    assert "0000:00:06.0" not in str(error)  # that one has none, for sure


def test_a_silent_device_stands_in_the_way_of_what_depends_on_it_only(tree: SysfsTree) -> None:
    tree.set_config("00:07.0", size=0)
    serial = "00-1b-21-ff-ff-aa-bb-cc"
    assert select(tree, {"serial": serial, "count": 2}) == ["0000:01:00.0", "0000:01:00.1"]
    assert select(tree, {"serial": serial, "index": 1}) == ["0000:01:00.1"]
    assert select(tree, {"serial": serial, "pci_class": "network", "count": "all"}) == ["0000:01:00.0", "0000:01:00.1"]
    assert refusal(tree, {"serial": serial, "count": "all"}).code == "serial_unreadable"
    assert refusal(tree, {"serial": "00-1b-21-ff-ff-aa-bb-cd"}).code == "serial_unreadable"
    assert refusal(tree, {"serial": "00-1b-21-ff-ff-aa-bb-cd", "pci_class": "network"}).code == "no_match"


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"address": "01:00.0"}, {"0000:01:00.0"}),
        ({"address": "01:00.0", "serial": "001b21ffffaabbcc"}, {"0000:01:00.0", "0000:01:00.0/config"}),
        ({"vendor_id": "1b36"}, {"*/modalias"}),
        (
            {"subsystem_device_id": "a02c", "mac": "52:54:00:aa:00:00", "serial": "001b21ffffaabbcc"},
            {
                "*/modalias",
                "0000:01:00.0",
                "0000:01:00.0/net",
                "0000:01:00.1",
                "0000:01:00.1/net",
                "0000:01:00.0/config",
            },
        ),
    ],
)
def test_the_cheapest_criterion_comes_first_and_nothing_else_is_read(
    tree: SysfsTree, value: Any, names: set[str]
) -> None:
    host = CountingHost(tree.root)
    assert len(Selector.parse(value).select(Bus(host))) == 1
    expected = names - {"*/modalias"}
    if expected != names:
        expected |= {f"{address}/modalias" for address in Bus(tree.host()).addresses}
    assert host.below("/sys/bus/pci/devices") == dict.fromkeys(expected, 1)


def test_candidates_are_structured_too(tree: SysfsTree) -> None:
    candidates = refusal(tree, "8086:10ca").problems[0].details["candidates"]
    assert [candidate["address"] for candidate in candidates] == [f"0000:01:10.{n}" for n in (0, 2, 4, 6)]
    assert candidates[0] == {
        "address": "0000:01:10.0",
        "ids": "8086:10ca",
        "class": "Ethernet controller",
        "driver": "igbvf",
        "device_name": "82576 Virtual Function",
        "interfaces": [],
    }


def test_a_long_list_of_candidates_is_cut(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    for slot in range(20):
        tree.add_device(f"00:{slot:02x}.0")
    message = str(refusal(tree, "1234:11e8"))
    assert "20 PCI devices match" in message
    assert "and 4 more" in message


def test_a_host_without_pci_devices(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    assert refusal(tree, "1234:11e8").code == "no_match"
    assert refusal(tree, "00:01.0").code == "no_match"


def test_a_device_that_vanishes_is_no_match(tree: SysfsTree) -> None:
    tree.vanish("00:05.0")
    assert select(tree, {"vendor_id": "1234", "count": "all"}) == ["0000:00:05.1", "0000:00:05.2", "0000:00:05.3"]
    assert refusal(tree, {"address": "00:05.0", "vendor_id": "1234"}).code == "no_match"


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
        Selector.parse(value, "devices[0]")
    assert len(caught.value.problems) == 1, str(caught.value)
    assert "devices[0]" in str(caught.value)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_all_problems_of_all_selectors_are_reported_together() -> None:
    with pytest.raises(PassthroughError) as caught:
        parse_all(
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
        parse_all([{"name": "nic", "address": "01:00.0"}, {"name": "nic", "address": "01:00.1"}])
    assert caught.value.code == "duplicate_name"
    assert "devices[1] (nic)" in str(caught.value)
    assert "devices[0]" in str(caught.value)


@pytest.mark.parametrize("values", [5, None, True, 1.5])
def test_what_is_no_list_of_selectors(values: Any) -> None:
    with pytest.raises(PassthroughError) as caught:
        parse_all(values)
    assert caught.value.code == "selector_invalid"


def test_a_single_selector_is_a_list_of_one() -> None:
    assert [selector.address for selector in parse_all("01:00.0")] == [PciAddress.parse("01:00.0")]
    assert [selector.where for selector in parse_all({"interface": "eth0"})] == ["devices[0]"]


def test_select_all_reports_every_problem(tree: SysfsTree) -> None:
    selectors = parse_all(["8086:10ca", "00:05.0", "dead:beef"])
    with pytest.raises(PassthroughError) as caught:
        select_all(selectors, Bus(tree.host()))
    assert [problem.code for problem in caught.value.problems] == ["too_many_matches", "no_match"]


def test_a_device_selected_twice_is_merged_or_refused(tree: SysfsTree) -> None:
    selectors = parse_all([{"vendor_id": "1234", "count": "all"}, {"name": "second", "address": "00:05.1"}])
    selection = select_all(selectors, Bus(tree.host()))
    assert [len(devices) for _unused, devices in selection] == [4, 1]
    assert [str(device.address) for device in merged(selection)] == [f"0000:00:05.{n}" for n in range(4)]
    with pytest.raises(PassthroughError) as caught:
        select_all(selectors, Bus(tree.host()), distinct=True)
    assert caught.value.code == "selected_twice"
    assert "devices[1] (second): the device 0000:00:05.1 is already meant by devices[0]" in str(caught.value)


def test_defaults_apply_to_selectors_that_name_nothing_themselves(tree: SysfsTree) -> None:
    bus = Bus(tree.host())
    assert len(Selector.parse("8086:10ca").with_defaults(count=ALL).select(bus)) == 4
    assert str(Selector.parse("8086:10ca").with_defaults(index=2).select(bus)[0].address) == "0000:01:10.4"
    named = Selector.parse({"vendor_id": "8086", "device_id": "10ca", "index": 1}).with_defaults(count=ALL)
    assert [str(device.address) for device in named.select(bus)] == ["0000:01:10.2"]
    assert len(Selector.parse({"pf": "01:00.0", "vf": [0, 1]}).with_defaults(count=3).select(bus)) == 2


def result_or_error(action: Callable[[], Result]) -> Result | PassthroughError:
    """What an action gives; any other exception goes through."""
    try:
        return action()
    except PassthroughError as error:
        return error


@given(ANYTHING)
def test_parsing_anything_gives_a_selector_or_a_passthrough_error(value: Any) -> None:
    found = result_or_error(lambda: Selector.parse(value))
    if isinstance(found, PassthroughError):
        assert all(problem.details["selector"].startswith("selector") for problem in found.problems)
    else:
        assert found.describe()


@given(st.lists(ANYTHING, max_size=4))
def test_parsing_any_list_gives_selectors_or_a_passthrough_error(values: list[Any]) -> None:
    found = result_or_error(lambda: parse_all(values))
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
    assert Selector.parse(spelled).ids == ids
    assert Selector.parse({"address": "01:00.0", "expect": spelled}).expect == ids


@given(serial=st.binary(min_size=8, max_size=8), separator=st.sampled_from(["-", ":", ""]), upper=st.booleans())
def test_a_serial_number_means_the_same_however_it_is_spelled(serial: bytes, separator: str, upper: bool) -> None:
    text = serial.hex(separator) if separator else serial.hex()
    spelled = f" {text.upper() if upper else text}\n"
    assert Selector.parse({"serial": spelled}).serial == serial.hex("-")
    assert Selector.parse({"address": "01:00.0", "expect": {"serial": spelled}}).expect == {"serial": serial.hex("-")}


@given(
    st.one_of(
        st.text(),
        st.integers(),
        st.from_regex(r"([0-9a-fA-F]{1,3}[-: ]?){6,9}", fullmatch=True),
        st.binary(min_size=8, max_size=8).map(lambda data: data.hex("-")),
    )
)
def test_anything_else_is_no_serial_number_and_the_reason_is_told(value: Any) -> None:
    found = result_or_error(lambda: Selector.parse({"serial": value}, "devices[0]"))
    if isinstance(found, PassthroughError):
        assert len(found.problems) == 1
        assert found.problems[0].details["field"] == "serial"
        assert "is no PCI Express device serial number" in str(found)
    else:
        assert re.fullmatch("([0-9a-f]{2}-){7}[0-9a-f]{2}", found.serial or "")
        assert (found.serial or "").replace("-", "") == re.sub("[-:]", "", str(value).strip().lower())


@given(fid=st.integers(0, 0xFFFFFFFF), prefix=st.sampled_from(["", "0x"]), width=st.integers(1, 8))
def test_a_fid_has_up_to_eight_digits(fid: int, prefix: str, width: int) -> None:
    assert Selector.parse({"fid": f"{prefix}{fid:0{width}x}"}).ids == {"fid": fid}
