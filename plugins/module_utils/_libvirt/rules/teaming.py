# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device that a virtual network card of the guest stands in for."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context


def peer_exists(context: Context) -> Iterator[Problem]:
    """The other one of the team is an interface of the domain that stays (``<teaming type='persistent'/>``).

    Source: libvirt, "Domain XML format", teaming; QEMU ``failover_add_primary`` (hw/net/virtio-net.c) at start.
    libvirt does not look.
    """
    for subject in context.requested:
        peer = subject.hostdev.teaming_persistent
        if peer is None:
            continue
        found = [occupant for occupant in context.occupants if occupant.alias == peer]
        if not any(occupant.backs_up for occupant in found):
            what = "has no <teaming type='persistent'/>" if found else "does not exist in the domain"
            yield subject.problem(
                "teaming_peer_missing",
                f"teaming.persistent is {peer}, but an interface of this alias {what}.",
                f"Give the domain an interface of model virtio with <alias name='{peer}'/> and "
                "<teaming type='persistent'/>.",
                "teaming_persistent",
                peer,
            )


def same_mac(context: Context) -> Iterator[Problem]:
    """Both of a team have the same MAC address; the guest finds them by it.

    Source: kernel Documentation/networking/net_failover.rst.
    """
    for subject in context.requested:
        for occupant in context.occupants:
            ours, theirs = subject.hostdev.mac, occupant.mac
            if subject.hostdev.teaming_persistent is None or occupant.alias != subject.hostdev.teaming_persistent:
                continue
            if ours is not None and theirs is not None and ours != theirs:
                yield subject.problem(
                    "teaming_mac_differs",
                    f"mac is {ours}, but that of {occupant.alias}, with which it is teamed, is {theirs}.",
                    f"Give mac: {theirs}; a guest teams cards of one MAC address.",
                    "mac",
                    ours,
                )
