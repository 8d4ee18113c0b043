# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostdevs and interfaces at random: as a person asks for them, and as XML that says the same in a notation of its own.

The XML is put together here, and not by the code under test: what that writes is held against it.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import Any

ARCHITECTURES = {
    "q35": ("x86_64", "q35"),
    "pc": ("x86_64", "pc"),
    "aarch64": ("aarch64", "virt"),
    "s390x": ("s390x", "s390-ccw-virtio"),
}
"""Kind of guest -> its architecture and its machine."""

BASE = """<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='{arch}' machine='{machine}'>hvm</type>{boot}</os>
  <devices>
    <emulator>/usr/bin/qemu-system-{arch}</emulator>
    <interface type='user'>
      <mac address='52:54:00:00:00:01'/><model type='virtio'/><teaming type='persistent'/><alias name='ua-stays'/>
      {order}{zpci}
    </interface>
    {ports}
  </devices>
</domain>"""


def base(name: str, kind: str, rng: random.Random) -> str:
    """A guest with a network card, which has an alias, and some of what hostdevs can be in conflict with."""
    arch, machine = ARCHITECTURES[kind]
    boots_by_os = rng.random() < 0.2
    ports = ""
    if kind in ("q35", "aarch64"):
        ports = "<controller type='pci' model='pcie-root'/>" + "<controller type='pci' model='pcie-root-port'/>" * 4
    zpci = "<address type='pci'><zpci uid='0x0007' fid='0x00000007'/></address>" if kind == "s390x" else ""
    return BASE.format(
        name=name,
        arch=arch,
        machine=machine,
        boot="<boot dev='hd'/>" if boots_by_os else "",
        order="" if boots_by_os else "<boot order='1'/>",
        zpci=zpci,
        ports=ports,
    )


@dataclass
class Case:
    """One device."""

    options: dict[str, Any] = field(default_factory=dict)
    """As an item of the module's ``hostdevs``."""
    attributes: str = "managed='yes'"
    inside: str = ""
    """What the element has beside its source and its guest address."""
    source: str = ""
    guest: str = ""
    zpci: str = ""

    @property
    def xml(self) -> str:
        """The element."""
        name = (
            "interface type='hostdev'"
            if self.options.get("kind") == "interface"
            else "hostdev mode='subsystem' type='pci'"
        )
        source_type = " type='pci'" if self.options.get("kind") == "interface" else ""
        guest = self.guest
        if self.zpci:
            guest = (guest or "<address type='pci'/>").replace("/>", f"><zpci{self.zpci}/></address>")
        return (
            f"<{name} {self.attributes}><source><address{source_type} {self.source}/></source>"
            f"{self.inside}{guest}</{name.split()[0]}>"
        )


# basictypes.rng, pciaddress: what the schema takes. The digits are read with C's rule, whatever they look like.
_NOTATIONS = {
    "domain": re.compile(r"(0x)?[0-9a-fA-F]{1,8}"),
    "bus": re.compile(r"(0x)?[0-9a-fA-F]{1,2}"),
    "slot": re.compile(r"(0x)?[0-1]?[0-9a-fA-F]"),
    "function": re.compile(r"(0x)?[0-7]"),
}


def _address(rng: random.Random, numbers: tuple[int, int, int, int]) -> str:
    """The attributes of an address, each number in one of the notations that libvirt reads."""
    found = []
    for (name, pattern), value in zip(_NOTATIONS.items(), numbers):
        spellings = [f"0x{value:x}", f"0x{value:02X}", str(value), f"0{value:o}"]
        found.append(f"{name}='{rng.choice([text for text in spellings if pattern.fullmatch(text)])}'")
    return " ".join(found)


_MACS = ("52:54:00:00:00:02", "52:54:00:00:00:03", "52:54:00:00:00:04")
_WRONG_MACS = ("52:54:00:00:00:01", "01:00:5e:00:00:01", "52:54:00:00:00", "00:00:00:00:00:00")


def _same(*values: Any) -> list[tuple[Any, str]]:
    return [(value, str(value)) for value in values]


_Values = list[tuple[Any, str]]
# For each setting how often it is asked for; what a person writes, each with the same in XML; and what is wrong, at
# least in some guests.
_SETTINGS: dict[str, tuple[float, _Values, _Values]] = {
    "managed": (0.3, [(False, "no")], []),
    "boot_order": (0.25, _same(2, 3, 4), _same(0, 1, 2, 2, -1)),
    "rom.enabled": (0.15, [(True, "yes")], [(False, "no")]),
    "rom.bar": (0.2, [(True, "on"), (False, "off")], []),
    "rom.file": (0.15, _same("/roms/a.rom", "/roms/b_c-d.rom"), _same("a.rom", "/with space")),
    "alias": (0.3, _same("ua-a", "ua-b", "ua-c_9", "ua-d-e"), _same("ua-a", "ua-stays", "net0", "ua-a b", "ua-")),
    "acpi_index": (0.2, _same(2, 3, 16383), _same(0, 1, 2, 2, 16384)),
    "teaming.persistent": (0.1, _same("ua-stays"), _same("ua-nobody")),
    "driver_model": (0.02, _same("vfio-pci"), _same("mlx5_vfio_pci")),
    "iommufd": (0.02, [(False, "no")], [(True, "yes")]),
    "zpci.uid": (
        0.05,
        [(1, "0x0001"), ("2", "0x0002"), ("ffff", "0xffff")],
        [(0, "0x0000"), ("7", "0x0007"), (0x10000, "0x10000")],
    ),
    "zpci.fid": (
        0.05,
        [(0, "0x00000000"), (1, "0x00000001"), (0xFFFFFFFF, "0xffffffff")],
        [(7, "0x00000007"), (1 << 32, "0x100000000")],
    ),
    "mac": (0.7, _same(*_MACS), _same(*_WRONG_MACS)),
    "vlan": (0.3, _same(1, 42, 4094), _same(0, 4095, 4096)),
    "virtualport.profileid": (0.1, _same("web", "x" * 39), _same("x" * 40, "")),
}
_INTERFACE_ONLY = ("mac", "vlan", "virtualport.profileid")


def case(kind: str, number: int, rng: random.Random) -> Case:
    """The device number ``number`` of a guest of this kind."""
    found = Case(options={"managed": True, "assigned": True})
    interface = rng.random() < 0.4
    if interface:
        found.options["kind"] = "interface"
    said: dict[str, str] = {}
    wild = rng.random() < 0.3
    for name, (share, right, wrong) in _SETTINGS.items():
        if name.startswith("zpci"):
            share *= 8 if kind == "s390x" else 1
        if rng.random() >= share or (name in _INTERFACE_ONLY) > interface:
            continue
        value, said[name] = rng.choice(right + wrong if wild else right)
        group, _unused, suboption = name.partition(".")
        if suboption:
            found.options.setdefault(group, {})[suboption] = value
        else:
            found.options[group] = value
    source = (0, 0x10 + number, rng.choice([0, 8, 31]), rng.choice([0, 0, 7]))
    found.options["device"] = f"{source[0]:04x}:{source[1]:02x}:{source[2]:02x}.{source[3]}"
    found.source = _address(rng, source)
    if "managed" in said:
        found.attributes = f"managed='{said['managed']}'"
    found.inside = _inside(said)
    found.zpci = "".join(f" {name[5:]}='{said[name]}'" for name in ("zpci.uid", "zpci.fid") if name in said)
    if not interface and (wild or not said.keys() - {"managed"}) and rng.random() < 0.2:
        found.options["assigned"] = False
        found.guest, found.zpci = "<address type='unassigned'/>", ""
        found.options.pop("zpci", None)
    elif rng.random() < 0.4:
        _guest_address(found, kind, wild, rng)
    return found


def _guest_address(found: Case, kind: str, wild: bool, rng: random.Random) -> None:
    express = kind in ("q35", "aarch64")
    if wild:
        domain, slot, function = rng.choice([0] * 9 + [1]), rng.choice([0, 1, 2, 9, 30, 31]), rng.choice([0, 0, 1, 3])
        bus = rng.choice([0, 1, 2, 3, 4, 0x1F])
    else:
        domain, slot, function = 0, rng.choice([9, 10, 30]), 0
        bus = rng.choice([0, 2, 3, 0x1F]) if express else rng.choice([0, 0, 1])
        slot = 0 if express and bus else slot
    numbers = (domain, bus, slot, function)
    found.options["guest_address"] = dict(zip(_NOTATIONS, (f"{number:x}" for number in numbers)))
    more = ""
    if rng.random() < 0.3:
        multifunction = rng.random() < 0.7
        found.options["guest_address"]["multifunction"] = multifunction
        more = f" multifunction='{'on' if multifunction else 'off'}'"
    found.guest = f"<address type='pci' {_address(rng, numbers)}{more}/>"


def _inside(said: dict[str, str]) -> str:
    def some(element: str, **names: str) -> str:
        attributes = "".join(f" {name}='{said[key]}'" for name, key in names.items() if key in said)
        return f"<{element}{attributes}/>" if attributes else ""

    vlan = f"<vlan><tag id='{said['vlan']}'/></vlan>" if "vlan" in said else ""
    port = ""
    if "virtualport.profileid" in said:
        parameters = f"<parameters profileid='{said['virtualport.profileid']}'/>"
        port = f"<virtualport type='802.1Qbh'>{parameters}</virtualport>"
    teaming = some("teaming", persistent="teaming.persistent").replace("<teaming", "<teaming type='transient'")
    return (
        some("mac", address="mac")
        + vlan
        + port
        + some("driver", model="driver_model", iommufd="iommufd")
        + teaming
        + some("boot", order="boot_order")
        + some("rom", enabled="rom.enabled", bar="rom.bar", file="rom.file")
        + some("alias", name="alias")
        + some("acpi", index="acpi_index")
    )
