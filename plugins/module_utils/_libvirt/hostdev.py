# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ``<hostdev>`` element of a PCI device.

Source: libvirt, "Domain XML format", host device assignment; ``virDomainHostdevDefParseXML`` and
``virDomainDeviceInfoParseXML`` in ``src/conf/domain_conf.c``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Optional

from .._core.errors import Problem
from .._pci.address import FIELDS, PciAddress
from .element import (
    ON_OFF,
    YES_NO,
    Address,
    Assigned,
    Attribute,
    argument_options,
    bindings,
    bound,
    combined,
    given_values,
    hexadecimal,
    read_element,
    text,
    whole_number,
    write_element,
)

if TYPE_CHECKING:
    from lxml.etree import _Element

USER_ALIAS_PREFIX = "ua-"

# virDomainDeviceAliasIsUserAlias, virDomainDefValidateAliases: anything else is dropped without a word.
_ALIAS = text(
    r"ua-[A-Za-z0-9_-]+",
    "an alias of a user starts with ua-, followed by letters, digits, - and _ (libvirt drops any other without a word)",
)
_DRIVER = text(r"[A-Za-z0-9_-]+", "it is the name of a kernel driver, like vfio-pci or mlx5_vfio_pci")
_PATH = text(r"/.+", "it is an absolute path", "path")


class _Alias(Attribute):
    """An alias of a user; libvirt's own (``hostdev0``, in the XML of a running domain) is none."""

    def read(self, element: _Element) -> Any:
        found = super().read(element)
        return found if found is not None and found.startswith(USER_ALIAS_PREFIX) else None


@dataclass(frozen=True)
class Hostdev:
    """What a ``<hostdev mode='subsystem' type='pci'>`` says. None: nothing is said."""

    source: PciAddress = bound(Address("source/address", None, always=True), required=True)
    managed: Optional[bool] = bound(Attribute("@managed", YES_NO, "managed", absent=False, argument={"default": True}))
    assigned: Optional[bool] = bound(Assigned("assigned", argument={"default": True}, since=(6, 0, 0)))
    guest_address: Optional[PciAddress] = bound(Address("address", "guest_address", kind="pci", filled=True))
    multifunction: Optional[bool] = bound(
        Attribute("address/@multifunction", ON_OFF, "guest_address.multifunction", kind="pci", filled=True)
    )
    driver_model: Optional[str] = bound(Attribute("driver/@model", _DRIVER, "driver_model", since=(10, 0, 0)))
    # virDomainDeviceBootParseXML: an unsigned integer from 1 on.
    boot_order: Optional[int] = bound(Attribute("boot/@order", whole_number(1, 0x7FFFFFFF), "boot_order"))
    rom_enabled: Optional[bool] = bound(Attribute("rom/@enabled", YES_NO, "rom.enabled", since=(4, 3, 0)))
    rom_bar: Optional[bool] = bound(Attribute("rom/@bar", ON_OFF, "rom.bar"))
    rom_file: Optional[str] = bound(Attribute("rom/@file", _PATH, "rom.file"))
    alias: Optional[str] = bound(_Alias("alias/@name", _ALIAS, "alias", since=(3, 9, 0)))
    # QEMU acpi_pcihp_device_pre_plug_cb: ONBOARD_INDEX_MAX; libvirt itself takes more and QEMU then does not start.
    acpi_index: Optional[int] = bound(Attribute("acpi/@index", whole_number(1, 16383), "acpi_index", since=(7, 3, 0)))
    # virZPCIDeviceAddressIsValid: a uid of 0 is no uid.
    zpci_uid: Optional[int] = bound(
        Attribute("address/zpci/@uid", hexadecimal(1, 0xFFFF), "zpci.uid", kind="pci", filled=True, since=(4, 10, 0))
    )
    zpci_fid: Optional[int] = bound(
        Attribute(
            "address/zpci/@fid", hexadecimal(0, 0xFFFFFFFF), "zpci.fid", kind="pci", filled=True, since=(4, 10, 0)
        )
    )

    def as_result(self) -> dict[str, Any]:
        """The hostdev in a module's result: what is said about it, by option name, addresses as lspci writes them."""
        result: dict[str, Any] = {"address": str(self.source), "guest_address": None}
        for name, binding in bindings(self):
            value = getattr(self, name)
            if value is None or binding.option is None:
                continue
            group, _unused, suboption = binding.option.partition(".")
            if group == "guest_address":
                result[name] = binding.shown(value)
            elif suboption:
                result.setdefault(group, {})[suboption] = binding.shown(value)
            else:
                result[group] = binding.shown(value)
        return result


GUEST_SIDE = (
    "guest_address",
    "multifunction",
    "boot_order",
    "rom_enabled",
    "rom_bar",
    "rom_file",
    "alias",
    "acpi_index",
    "zpci_uid",
    "zpci_fid",
)
"""The fields that speak of what the guest sees, and mean nothing for a device that the guest does not get."""


def option_of(field: str) -> str:
    """The option that sets a field: ``rom.file`` for ``rom_file``."""
    return next(binding.option or name for name, binding in bindings(Hostdev) if name == field)


def hostdev_options() -> dict[str, Any]:
    """The argument spec of one hostdev, without the selector of its device."""
    return argument_options(Hostdev)


def parse(element: _Element) -> Hostdev:
    """Read an element as libvirt reads it.

    :raises ValueError: when libvirt could not read it either
    """
    return read_element(Hostdev, element)


def emit(hostdev: Hostdev, element: _Element) -> None:
    """Make a ``<hostdev>`` element say exactly ``hostdev``. What it says beyond that description stays."""
    element.set("mode", "subsystem")
    element.set("type", "pci")
    write_element(hostdev, element)


def given(options: Mapping[str, Any], where: str) -> tuple[Hostdev, list[Problem]]:
    """What a person asked for, of a device not known yet (0000:00:00.0), and everything that is wrong with it."""
    values, problems = given_values(Hostdev, options, where)
    address = options.get("guest_address")
    if isinstance(address, Mapping):
        known = (*FIELDS, "multifunction")
        strange = sorted(str(name) for name in address if name not in known)
        if strange:
            problems.append(
                Problem(
                    "hostdev_value_invalid",
                    f"{where}: guest_address has no {', '.join(strange)}.",
                    f"It may have {', '.join(known)}.",
                    {"hostdev": where, "field": "guest_address", "value": dict(address)},
                )
            )
    return Hostdev(PciAddress(0, 0, 0, 0), **values), problems


def changed_to(wanted: Hostdev, present: Hostdev | None, *, exact: bool = False) -> Hostdev:
    """``present`` changed to what ``wanted`` says; for ``exact`` see :func:`element.combined`.

    A device that the guest no longer gets loses what only a guest sees, one whose ROM is switched off loses the ROM's
    other settings, and one that moves to another guest address loses what belonged to the old one.
    """
    result = combined(wanted, present, exact=exact)
    if present is None:
        return result
    if result.assigned is False:
        return replace(result, **{name: getattr(wanted, name) for name in GUEST_SIDE})
    if wanted.rom_enabled is False:
        result = replace(result, rom_bar=wanted.rom_bar, rom_file=wanted.rom_file)
    if wanted.multifunction is None and result.guest_address != present.guest_address:
        return replace(result, multifunction=None)
    return result


def unlike(wanted: Hostdev, present: Hostdev, *, exact: bool = False) -> list[str]:
    """The fields in which ``present`` is not as wanted, by meaning; empty when nothing has to be changed."""
    target = changed_to(wanted, present, exact=exact)
    return [name for name, _unused in bindings(target) if getattr(target, name) != getattr(present, name)]
