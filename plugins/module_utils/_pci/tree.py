# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The PCI functions of a host as the hierarchy of its buses: which function is behind which bridge.

The hierarchy is that of the directories below /sys/devices, which the links in /sys/bus/pci/devices name. It holds
where addresses say nothing: for the domain that Intel VMD makes below one of its own functions, for virtual functions
(behind the bridge of their physical function), and on IBM Z, where each function has a root of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Callable

from .._core.host import Host
from .address import PciAddress
from .device import DEVICES


@dataclass
class Node:
    """A function and the functions behind it, in bus order. One that was not asked for only shows the way to others."""

    address: PciAddress
    asked: bool = False
    children: list[Node] = field(default_factory=list)


@dataclass
class Root:
    """A root bus: the name of its directory (``pci0000:00``), and the functions on it, in bus order."""

    name: str
    children: list[Node] = field(default_factory=list)


def functions_in(path: str) -> tuple[str, list[PciAddress]]:
    """What a path below /sys/devices goes through: the directory of the first PCI function, and all functions.

    ``/sys/devices/pci0000:00/0000:00:1c.0/0000:01:00.0/net/eth0`` -> ``pci0000:00`` and
    [``0000:00:1c.0``, ``0000:01:00.0``].
    """
    root = ""
    functions: list[PciAddress] = []
    for name in path.split("/"):
        function = PciAddress.from_sysfs(name)
        if function is not None:
            functions.append(function)
        elif not functions:
            root = name
    return root, functions


def bus_tree(host: Host, addresses: Iterable[PciAddress]) -> list[Root]:
    """The functions at these addresses with all that lie on the way to them; one that is gone is left out.

    It takes one look at each function's link, so it grows with their number and with nothing else.
    """
    roots: dict[str, Root] = {}
    nodes: dict[PciAddress, Node] = {}
    for address in addresses:
        target = host.link_target(f"{DEVICES}/{address}")
        if target is None:
            continue
        name, functions = functions_in(target)
        if address not in functions:  # no name the kernel gives; it is a device all the same
            functions.append(address)
        above = roots.setdefault(name, Root(name)).children
        for function in functions:
            if function not in nodes:
                nodes[function] = Node(function)
                above.append(nodes[function])
            above = nodes[function].children
        nodes[address].asked = True
    for children in [root.children for root in roots.values()] + [node.children for node in nodes.values()]:
        children.sort(key=attrgetter("address.order"))
    return sorted(roots.values(), key=lambda root: root.children[0].address.order)


def as_result(roots: Iterable[Root], describe: Callable[[PciAddress], dict[str, Any]]) -> list[dict[str, Any]]:
    """The tree as JSON values: root buses with ``children``, which are what ``describe`` says of a function, whether
    it was ``selected``, and its own ``children``."""

    def convert(node: Node) -> dict[str, Any]:
        return {**describe(node.address), "selected": node.asked, "children": [convert(each) for each in node.children]}

    return [{"bus": root.name, "children": [convert(node) for node in root.children]} for root in roots]


def draw(roots: Iterable[Root], line: Callable[[PciAddress], str]) -> list[str]:
    """The tree as lines for people. What was not asked for stands in parentheses."""

    def branch(nodes: list[Node], indent: str) -> Iterator[str]:
        for node in nodes:
            text = line(node.address)
            yield f"{indent}+- {text if node.asked else f'({text})'}"
            yield from branch(node.children, indent + ("    " if node is nodes[-1] else "|   "))

    lines = []
    for root in roots:
        lines += [root.name, *branch(root.children, "  ")]
    return lines
