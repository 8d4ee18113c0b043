# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI hostdevs put into the text of a domain's definition, by what can be known without a host and without libvirt."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._pci.address import PciAddress
from .._pci.device import Bus
from .._pci.selector import Selector
from .change import hostdev_text
from .definition import Definition
from .domain_hostdevs import Target, Wanted, with_multifunction
from .element import Version
from .hostdev import changed_to, given, unlike
from .rules.context import Context, Subject
from .rules.registry import WITHIN, broken
from .text import DomainText

_ANY_VERSION = (sys.maxsize, 0, 0)
"""No setting is newer than this."""


def inject_hostdevs(text: str, hostdevs: Sequence[Mapping[str, Any]], libvirt_version: str | None = None) -> str:
    """The definition with these hostdevs in it, as ``domain_hostdevs`` with ``state: present`` would have them.

    :param hostdevs: items as ``domain_hostdevs`` takes them, types and defaults already settled
    :param libvirt_version: of the host, for settings that an older libvirt does not know; None leaves that open
    :raises PassthroughError: with every problem of the definition or of the hostdevs
    """
    document = DomainText(text)
    definition = Definition(text)
    wanted, problems = _wanted(hostdevs)
    version = _ANY_VERSION
    if libvirt_version is not None:
        try:
            version = _version(libvirt_version)
        except PassthroughError as error:
            problems += error.problems
    targets = with_multifunction([_target(one, definition) for one in wanted], definition)
    asked = {target.source for target in targets}
    subjects = [Subject(one.value) for one in definition.hostdevs if one.source not in asked]
    subjects += [
        Subject(target.final, target.wanted.where, target.wanted.hostdev)
        for target in targets
        if target.final is not None and target.wanted is not None
    ]
    host = Host()  # the rules that look at it are not asked
    problems += broken(
        Context(
            subjects=sorted(subjects, key=lambda subject: subject.source),
            removed=frozenset(),
            definition=definition,
            others=(),
            version=version,
            host=host,
            bus=Bus(host),
        ),
        WITHIN,
    )
    if problems:
        raise PassthroughError.of(problems)
    places = [
        child for devices in definition.root.iterfind("devices") for child in devices if isinstance(child.tag, str)
    ]
    replaced = {}
    added = []
    for target in targets:
        if not target.changes or target.final is None:
            continue
        element = hostdev_text(target.final, target.present)
        if target.present is None:
            added.append(element)
        else:
            replaced[places.index(target.present.element)] = element
    return document.with_devices(replaced, added)


def _wanted(hostdevs: Sequence[Mapping[str, Any]]) -> tuple[list[Wanted], list[Problem]]:
    """The devices, each with what is asked of its hostdev, and everything that is wrong with them."""
    problems: list[Problem] = []
    found: dict[PciAddress, Wanted] = {}
    for number, item in enumerate(hostdevs):
        where = f"hostdevs[{number}]"
        settings, wrong = given(item, where)
        problems += wrong
        try:
            address = _address(item["device"], f"{where}.device")
        except PassthroughError as error:
            problems += error.problems
            continue
        if address in found:
            problems.append(
                Problem(
                    "selected_twice",
                    f"{where}: the device {address} is meant by {found[address].where} already.",
                    "Name each device once.",
                    {"device": str(address)},
                )
            )
            continue
        found[address] = Wanted(where, replace(settings, source=address))
    return list(found.values()), problems


def _address(value: Any, where: str) -> PciAddress:
    """The address that a selector is; the devices of a host are not known here.

    :raises PassthroughError: ``selector_needs_host``, or what is wrong with the selector
    """
    selector = Selector.parse(value, where)
    if selector.address is not None and selector == Selector(
        where, name=selector.name, address=selector.address, text=selector.text
    ):
        return selector.address
    what = "expect" if selector.address is not None and selector.expect else "a selector"
    raise PassthroughError(
        "selector_needs_host",
        f"{where}: {what} can only be compared with the devices of a host, and inject_hostdevs works on the "
        f"controller, which does not have them; this one asks for {selector.describe()}.",
        "Give the address alone (0000:01:10.0), or use the module kvm.passthrough.domain_hostdevs, which looks at "
        "the host.",
        selector=where,
    )


def _target(wanted: Wanted, definition: Definition) -> Target:
    present = definition.hostdev(wanted.hostdev.source)
    value = None if present is None else present.value
    changes = value is None or bool(unlike(wanted.hostdev, value))
    return Target(wanted.hostdev.source, present, changed_to(wanted.hostdev, value), changes, wanted)


def _version(text: str) -> Version:
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", str(text).strip())
    if match is None:
        raise PassthroughError(
            "version_invalid", f"libvirt_version {text!r} is no version like 9.0.0.", "Write it in quotes.", value=text
        )
    return int(match[1]), int(match[2]), int(match[3] or 0)
