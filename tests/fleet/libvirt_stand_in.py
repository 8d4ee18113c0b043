# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host of the fleet has for libvirt's Python bindings: domains that are files, as far as they can be asked.

It is put into the tree of the host as the module ``libvirt``, so it takes the standard library only. Nothing in it
changes anything: whoever tries to fails. What libvirt itself does is looked at with the real one, by the unit tests,
in containers and in the lab.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

DEFINITIONS = Path("/etc/libvirt/qemu")

VIR_DOMAIN_XML_INACTIVE = 2
VIR_ERR_INVALID_ARG = 8
VIR_ERR_NO_DOMAIN = 42


class libvirtError(Exception):
    """What libvirt does not do."""

    def __init__(self, code: int) -> None:
        super().__init__(f"error {code}")
        self._code = code

    def get_error_code(self) -> int:
        return self._code

    def get_error_message(self) -> str:
        return str(self)


class Domain:
    """A domain that does not run."""

    def __init__(self, path: Path) -> None:
        self._xml = path.read_text(encoding="utf-8")

    def name(self) -> str:
        return ElementTree.fromstring(self._xml).findtext("name") or ""

    def UUIDString(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, self.name()))

    def isActive(self) -> int:
        return 0

    def isPersistent(self) -> int:
        return 1

    def XMLDesc(self, _flags: int) -> str:
        return self._xml


class Connection:
    """The daemon."""

    def getURI(self) -> str:
        return "qemu:///system"

    def getLibVersion(self) -> int:
        return 10_000_000

    def getVersion(self) -> int:
        return 8_002_000

    def listAllDomains(self) -> list[Domain]:
        return [Domain(path) for path in sorted(DEFINITIONS.glob("*.xml"))]

    def listAllNetworks(self) -> list[object]:
        return []

    def lookupByName(self, name: str) -> Domain:
        for domain in self.listAllDomains():
            if domain.name() == name:
                return domain
        raise libvirtError(VIR_ERR_NO_DOMAIN)


def open(_uri: str) -> Connection:
    """The daemon is always there."""
    return Connection()


def registerErrorHandler(_handler: Callable[[object, object], None], _context: object) -> None:
    """Nothing is printed anyway."""
