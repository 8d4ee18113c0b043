# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with PCI devices to give away, and definitions of domains to give them to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import Definition
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev import changed_to, given
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.rules.context import (
    Context,
    OtherDomain,
    Subject,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

SCHEMAS = "/usr/share/libvirt/schemas"

NIC = "0000:01:00.0"
"""A network card in a group of its own."""
BOUND = "0000:02:00.0"
"""A device that is bound to vfio-pci."""
BRIDGE = "0000:03:00.0"
CARD = "0001:09:00"
"""Four functions in one slot and one group."""
FOUR: list[dict[str, Any]] = [
    {"device": f"{CARD}.0", "guest_address": "08:00.0"},
    {"device": f"{CARD}.1", "assigned": False},
    {"device": f"{CARD}.2", "assigned": False},
    {"device": f"{CARD}.3", "guest_address": "08:00.3"},
]
"""What hands over the first and the last of them."""
PAIR = ("0000:06:00.0", "0000:07:00.0")
"""Two devices in different slots and one group, behind a bridge that is in it too."""
PF = "0000:0a:00.0"


def passthrough_host(root: Path) -> SysfsTree:
    """The machine: the devices named above, two VFs of the PF, and libvirt's real schema where this machine has it."""
    tree = SysfsTree(root)
    tree.path("/run").mkdir()
    tree.add_device(NIC, ids="8086:10c9", pci_class=0x020000, driver="igb", group=1)
    tree.add_device(BOUND, driver="vfio-pci", group=2)
    tree.add_device(BRIDGE, bridge=True, driver="pcieport", group=3)
    for function in range(4):
        tree.add_device(f"{CARD}.{function}", ids="14e4:1657", pci_class=0x020000, driver="tg3", group=9)
    tree.add_device("0000:05:00.0", bridge=True, driver="pcieport", group=6)
    for address in PAIR:
        tree.add_device(address, driver="snd", group=6)
    tree.add_device(PF, ids="8086:10c9", driver="igb", group=10, totalvfs=7)
    tree.add_vfs(PF, 2, driver="igbvf", first_group=20)
    show_schemas(tree.root)
    return tree


def show_schemas(root: Path) -> None:
    """Let the host in a directory have libvirt's real schema, where this machine has it."""
    if os.path.isdir(SCHEMAS):
        link = root / SCHEMAS[1:]
        link.parent.mkdir(parents=True)
        link.symlink_to(SCHEMAS)


DOMAIN = """<domain type='kvm'>
  <name>web01</name>
  <uuid>5e8a0f66-2b1f-4a3f-9d65-1f2a3c4d5e6f</uuid>
  <memory>65536</memory>
  <os><type arch='{arch}' machine='q35'>hvm</type>{boot}</os>
  <devices>
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='pci' index='1' model='pcie-root-port'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x0' multifunction='on'/>
    </controller>
    <controller type='pci' index='2' model='pcie-root-port'>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x1'/>
    </controller>
    {devices}
  </devices>
</domain>"""


def definition(devices: str = "", boot: str = "", arch: str = "x86_64") -> Definition:
    """The definition of a small domain with more devices."""
    return Definition(DOMAIN.format(devices=devices, boot=boot, arch=arch))


def hostdev_xml(address: str, inner: str = "", attributes: str = "managed='yes'", guest: str = "") -> str:
    """A ``<hostdev>``; ``guest`` is a guest address in lspci notation."""
    source = _attributes(address)
    if guest:
        inner += f"<address type='pci' {_attributes(guest)}/>"
    return f"<hostdev mode='subsystem' type='pci' {attributes}><source><address {source}/></source>{inner}</hostdev>"


def _attributes(address: str) -> str:
    return " ".join(f"{name}='{value}'" for name, value in PciAddress.parse(address).xml_attributes.items())


def context(
    tree: SysfsTree,
    wanted: dict[str, dict[str, Any]],
    *,
    before: Definition | None = None,
    removed: tuple[str, ...] = (),
    others: tuple[OtherDomain, ...] = (),
    version: tuple[int, int, int] = (11, 0, 0),
    qemu: tuple[int, int, int] | None = None,
) -> Context:
    """What the rules look at when ``wanted`` (address -> options) is asked for of a domain."""
    before = before or definition()
    gone = frozenset(PciAddress.parse(address) for address in removed)
    subjects = {one.source: Subject(one.value) for one in before.hostdevs if one.source not in gone}
    for number, (address, options) in enumerate(wanted.items()):
        asked, problems = given({"managed": True, "assigned": True, **options}, f"hostdevs[{number}]")
        assert not problems, problems
        source = PciAddress.parse(address)
        asked = changed_to(type(asked)(**{**vars(asked), "source": source}), None)
        present = before.hostdev(source)
        final = changed_to(asked, None if present is None else present.value)
        subjects[source] = Subject(final, f"hostdevs[{number}]", asked)
    host = tree.host()
    return Context(
        subjects=[subjects[source] for source in sorted(subjects)],
        removed=gone,
        definition=before,
        others=others,
        version=version,
        host=host,
        bus=Bus(host),
        qemu=qemu,
    )
