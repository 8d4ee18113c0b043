# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.grammar import parse_selector, parse_selectors
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.selector import ALL, merged, select_all
from ansible_collections.kvm.passthrough.tests.unit.support.counting import CountingHost
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


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
    return [str(device.address) for device in parse_selector(value).select(Bus(tree.host()))]


def refusal(tree: SysfsTree, value: Any) -> PassthroughError:
    with pytest.raises(PassthroughError) as caught:
        parse_selector(value, "devices[0]").select(Bus(tree.host()))
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
            ["no VF 4", "4 of 7 possible VFs", "index 0 to 3", "kvm.passthrough.sriov_vfs"],
        ),
        ({"pf": "01:00.1", "vf": [0, 1]}, "vf_not_found", ["no VF 0, 1", "none of its 7 possible VFs"]),
        ({"pf": "01:00.1", "vf": "all"}, "no_match", ["The PF has no VFs enabled", "kvm.passthrough.sriov_vfs"]),
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
    assert len(parse_selector(value).select(Bus(host))) == 1
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


def test_select_all_reports_every_problem(tree: SysfsTree) -> None:
    selectors = parse_selectors(["8086:10ca", "00:05.0", "dead:beef"])
    with pytest.raises(PassthroughError) as caught:
        select_all(selectors, Bus(tree.host()))
    assert [problem.code for problem in caught.value.problems] == ["too_many_matches", "no_match"]


def test_a_device_selected_twice_is_merged_or_refused(tree: SysfsTree) -> None:
    selectors = parse_selectors([{"vendor_id": "1234", "count": "all"}, {"name": "second", "address": "00:05.1"}])
    selection = select_all(selectors, Bus(tree.host()))
    assert [len(devices) for _unused, devices in selection] == [4, 1]
    assert [str(device.address) for device in merged(selection)] == [f"0000:00:05.{n}" for n in range(4)]
    with pytest.raises(PassthroughError) as caught:
        select_all(selectors, Bus(tree.host()), distinct=True)
    assert caught.value.code == "selected_twice"
    assert "devices[1] (second): the device 0000:00:05.1 is already meant by devices[0]" in str(caught.value)


def test_defaults_apply_to_selectors_that_name_nothing_themselves(tree: SysfsTree) -> None:
    bus = Bus(tree.host())
    assert len(parse_selector("8086:10ca").with_defaults(count=ALL).select(bus)) == 4
    assert str(parse_selector("8086:10ca").with_defaults(index=2).select(bus)[0].address) == "0000:01:10.4"
    named = parse_selector({"vendor_id": "8086", "device_id": "10ca", "index": 1}).with_defaults(count=ALL)
    assert [str(device.address) for device in named.select(bus)] == ["0000:01:10.2"]
    assert len(parse_selector({"pf": "01:00.0", "vf": [0, 1]}).with_defaults(count=3).select(bus)) == 2
