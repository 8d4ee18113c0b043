# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a hostdev, or only an interface, can have."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from ..element import bindings
from ..hostdev import INTERFACE, SAYS_NOTHING
from .context import Context


def fits(context: Context) -> Iterator[Problem]:
    """MAC address, VLAN and virtual port are an interface's, and only a hostdev can be withheld from the guest.

    Source: libvirt, "Domain XML format"; ``virDomainDeviceInfoFormat`` and ``qemuValidateDomainDeviceDefNetwork``
    ("address of type 'unassigned' is supported only for hostdevs").
    """
    for subject in context.requested:
        kind = subject.hostdev.kind
        for field, binding in bindings(subject.hostdev):
            value = getattr(subject.hostdev, field)
            if binding.only in ("", kind) or value in (None, SAYS_NOTHING.get(field)):
                continue
            there = f"has {binding.option or field}" if subject.asked is None else f"{binding.option or field} is given"
            yield subject.problem(
                "kind_conflict",
                f"{there}, but the kind is {kind}, which has none.",
                "An interface is always given to the guest: leave assigned out, or make it kind: hostdev."
                if kind == INTERFACE
                else f"Leave it out, or make it kind: {INTERFACE}.",
                field,
                binding.shown(value),
            )
