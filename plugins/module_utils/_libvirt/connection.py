# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""libvirt, as small as it is needed here. The only code that knows the bindings."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import Any, Callable, Optional, Protocol, TypeVar
from urllib.parse import urlsplit

from .._core.errors import PassthroughError
from .element import Version

with contextlib.suppress(ImportError):  # the module makes sure of libvirt before it comes here
    import libvirt

XML_MODULE = "lxml.etree"
PYTHON_MODULES = f"libvirt, {XML_MODULE}"
PACKAGES = "python3-libvirt (SUSE: python3-libvirt-python) and python3-lxml"

_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)

_VALIDATES_NETWORKS = (7, 7, 0)

Answer = TypeVar("Answer")


class Domain(Protocol):
    """One domain."""

    @property
    def name(self) -> str:
        """The name."""

    @property
    def uuid(self) -> str:
        """The UUID, lower case, with dashes."""

    @property
    def active(self) -> bool:
        """Whether it runs."""

    @property
    def persistent(self) -> bool:
        """Whether it has a definition that outlives it."""

    def config_xml(self) -> str:
        """The definition that the next start uses, without secrets."""

    def live_xml(self) -> str:
        """What runs now, without secrets."""

    def attach(self, xml: str, *, live: bool = False) -> None:
        """Add one device to the definition, or plug it into the guest that runs. libvirt does it in one step.

        :raises PassthroughError: ``libvirt_refused``
        """

    def detach(self, xml: str, *, live: bool = False) -> None:
        """Take one device out of the definition, or ask the guest that runs to let it go; ``xml`` is the element as it
        stands there.

        :raises PassthroughError: ``libvirt_refused``
        """


class Network(Protocol):
    """One network."""

    @property
    def name(self) -> str:
        """The name."""

    @property
    def uuid(self) -> str:
        """The UUID, lower case, with dashes."""

    @property
    def active(self) -> bool:
        """Whether it is started, so that guests can use it."""

    @property
    def persistent(self) -> bool:
        """Whether it has a definition that outlives it."""

    @property
    def autostart(self) -> bool:
        """Whether it is started when the daemon starts."""

    def config_xml(self) -> str:
        """The definition that the next start uses."""

    def live_xml(self) -> str:
        """What is active now."""

    def port_xmls(self) -> Optional[Sequence[str]]:
        """What is connected to it, as libvirt's ``<networkport>``; None where libvirt (before 5.5) cannot tell."""

    def start(self) -> None:
        """Start it.

        :raises PassthroughError: ``libvirt_refused``
        """

    def stop(self) -> None:
        """Stop it; the definition stays.

        :raises PassthroughError: ``libvirt_refused``
        """

    def undefine(self) -> None:
        """Remove the definition.

        :raises PassthroughError: ``libvirt_refused``
        """

    def set_autostart(self, wanted: bool) -> None:
        """Have it started with the daemon, or not.

        :raises PassthroughError: ``libvirt_refused``
        """


class Connection(Protocol):
    """A libvirt daemon."""

    @property
    def uri(self) -> str:
        """How it was reached."""

    @property
    def version(self) -> Version:
        """The version of the daemon's libvirt."""

    @property
    def qemu_version(self) -> Version:
        """The version of the QEMU that it finds by default."""

    def domain(self, name_or_uuid: str) -> Domain:
        """One domain.

        :raises PassthroughError: ``domain_not_found``, naming those that exist
        """

    def domains(self) -> Sequence[Domain]:
        """Every domain, running or not."""

    def network(self, name: str) -> Optional[Network]:
        """One network, or None."""

    def networks(self) -> Sequence[Network]:
        """Every network, active or not."""

    def define_network(self, xml: str) -> None:
        """Define a network, or replace the definition of the one of that name and UUID; one that is active stays as it
        is until it is started again. libvirt checks the XML against its schema where it can (from 7.7 on).

        :raises PassthroughError: ``libvirt_refused``
        """


Connect = Callable[[str], Connection]


def check_uri(uri: str) -> None:
    """Refuse another machine's libvirt, whose devices are not this machine's, and another hypervisor.

    :raises PassthroughError: ``uri_invalid``
    """
    try:
        parts = urlsplit(uri)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme.split("+")[0] != "qemu" or not parts.path:
        raise PassthroughError(
            "uri_invalid",
            f"uri {uri!r} does not name libvirt's QEMU driver.",
            "Use qemu:///system.",
            field="uri",
            value=uri,
        )
    if parts.netloc:
        raise PassthroughError(
            "uri_invalid",
            f"uri {uri!r} names another machine, {parts.netloc}; the devices are looked up on this one.",
            "Run the module on the machine that has the devices, with qemu:///system.",
            field="uri",
            value=uri,
        )


def connect(uri: str) -> Connection:
    """Reach the daemon.

    :raises PassthroughError: ``uri_invalid``, ``libvirt_unreachable``
    """
    check_uri(uri)
    # libvirt prints every error to standard error besides raising it; Ansible shows that as a module that misbehaves.
    libvirt.registerErrorHandler(_silent, None)
    try:
        return LibvirtConnection(libvirt.open(uri))
    except libvirt.libvirtError as error:
        raise PassthroughError(
            "libvirt_unreachable",
            f"libvirt cannot be reached at {uri}: {error.get_error_message() or error}.",
            "See whether its daemon is installed and runs: systemctl status libvirtd virtqemud.socket.",
            uri=uri,
            libvirt_code=_code(error),
        ) from error


def _silent(_context: Any, _error: Any) -> None:
    """libvirt's error callback: every error is also raised."""


class LibvirtConnection:
    """:class:`Connection` by the bindings."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def uri(self) -> str:
        return str(self._ask("tell its URI", self._handle.getURI))

    @property
    def version(self) -> Version:
        return _version(self._ask("tell its version", self._handle.getLibVersion))

    @property
    def qemu_version(self) -> Version:
        return _version(self._ask("tell QEMU's version", self._handle.getVersion))

    def domain(self, name_or_uuid: str) -> Domain:
        found = None
        if _UUID.fullmatch(name_or_uuid):
            found = self._look_up(self._handle.lookupByUUIDString, name_or_uuid)
        found = found or self._look_up(self._handle.lookupByName, name_or_uuid)
        if found is not None:
            return LibvirtDomain(found)
        names = sorted(domain.name for domain in self.domains())
        raise PassthroughError(
            "domain_not_found",
            f"There is no domain {name_or_uuid!r} at {self.uri}.",
            f"There are {', '.join(names)}." if names else "There is no domain at all; define it first.",
            domain=name_or_uuid,
            domains=names,
        )

    def domains(self) -> Sequence[Domain]:
        return [LibvirtDomain(handle) for handle in self._ask("list its domains", self._handle.listAllDomains)]

    def network(self, name: str) -> Network | None:
        try:
            return LibvirtNetwork(self._handle.networkLookupByName(name))
        except libvirt.libvirtError as error:
            if error.get_error_code() == libvirt.VIR_ERR_NO_NETWORK:
                return None
            raise _refused(f"look up the network {name!r}", error) from error

    def networks(self) -> Sequence[Network]:
        return [LibvirtNetwork(handle) for handle in self._ask("list its networks", self._handle.listAllNetworks)]

    def define_network(self, xml: str) -> None:
        if self.version >= _VALIDATES_NETWORKS and hasattr(libvirt, "VIR_NETWORK_DEFINE_VALIDATE"):
            flags = libvirt.VIR_NETWORK_DEFINE_VALIDATE
            self._ask("define the network", lambda: self._handle.networkDefineXMLFlags(xml, flags))
        else:
            self._ask("define the network", lambda: self._handle.networkDefineXML(xml))

    def _look_up(self, method: Callable[[str], Any], key: str) -> Any:
        try:
            return method(key)
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_INVALID_ARG):
                return None
            raise _refused(f"look up the domain {key!r}", error) from error

    def _ask(self, what: str, method: Callable[[], Answer]) -> Answer:
        return _call(what, method)


def _version(number: int) -> Version:
    return number // 1000000, number // 1000 % 1000, number % 1000


class LibvirtDomain:
    """:class:`Domain` by the bindings."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def name(self) -> str:
        return str(_call("tell a domain's name", self._handle.name))

    @property
    def uuid(self) -> str:
        return str(_call("tell a domain's UUID", self._handle.UUIDString))

    @property
    def active(self) -> bool:
        return bool(_call(f"say whether the domain {self.name} runs", self._handle.isActive))

    @property
    def persistent(self) -> bool:
        return bool(_call(f"say whether the domain {self.name} is persistent", self._handle.isPersistent))

    def config_xml(self) -> str:
        flags = libvirt.VIR_DOMAIN_XML_INACTIVE
        return str(_call(f"give the definition of the domain {self.name}", lambda: self._handle.XMLDesc(flags)))

    def live_xml(self) -> str:
        return str(_call(f"give the running definition of the domain {self.name}", lambda: self._handle.XMLDesc(0)))

    def attach(self, xml: str, *, live: bool = False) -> None:
        what = "plug a device into the running domain" if live else "add a device to the definition of the domain"
        _call(f"{what} {self.name}", lambda: self._handle.attachDeviceFlags(xml, _affecting(live)))

    def detach(self, xml: str, *, live: bool = False) -> None:
        what = "unplug a device of the running domain" if live else "take a device out of the definition of the domain"
        _call(f"{what} {self.name}", lambda: self._handle.detachDeviceFlags(xml, _affecting(live)))


def _affecting(live: bool) -> int:
    return int(libvirt.VIR_DOMAIN_AFFECT_LIVE if live else libvirt.VIR_DOMAIN_AFFECT_CONFIG)


class LibvirtNetwork:
    """:class:`Network` by the bindings."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    @property
    def name(self) -> str:
        return str(_call("tell a network's name", self._handle.name))

    @property
    def uuid(self) -> str:
        return str(_call("tell a network's UUID", self._handle.UUIDString))

    @property
    def active(self) -> bool:
        return bool(_call(f"say whether the network {self.name} is active", self._handle.isActive))

    @property
    def persistent(self) -> bool:
        return bool(_call(f"say whether the network {self.name} is persistent", self._handle.isPersistent))

    @property
    def autostart(self) -> bool:
        return bool(_call(f"say whether the network {self.name} is started with it", self._handle.autostart))

    def config_xml(self) -> str:
        flags = libvirt.VIR_NETWORK_XML_INACTIVE
        return str(_call(f"give the definition of the network {self.name}", lambda: self._handle.XMLDesc(flags)))

    def live_xml(self) -> str:
        return str(_call(f"give the active definition of the network {self.name}", lambda: self._handle.XMLDesc(0)))

    def port_xmls(self) -> Sequence[str] | None:
        if not hasattr(self._handle, "listAllPorts"):
            return None
        try:
            return [str(port.XMLDesc(0)) for port in self._handle.listAllPorts()]
        except libvirt.libvirtError as error:
            if error.get_error_code() in (libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_RPC):
                return None
            raise _refused(f"list what is connected to the network {self.name}", error) from error

    def start(self) -> None:
        _call(f"start the network {self.name}", self._handle.create)

    def stop(self) -> None:
        _call(f"stop the network {self.name}", self._handle.destroy)

    def undefine(self) -> None:
        _call(f"undefine the network {self.name}", self._handle.undefine)

    def set_autostart(self, wanted: bool) -> None:
        what = f"set autostart of the network {self.name}"
        _call(what, lambda: self._handle.setAutostart(int(wanted)))


def _call(what: str, method: Callable[[], Answer]) -> Answer:
    try:
        return method()
    except libvirt.libvirtError as error:
        raise _refused(what, error) from error


def _refused(what: str, error: Any) -> PassthroughError:
    message = (error.get_error_message() or str(error)).rstrip(".")
    return PassthroughError("libvirt_refused", f"libvirt did not {what}: {message}.", libvirt_code=_code(error))


def _code(error: Any) -> Optional[str]:
    """The name of libvirt's error code: ``VIR_ERR_CONFIG_UNSUPPORTED``."""
    number = error.get_error_code()
    named = [name for name, value in vars(libvirt).items() if name.startswith("VIR_ERR_") and value == number]
    # The levels (NONE, WARNING, ERROR) share the prefix and the numbers 0 to 2.
    codes = [name for name in named if name not in ("VIR_ERR_NONE", "VIR_ERR_WARNING", "VIR_ERR_ERROR")]
    return codes[0] if codes else None if number is None else str(number)
