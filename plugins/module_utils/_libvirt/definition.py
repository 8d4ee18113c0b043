# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The definition of a domain, as far as its PCI devices are concerned."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Optional

from .._core.errors import PassthroughError
from .._pci.address import PciAddress
from .element import Address, libvirt_number
from .hostdev import Hostdev, parse

with contextlib.suppress(ImportError):  # the module makes sure of lxml before it comes here
    from lxml import etree

if TYPE_CHECKING:
    from lxml.etree import _Element

_GUEST_ADDRESS = Address("address", None, kind="pci")
_SOURCE_ADDRESS = Address("source/address", None)


def parse_xml(text: str) -> _Element:
    """Parse XML that comes from outside. Entities are not expanded, nothing is fetched, a DTD is refused.

    :raises PassthroughError: ``domain_xml_invalid``
    """
    parser = etree.XMLParser(
        encoding="utf-8",  # which the text is now, whatever its declaration says it was
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        strip_cdata=False,
    )
    try:
        root = etree.fromstring(text.encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise PassthroughError(
            "domain_xml_invalid",
            f"The XML is malformed: {error}.",
            "Look at the definition with virsh dumpxml, and correct it with virsh edit.",
        ) from error
    if root.getroottree().docinfo.doctype:
        raise PassthroughError(
            "domain_xml_invalid", "The XML has a document type declaration, which no domain needs.", "Remove it."
        )
    return root


def element_text(element: _Element) -> str:
    """An element on its own, indented for a person; equal for elements that differ in white space and quotes only."""
    own = copy.deepcopy(element)
    own.tail = None
    for one in own.iter():
        if not (one.text or "").strip():
            one.text = None
        one.tail = None if not (one.tail or "").strip() else one.tail
    etree.indent(own)
    return etree.tostring(own, encoding="unicode")


@dataclass(frozen=True)
class PciHostdev:
    """One ``<hostdev>`` of a PCI device in a definition: the element, its text on its own, and what it says."""

    element: _Element
    text: str
    value: Hostdev

    @property
    def source(self) -> PciAddress:
        """The device."""
        return self.value.source


@dataclass(frozen=True)
class Occupant:
    """Another device of the guest, as far as a hostdev can get into its way."""

    label: str
    """What messages call it: ``interface network``, ``controller usb 0``."""
    guest_address: Optional[PciAddress] = None
    boot_order: Optional[int] = None
    alias: Optional[str] = None
    acpi_index: Optional[int] = None
    zpci_uid: Optional[int] = None
    zpci_fid: Optional[int] = None


class Definition:
    """What an XML document says of a domain. Looked at, never changed."""

    def __init__(self, text: str) -> None:
        """Parse the document.

        :raises PassthroughError: ``domain_xml_invalid``
        """
        self.root = parse_xml(text)
        if self.root.tag != "domain":
            raise PassthroughError(
                "domain_xml_invalid", f"The XML is no domain: its outermost element is {self.root.tag!r}."
            )

    @property
    def arch(self) -> str:
        """The guest's architecture (``x86_64``, ``s390x``); empty when it does not say."""
        kind = self.root.find("os/type")
        return "" if kind is None else kind.get("arch", "")

    @property
    def boots_by_os_element(self) -> bool:
        """Whether the boot order is given by ``<os><boot dev=…/>``, which excludes an order per device."""
        return self.root.find("os/boot") is not None

    @cached_property
    def hostdevs(self) -> list[PciHostdev]:
        """The PCI hostdevs, in the order in which they stand.

        :raises PassthroughError: ``domain_xml_invalid`` for one that cannot be read
        """
        found = []
        for element in self.root.iterfind("devices/hostdev"):
            if not _is_pci(element):
                continue
            text = element_text(element)
            try:
                found.append(PciHostdev(element, text, parse(element)))
            except ValueError as error:
                raise PassthroughError(
                    "domain_xml_invalid", f"A hostdev cannot be read ({error}):\n{text}", "Correct it with virsh edit."
                ) from error
        return found

    def hostdev(self, source: PciAddress) -> PciHostdev | None:
        """The hostdev of a device, or None."""
        return next((one for one in self.hostdevs if one.source == source), None)

    @cached_property
    def interface_sources(self) -> list[PciAddress]:
        """The devices that the guest gets by ``<interface type='hostdev'>``."""
        found = []
        for element in self.root.iterfind("devices/interface[@type='hostdev']"):
            source = _readable(_SOURCE_ADDRESS, element)
            if source is not None:
                found.append(source)
        return found

    @property
    def sources(self) -> list[PciAddress]:
        """Every host device that the domain names, by hostdev or interface."""
        return [one.source for one in self.hostdevs] + self.interface_sources

    @cached_property
    def occupants(self) -> list[Occupant]:
        """Every device of the guest but the PCI hostdevs."""
        return [_occupant(element) for element in self._devices() if not _is_pci(element)]

    @cached_property
    def pci_controllers(self) -> dict[int, str]:
        """The guest's PCI buses: number and model of the controller that makes each (``pcie-root-port``)."""
        found = {}
        for element in self.root.iterfind("devices/controller[@type='pci']"):
            index = element.get("index", "")
            if index.isdigit():
                found[int(index)] = element.get("model", "")
        return found

    def pci_controller_text(self, index: int) -> str | None:
        """The element of the controller that makes a PCI bus, or None."""
        element = self.root.find(f"devices/controller[@type='pci'][@index='{index}']")
        return None if element is None else element_text(element)

    @property
    def used_buses(self) -> set[int]:
        """The guest's PCI buses on which something is."""
        addresses = [_readable(_GUEST_ADDRESS, element) for element in self._devices()]
        return {address.bus for address in addresses if address is not None}

    def with_hostdevs(self, texts: dict[PciAddress, str | None]) -> _Element:
        """The document with other PCI hostdevs: for each source the new element, or None for none."""
        root = copy.deepcopy(self.root)
        devices = root.find("devices")
        if devices is None:
            devices = etree.SubElement(root, "devices")
        for element in devices.findall("hostdev"):
            if _is_pci(element) and parse(element).source in texts:
                devices.remove(element)
        for text in texts.values():
            if text is not None:
                devices.append(etree.fromstring(text))
        return root

    def _devices(self) -> Iterator[_Element]:
        devices = self.root.find("devices")
        for element in [] if devices is None else devices:
            if isinstance(element.tag, str):
                yield element


def _is_pci(element: _Element) -> bool:
    # virDomainHostdevDefParseXML: the mode is subsystem when it is not there.
    return element.tag == "hostdev" and element.get("type") == "pci" and element.get("mode", "subsystem") == "subsystem"


def _occupant(element: _Element) -> Occupant:
    words = [str(element.tag), *(element.get(name, "") for name in ("type", "model", "index"))]
    alias = _attribute(element, "alias", "name")
    if alias:
        words.append(f"({alias})")
    return Occupant(
        label=" ".join(word for word in words if word),
        guest_address=_readable(_GUEST_ADDRESS, element),
        boot_order=_number(element, "boot", "order"),
        alias=alias,
        acpi_index=_number(element, "acpi", "index"),
        zpci_uid=_number(element, "address/zpci", "uid"),
        zpci_fid=_number(element, "address/zpci", "fid"),
    )


def _attribute(element: _Element, path: str, name: str) -> str | None:
    child = element.find(path)
    return None if child is None else child.get(name)


def _number(element: _Element, path: str, name: str) -> int | None:
    text = _attribute(element, path, name)
    try:
        return None if text is None else libvirt_number(text)
    except ValueError:
        return None


def _readable(binding: Address, element: _Element) -> PciAddress | None:
    """The address, or None for one of another kind, which is no matter here."""
    try:
        return binding.read(element)
    except ValueError:
        return None
