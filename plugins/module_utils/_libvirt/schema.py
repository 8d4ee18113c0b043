# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the libvirt that is installed on the host allows, by its own RELAX NG schema.

``virDomainAttachDeviceFlags`` has no flag that validates (``VIR_DOMAIN_DEFINE_VALIDATE`` belongs to define only, and
defining a whole domain again loses what somebody else changes at the same time), and libvirt drops attributes that it
does not know without a word. So the element is checked here against the schema that libvirt itself would use, and
whatever is dropped in spite of that shows when the element is read back.

The schema of a whole document answers every mistake in a ``<hostdev>`` with the same two lines about ``<domain>``. A
grammar that consists only of what ``<hostdev>`` reaches compiles in milliseconds and names the attribute.
"""

from __future__ import annotations

import contextlib
import copy
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .._core.host import Host

with contextlib.suppress(ImportError):  # the module makes sure of lxml before it comes here
    from lxml import etree

SCHEMA_DIRECTORY = "/usr/share/libvirt/schemas"
ROOT = "domainoverrides.rng"
"""The file with every definition of a domain and no start of its own."""
NETWORK_ROOT = "network.rng"
"""The file with every definition of a network."""

_RNG = "http://relaxng.org/ns/structure/1.0"
_DATATYPES = "http://www.w3.org/2001/XMLSchema-datatypes"


@dataclass(frozen=True)
class Part:
    """A part of the domain schema that is checked by itself.

    ``start`` is the definition that describes the element; ``without`` are alternatives that the element is known
    not to be, left out so that a message speaks of the right one; ``address_types`` are the kinds of guest address
    that the element may have.
    """

    start: str
    without: tuple[str, ...] = ()
    address_types: tuple[str, ...] = ("pci", "unassigned")
    types: tuple[str, ...] = ()
    """The values of the element's ``type`` that are looked at; empty for all."""


PCI_HOSTDEV = Part(
    "hostdev",
    without=("hostdevcaps", "hostdevsubsysusb", "hostdevsubsysscsi", "hostdevsubsyshost", "hostdevsubsysmdev"),
)

PCI_INTERFACE = Part("interface", address_types=("pci",), types=("hostdev", "pci"))
PARTS = {"hostdev": PCI_HOSTDEV, "interface": PCI_INTERFACE}
"""By the name of the element."""


class Schema:
    """The domain schema of a host. Files are read, and grammars compiled, when they are first needed."""

    _root = ROOT
    _start = "domain"

    def __init__(self, host: Host, directory: str = SCHEMA_DIRECTORY) -> None:
        self._host = host
        self._directory = directory
        self._definitions: dict[str, list[etree._Element]] | None = None
        self._compiled: dict[Part | None, etree.RelaxNG] = {}

    @property
    def installed(self) -> bool:
        """Whether the host has the schema (it comes with libvirt's client library)."""
        return self._host.exists(posixpath.join(self._directory, self._root))

    def check_part(self, element: etree._Element, part: Part | None = None) -> list[str]:
        """What the schema has against one element of ``<devices>``, in libvirt's (libxml2's) words; empty when valid.

        :param part: when it is not the one of :data:`PARTS` that goes with the element's name
        :raises PassthroughError: ``schema_unreadable``
        """
        return self._errors(part or PARTS[str(element.tag)], element)

    def check_domain(self, domain: etree._Element) -> list[str]:
        """What the schema has against a whole ``<domain>``; empty when valid.

        :raises PassthroughError: ``schema_unreadable``
        """
        return self._errors(None, domain)

    def _errors(self, part: Part | None, element: etree._Element) -> list[str]:
        if part not in self._compiled:
            try:
                self._compiled[part] = etree.RelaxNG(self._grammar(part))
            except etree.RelaxNGError as error:
                raise self._unreadable(str(error)) from error
        grammar = self._compiled[part]
        own = copy.deepcopy(element)
        own.tail = None
        if grammar.validate(own):
            return []
        messages = [entry.message for entry in grammar.error_log]
        return list(dict.fromkeys(messages)) or ["The element does not match the schema."]

    def _grammar(self, part: Part | None) -> etree._Element:
        definitions = self._all_definitions()
        start = self._start if part is None else part.start
        if start not in definitions:
            raise self._unreadable(f"it does not define {start!r}")
        grammar = etree.Element(f"{{{_RNG}}}grammar", nsmap={None: _RNG}, datatypeLibrary=_DATATYPES)
        etree.SubElement(etree.SubElement(grammar, f"{{{_RNG}}}start"), f"{{{_RNG}}}ref", name=start)
        done: set[str] = set()
        todo = [start]
        while todo:
            name = todo.pop()
            if name in done:
                continue
            done.add(name)
            for definition in definitions.get(name, []):
                own = copy.deepcopy(definition)
                if part is not None:
                    _narrow(own, part)
                grammar.append(own)
                todo += [str(ref.get("name")) for ref in own.iter(f"{{{_RNG}}}ref")]
        return grammar

    def _all_definitions(self) -> dict[str, list[etree._Element]]:
        if self._definitions is None:
            self._definitions = self._read(self._root, ())
        return self._definitions

    def _read(self, name: str, within: Sequence[str]) -> dict[str, list[etree._Element]]:
        """The definitions of one file and what it includes; several of one name are combined by RELAX NG itself."""
        if name in within:
            raise self._unreadable(f"{name} includes itself")
        try:
            root = etree.fromstring(self._host.read_bytes(posixpath.join(self._directory, name)), _parser())
        except etree.XMLSyntaxError as error:
            raise self._unreadable(f"{name}: {error}") from error
        found: dict[str, list[etree._Element]] = {}
        for child in root.iter(f"{{{_RNG}}}include", f"{{{_RNG}}}define"):
            if child.tag == f"{{{_RNG}}}define":
                parent = child.getparent()
                if parent is not None and parent.tag != f"{{{_RNG}}}include":
                    found.setdefault(str(child.get("name")), []).append(child)
                continue
            included = self._read(str(child.get("href")), (*within, name))
            overrides: dict[str, list[etree._Element]] = {}
            for own in child.iterfind(f"{{{_RNG}}}define"):
                overrides.setdefault(str(own.get("name")), []).append(own)
            for key, items in {**included, **overrides}.items():
                # The same file may be included along two ways.
                known = found.setdefault(key, [])
                texts = {etree.tostring(item, with_tail=False) for item in known}
                known += [item for item in items if etree.tostring(item, with_tail=False) not in texts]
        return found

    def _unreadable(self, why: str) -> PassthroughError:
        return PassthroughError(
            "schema_unreadable",
            f"libvirt's schema in {self._directory} cannot be used: {why}.",
            "Reinstall the package that brings it (libvirt0, libvirt-libs).",
            path=self._directory,
        )


class NetworkSchema(Schema):
    """The network schema of a host."""

    _root = NETWORK_ROOT
    _start = "network"

    def check_network(self, network: etree._Element) -> list[str]:
        """What the schema has against a whole ``<network>``; empty when valid.

        :raises PassthroughError: ``schema_unreadable``
        """
        return self._errors(None, network)


def _parser() -> etree.XMLParser:
    return etree.XMLParser(resolve_entities=False, no_network=True, remove_comments=True, remove_blank_text=True)


def _narrow(definition: etree._Element, part: Part) -> None:
    """Take the alternatives out of a definition that the element is known not to be."""
    for ref in list(definition.iter(f"{{{_RNG}}}ref")):
        if ref.get("name") in part.without:
            _remove(ref)
    kept = {"address": part.address_types, part.start: part.types}.get(definition.get("name", ""), ())
    if kept:
        for group in list(definition.iter(f"{{{_RNG}}}group")):
            kind = group.find(f"{{{_RNG}}}attribute[@name='type']/{{{_RNG}}}value")
            if kind is not None and kind.text not in kept:
                _remove(group)


def _remove(element: etree._Element) -> None:
    """Remove an element, and what contained nothing else."""
    parent = element.getparent()
    if parent is None:
        return
    parent.remove(element)
    if len(parent) == 0:
        _remove(parent)
