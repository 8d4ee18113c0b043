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
from .hostdev import INTERFACE, Hostdev, is_hostdev, parse, read_mac

with contextlib.suppress(ImportError):  # the module makes sure of lxml before it comes here
    from lxml import etree

if TYPE_CHECKING:
    from lxml.etree import _Element

_GUEST_ADDRESS = Address("address", None, kind="pci")

# virParseScaledValue: a unit of three letters, or none, is binary; one with B is decimal.
_UNITS = {
    **{f"{letter}iB".lower(): 1024**power for power, letter in enumerate("KMGTPE", 1)},
    **{letter.lower(): 1024**power for power, letter in enumerate("KMGTPE", 1)},
    **{f"{letter}B".lower(): 1000**power for power, letter in enumerate("KMGTPE", 1)},
    "b": 1,
    "bytes": 1,
}


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
    return etree.tostring(_neat(element), encoding="unicode")


def ascii_text(element: _Element) -> str:
    """As :func:`element_text`, with a reference for each character that is not in ASCII."""
    return bytes(etree.tostring(_neat(element), encoding="us-ascii")).decode("ascii")


def _neat(element: _Element) -> _Element:
    own = copy.deepcopy(element)
    own.tail = None
    for one in own.iter():
        if not (one.text or "").strip():
            one.text = None
        one.tail = None if not (one.tail or "").strip() else one.tail
    etree.indent(own)
    return own


def c14n(root: _Element) -> bytes:
    """A document in the one form in which documents of the same meaning are equal; white space is left out.

    Where elements stand in ``<devices>`` counts.
    """
    own = copy.deepcopy(root)
    for one in own.iter():
        if len(one) and not (one.text or "").strip():
            one.text = None
        one.tail = None if not (one.tail or "").strip() else one.tail
    devices = own.find("devices")
    if devices is not None and not len(devices) and not (devices.text or "").strip():
        own.remove(devices)
    return bytes(etree.tostring(own, method="c14n"))


@dataclass(frozen=True)
class PciHostdev:
    """One PCI device of the host in a definition: the element, its text on its own, and what it says."""

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
    mac: Optional[str] = None
    backs_up: bool = False
    """Whether it is the interface that stays when the device it is teamed with is taken away."""


class Definition:
    """What an XML document says of a domain. Looked at, never changed."""

    def __init__(self, text: str, pooled: frozenset[str] = frozenset()) -> None:
        """Parse the document.

        :param pooled: the MAC addresses of interfaces that are not hostdevs of their own, although they look like one:
            what runs shows an interface of a network as what it was given (``virDomainActualNetDefContentsFormat``)
        :raises PassthroughError: ``domain_xml_invalid``
        """
        self._pooled = pooled
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
    def machine(self) -> str:
        """The guest's machine (``pc-q35-7.2``); empty when it does not say."""
        kind = self.root.find("os/type")
        return "" if kind is None else kind.get("machine", "")

    @property
    def boots_by_os_element(self) -> bool:
        """Whether the boot order is given by ``<os><boot dev=…/>``, which excludes an order per device."""
        return self.root.find("os/boot") is not None

    @property
    def starts_by_port(self) -> bool:
        """Whether a device that is plugged in needs a port of its own (PCI Express, and no pseudo bus)."""
        return self.pci_controllers.get(0) == "pcie-root"

    @cached_property
    def hostdevs(self) -> list[PciHostdev]:
        """The PCI devices of the host, by hostdev or interface, in the order in which they stand.

        :raises PassthroughError: ``domain_xml_invalid`` for one that cannot be read
        """
        return [self._hostdev(element) for element in self.device_elements if self._is_own(element)]

    def _hostdev(self, element: _Element) -> PciHostdev:
        text = element_text(element)
        try:
            return PciHostdev(element, text, parse(element))
        except ValueError as error:
            raise PassthroughError(
                "domain_xml_invalid",
                f"The {element.tag!s} of a PCI device cannot be read ({error}):\n{text}",
                "Correct it with virsh edit.",
            ) from error

    def hostdev(self, source: PciAddress) -> PciHostdev | None:
        """The hostdev or interface of a device, or None."""
        return next((one for one in self.hostdevs if one.source == source), None)

    @cached_property
    def pooled_sources(self) -> list[PciAddress]:
        """The devices that the guest has from a network."""
        return [
            self._hostdev(element).source
            for element in self.device_elements
            if is_hostdev(element) and not self._is_own(element)
        ]

    @property
    def sources(self) -> list[PciAddress]:
        """Every host device that the domain names, by hostdev or interface, or has from a network."""
        return [one.source for one in self.hostdevs] + self.pooled_sources

    @cached_property
    def network_macs(self) -> frozenset[str]:
        """The MAC addresses of the interfaces that are connected to a network."""
        elements = self.root.iterfind("devices/interface[@type='network']")
        return frozenset(mac for mac in (_mac(element) for element in elements) if mac)

    @cached_property
    def memory(self) -> int:
        """The memory that the guest has at most, in bytes, memory modules included."""
        sizes = [self.root.find("memory"), *self.root.iterfind("devices/memory/target/size")]
        return sum(_bytes(size) or 0 for size in sizes)

    @cached_property
    def hard_limit(self) -> int | None:
        """The ``<hard_limit>`` of the domain's memory, in bytes."""
        return _bytes(self.root.find("memtune/hard_limit"))

    @property
    def has_iommu(self) -> bool:
        """Whether the guest has an IOMMU of its own."""
        return self.root.find("devices/iommu") is not None

    @cached_property
    def occupants(self) -> list[Occupant]:
        """Every device of the guest but the PCI devices of the host."""
        return [_occupant(element) for element in self.device_elements if not self._is_own(element)]

    @cached_property
    def pci_controllers(self) -> dict[int, str]:
        """The guest's PCI buses: number and model of the controller that makes each (``pcie-root-port``)."""
        found = {}
        for element in self.root.iterfind("devices/controller[@type='pci']"):
            index = element.get("index", "")
            if index.isdecimal():
                found[int(index)] = element.get("model", "")
            elif not index:  # libvirt gives numbers in the order in which they stand
                found[max(found, default=-1) + 1] = element.get("model", "")
        return found

    def pci_controller_text(self, index: int) -> str | None:
        """The element of the controller that makes a PCI bus, or None."""
        element = self.root.find(f"devices/controller[@type='pci'][@index='{index}']")
        return None if element is None else element_text(element)

    @property
    def used_buses(self) -> set[int]:
        """The guest's PCI buses on which something is."""
        addresses = [_readable(_GUEST_ADDRESS, element) for element in self.device_elements]
        return {address.bus for address in addresses if address is not None}

    def with_hostdevs(self, texts: dict[PciAddress, str | None]) -> _Element:
        """The document with other devices of the host: for each source the new element, or None for none."""
        root = copy.deepcopy(self.root)
        devices = root.find("devices")
        if devices is None:
            devices = etree.SubElement(root, "devices")
        left = {source: text for source, text in texts.items() if text is not None}
        for element in [child for one in root.iterfind("devices") for child in one]:
            if not isinstance(element.tag, str) or not self._is_own(element):
                continue
            source = parse(element).source
            if source not in texts:
                continue
            text = left.pop(source, None)
            above = element.getparent()
            if above is None:
                continue
            if text is None:
                above.remove(element)
            else:
                above.replace(element, etree.fromstring(text))
        devices.extend(etree.fromstring(text) for text in left.values())
        return root

    def _is_own(self, element: _Element) -> bool:
        return is_hostdev(element) and not (element.tag == INTERFACE and _mac(element) in self._pooled)

    @property
    def device_elements(self) -> Iterator[_Element]:
        """What is directly in ``<devices>``."""
        for devices in self.root.iterfind("devices"):
            for element in devices:
                if isinstance(element.tag, str):
                    yield element


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
        mac=_mac(element) if element.tag == INTERFACE else None,
        backs_up=element.find("teaming[@type='persistent']") is not None,
    )


def _mac(element: _Element) -> str | None:
    text = _attribute(element, "mac", "address")
    try:
        return None if text is None else read_mac(text)
    except ValueError:
        return None


def _bytes(element: _Element | None) -> int | None:
    """A size in bytes; without a unit, it is in KiB."""
    if element is None or not (element.text or "").strip().isdecimal():
        return None
    unit: int = _UNITS.get(element.get("unit", "KiB").lower(), 1024)
    return int(element.text or "0") * unit


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
