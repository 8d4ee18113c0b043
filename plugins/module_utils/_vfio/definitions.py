# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The domains that libvirt would start with a PCI device, running or not, as its files say.

Sources: https://libvirt.org/formatdomain.html (hostdev, interface of type hostdev); libvirt ``virDomainDefSave``, which
keeps one file per persistent domain in the folder of its driver. libvirt itself can be asked only where its Python
bindings are installed, which the modules that bind devices do not need.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from .._core.errors import PassthroughError
from .._core.host import Host
from .._pci.address import PciAddress

_PARTS = ("domain", "bus", "slot", "function")
DOMAINS = ("/etc/libvirt/qemu", "/etc/libvirt/libxl")


@dataclass(frozen=True)
class DefinedUse:
    """A device in a domain's definition. A ``managed`` one is taken from the host by libvirt when the domain starts."""

    domain: str
    managed: bool


class Definitions:
    """The definitions of libvirt's domains. They are read on first use and then kept; what is no definition is none."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def uses(self, address: PciAddress) -> list[DefinedUse]:
        """The domains whose definitions have a device."""
        return self._uses.get(address, [])

    @cached_property
    def _uses(self) -> dict[PciAddress, list[DefinedUse]]:
        found: dict[PciAddress, list[DefinedUse]] = {}
        for directory in DOMAINS:
            for name in self._host.list_dir(directory):
                text = self._host.attribute(f"{directory}/{name}") if name.endswith(".xml") else None
                for address, use in _parse(text or ""):
                    found.setdefault(address, []).append(use)
        return found


def _parse(text: str) -> Iterator[tuple[PciAddress, DefinedUse]]:
    # Few runs need it.
    from xml.etree import ElementTree

    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return
    if root.tag != "domain":
        return
    for element in (*root.findall("devices/hostdev[@type='pci']"), *root.findall("devices/interface[@type='hostdev']")):
        for source in element.findall("source/address"):
            try:
                address = PciAddress.parse({name: source.get(name, "0") for name in _PARTS})
            except PassthroughError:
                continue
            yield address, DefinedUse(root.findtext("name", "?"), element.get("managed") == "yes")
