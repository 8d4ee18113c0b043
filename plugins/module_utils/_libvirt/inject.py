# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI hostdevs put into the text of a domain's definition, by what can be known without a host and without libvirt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._pci.address import PciAddress
from .._pci.device import Bus
from .._pci.grammar import parse_selector
from .._pci.selector import Selector
from .definition import Definition
from .document import spliced
from .element import Version
from .hostdev import given
from .rules.context import Context
from .rules.registry import WITHIN, broken
from .target import PRESENT, Wanted, subjects_of, targets_of
from .text import DomainText


def inject_hostdevs(text: str, hostdevs: Sequence[Mapping[str, Any]], libvirt_version: str | None = None) -> str:
    """The definition with these hostdevs in it, as ``domain_hostdevs`` with ``state: present`` would have them.

    :param hostdevs: items as ``domain_hostdevs`` takes them, types and defaults already settled
    :param libvirt_version: of the host, for settings that an older libvirt does not know; None leaves that open
    :raises PassthroughError: with every problem of the definition or of the hostdevs
    """
    DomainText(text)  # refuses what is too large or too deep before anything else reads it
    definition = Definition(text)
    wanted, problems = _wanted(hostdevs)
    version = None
    if libvirt_version is not None:
        try:
            version = _version(libvirt_version)
        except PassthroughError as error:
            problems += error.problems
    targets = targets_of(definition, wanted, PRESENT)
    host = Host()  # the rules that look at it are not asked
    problems += broken(
        Context(
            subjects=subjects_of(targets),
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
    changed = {target.source: target for target in targets if target.changes}
    asked = [changed[one.hostdev.source] for one in wanted if one.hostdev.source in changed]
    return spliced(text, {target.source: target.text for target in sorted(asked, key=lambda one: one.rank)})


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
    selector = parse_selector(value, where)
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


def _version(text: str) -> Version:
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?", str(text).strip())
    if match is None:
        raise PassthroughError(
            "version_invalid", f"libvirt_version {text!r} is no version like 9.0.0.", "Write it in quotes.", value=text
        )
    return int(match[1]), int(match[2]), int(match[3] or 0)
