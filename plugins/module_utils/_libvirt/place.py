# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where devices of a domain are added and taken out: its definition, or the guest that runs."""

from __future__ import annotations

from typing import Protocol

from .._core.errors import PassthroughError
from .._core.host import Host
from .._pci.address import PciAddress
from .connection import Domain
from .definition import Definition, parse_xml
from .hostdev import parse

POLL = 0.5
"""Seconds between two looks at a guest that has to let a device go."""


class Place(Protocol):
    """A definition, or a guest that runs."""

    live: bool

    @property
    def name(self) -> str:
        """What messages call it: ``the domain web01``, ``the running domain web01``."""

    def definition(self) -> Definition:
        """What is there now."""

    def attach(self, text: str) -> None:
        """Add a device.

        :raises PassthroughError: ``libvirt_refused``
        """

    def detach(self, text: str) -> None:
        """Take a device out; ``text`` is its element exactly as it stands there. It is gone afterwards.

        libvirt finds an interface by its MAC address and not by its device (``virDomainNetFindIdx``), so what was
        taken out is looked at.

        :raises PassthroughError: ``libvirt_refused``, ``device_not_released``
        """


class ConfigPlace:
    """The definition that the domain is started from."""

    live = False

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._name = domain.name

    @property
    def name(self) -> str:
        return f"the domain {self._name}"

    def definition(self) -> Definition:
        return Definition(self._domain.config_xml())

    def attach(self, text: str) -> None:
        self._domain.attach(text)

    def detach(self, text: str) -> None:
        self._domain.detach(text)
        source = _source(text)
        if self.definition().hostdev(source) is not None:
            raise PassthroughError(
                "device_not_released",
                f"libvirt says that it took {source} out of {self.name}, but it is still there.",
                "Look at the definition with virsh dumpxml --inactive; perhaps it has the device twice.",
                device=str(source),
                domain=self._name,
            )


class LivePlace:
    """The guest that runs."""

    live = True

    def __init__(self, domain: Domain, host: Host, timeout: float) -> None:
        """:param timeout: how many seconds the guest has to let a device go"""
        self._domain = domain
        self._name = domain.name
        self._host = host
        self._timeout = timeout

    @property
    def name(self) -> str:
        return f"the running domain {self._name}"

    def definition(self) -> Definition:
        return running(self._domain)

    def attach(self, text: str) -> None:
        self._domain.attach(text, live=True)

    def detach(self, text: str) -> None:
        """See :meth:`Place.detach`.

        The guest is asked to let the device go, and libvirt answers before it does. The device is out of the
        domain's XML when QEMU has said so (the event DEVICE_REMOVED).
        """
        source = _source(text)
        self._domain.detach(text, live=True)
        waited = 0.0
        while self.definition().hostdev(source) is not None:
            if waited >= self._timeout:
                raise PassthroughError(
                    "device_not_released",
                    f"The guest of {self.name} did not let {source} go within {self._timeout:g} s. It may still do so "
                    "later.",
                    "See whether the guest is up and its kernel can unplug PCI devices; give it longer with timeout, "
                    "or use scope: config and shut the domain down.",
                    device=str(source),
                    domain=self._name,
                )
            self._host.sleep(POLL)
            waited += POLL


def running(domain: Domain) -> Definition:
    """What a domain runs with. An interface of a network stays one, though it shows as the VF that it was given."""
    networks = Definition(domain.config_xml()).network_macs
    return Definition(domain.live_xml(), networks)


def _source(text: str) -> PciAddress:
    return parse(parse_xml(text)).source
