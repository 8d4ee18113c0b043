# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.tree import (
    Node,
    as_result,
    bus_tree,
    draw,
    functions_in,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    tree = SysfsTree(tmp_path)
    tree.add_device("00:00.0")
    tree.add_device("00:1c.0", bridge=True)
    tree.add_device("01:00.0", parent="00:1c.0", totalvfs=7)
    tree.add_vfs("01:00.0", 2)
    tree.add_device("00:1d.0", bridge=True)
    tree.add_device("02:00.0", parent="00:1d.0", bridge=True)
    return tree.add_device("03:00.0", parent="02:00.0")


def lines(tree: SysfsTree, *addresses: str) -> list[str]:
    host = tree.host()
    asked = [PciAddress.parse(address) for address in addresses] or Bus(host).addresses
    return draw(bus_tree(host, asked), str)


def test_the_whole_bus(tree: SysfsTree) -> None:
    assert lines(tree) == [
        "pci0000:00",
        "  +- 0000:00:00.0",
        "  +- 0000:00:1c.0",
        "  |   +- 0000:01:00.0",
        "  |   +- 0000:01:10.0",
        "  |   +- 0000:01:10.2",
        "  +- 0000:00:1d.0",
        "      +- 0000:02:00.0",
        "          +- 0000:03:00.0",
    ]


def test_chosen_devices_with_the_way_to_them(tree: SysfsTree) -> None:
    assert lines(tree, "03:00.0", "01:10.2", "00:1d.0") == [
        "pci0000:00",
        "  +- (0000:00:1c.0)",
        "  |   +- 0000:01:10.2",
        "  +- 0000:00:1d.0",
        "      +- (0000:02:00.0)",
        "          +- 0000:03:00.0",
    ]


def test_as_values(tree: SysfsTree) -> None:
    host = tree.host()
    roots = bus_tree(host, [PciAddress.parse("01:00.0")])
    assert as_result(roots, lambda address: {"address": str(address)}) == [
        {
            "bus": "pci0000:00",
            "children": [
                {
                    "address": "0000:00:1c.0",
                    "selected": False,
                    "children": [{"address": "0000:01:00.0", "selected": True, "children": []}],
                }
            ],
        }
    ]


def test_a_domain_below_a_device_of_another_one(tree: SysfsTree) -> None:
    """Intel VMD: drivers/pci/controller/vmd.c makes a root bus below its own function."""
    vmd = "/sys/devices/pci0000:00/0000:00:0e.0"
    tree.add_device("00:0e.0")
    tree.path(f"{vmd}/pci10000:e0/10000:e0:06.0/10000:e1:00.0").mkdir(parents=True)
    tree.link("/sys/bus/pci/devices/10000:e0:06.0", f"{vmd}/pci10000:e0/10000:e0:06.0")
    tree.link("/sys/bus/pci/devices/10000:e1:00.0", f"{vmd}/pci10000:e0/10000:e0:06.0/10000:e1:00.0")
    assert lines(tree, "10000:e1:00.0", "00:0e.0") == [
        "pci0000:00",
        "  +- 0000:00:0e.0",
        "      +- (10000:e0:06.0)",
        "          +- 10000:e1:00.0",
    ]


def test_a_root_for_each_function(tmp_path: Path) -> None:
    """IBM Z, where each function has a domain of its own."""
    tree = SysfsTree(tmp_path).add_device("0002:00:00.0").add_device("0001:00:00.0")
    assert lines(tree) == ["pci0001:00", "  +- 0001:00:00.0", "pci0002:00", "  +- 0002:00:00.0"]


def test_a_root_below_a_device_of_the_platform(tmp_path: Path) -> None:
    tree = SysfsTree(tmp_path)
    base = "/sys/devices/platform/4010000000.pcie/pci0000:00/0000:00:01.0"
    tree.path(base).mkdir(parents=True)
    tree.link("/sys/bus/pci/devices/0000:00:01.0", base)
    assert lines(tree) == ["pci0000:00", "  +- 0000:00:01.0"]


def test_a_device_that_is_gone_is_left_out_and_nothing_is_an_empty_tree(tree: SysfsTree) -> None:
    assert lines(tree, "04:00.0", "00:00.0") == ["pci0000:00", "  +- 0000:00:00.0"]
    assert bus_tree(tree.host(), []) == []


def test_the_functions_in_a_path() -> None:
    root, functions = functions_in("/sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net/eth0")
    assert (root, [str(function) for function in functions]) == ("pci0000:00", ["0000:00:1c.0", "0000:01:00.0"])
    assert functions_in("/sys/devices/virtual/net/lo")[1] == []
    assert functions_in("/sys/devices/pci0000:00/0000:00:1f.9/0000:00:2f.0")[1] == []


# -- any machine --------------------------------------------------------------------------------------------


@st.composite
def machines(draw: st.DrawFn) -> dict[PciAddress, list[PciAddress]]:
    """Functions, each with the functions above it, from the root on."""
    found: dict[PciAddress, list[PciAddress]] = {}
    numbers = st.builds(
        PciAddress, st.sampled_from((0, 1, 0x10000)), st.integers(0, 3), st.integers(0, 3), st.integers(0, 1)
    )
    for address in draw(st.lists(numbers, unique=True, max_size=25)):
        parent = draw(st.sampled_from([None, *found]))
        found[address] = [] if parent is None else [*found[parent], parent]
    return found


class LinkHost(Host):
    """A host that has nothing but the links of its PCI functions, and counts how often they are looked at."""

    def __init__(self, machine: dict[PciAddress, list[PciAddress]]) -> None:
        super().__init__(tempfile.gettempdir())
        self._machine = {str(address): above for address, above in machine.items()}
        self.looks = 0

    def link_target(self, path: str) -> str | None:
        self.looks += 1
        name = path.rpartition("/")[2]
        way = [*self._machine[name], name]
        return f"../../../devices/pci{str(way[0])[:-5]}/" + "/".join(map(str, way))


def nodes(children: list[Node], above: list[PciAddress]) -> list[tuple[Node, list[PciAddress]]]:
    """Every node below with the addresses above it."""
    found = []
    for node in children:
        found += [(node, above), *nodes(node.children, [*above, node.address])]
    return found


@settings(max_examples=200)
@given(machines(), st.data())
def test_every_device_is_there_once_and_its_parents_above_it(
    machine: dict[PciAddress, list[PciAddress]], data: st.DataObject
) -> None:
    asked = data.draw(st.lists(st.sampled_from(sorted(machine)), unique=True)) if machine else []
    host = LinkHost(machine)
    roots = bus_tree(host, asked)
    assert host.looks == len(asked)
    found = [entry for root in roots for entry in nodes(root.children, [])]
    wanted = {address for each in asked for address in (each, *machine[each])}
    assert sorted(node.address for node, _above in found) == sorted(wanted)
    assert {node.address for node, _above in found if node.asked} == set(asked)
    for node, above in found:
        assert above == machine[node.address]
        assert node.children == sorted(node.children, key=lambda child: child.address)
    drawn = draw(roots, str)
    assert len(drawn) == len(roots) + len(found)
    assert [line.strip(" |+-()") for line in drawn if "+- " in line] == [str(node.address) for node, _above in found]


def test_a_big_machine_takes_one_look_per_function() -> None:
    ports = [PciAddress(0, 0, slot, 0) for slot in range(16)]
    machine: dict[PciAddress, list[PciAddress]] = {port: [] for port in ports}
    for number, port in enumerate(ports):
        machine.update(
            {PciAddress(0, 1 + number, slot, function): [port] for slot in range(32) for function in range(8)}
        )
    host = LinkHost(machine)
    result: list[dict[str, Any]] = as_result(bus_tree(host, machine), lambda address: {"address": str(address)})
    assert host.looks == len(machine) == 16 + 4096
    assert [len(port["children"]) for port in result[0]["children"]] == [256] * 16
