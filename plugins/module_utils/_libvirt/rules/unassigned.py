# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device that the guest does not get has nothing that a guest would see."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from ..hostdev import GUEST_SIDE, option_of
from .context import Context


def unassigned(context: Context) -> Iterator[Problem]:
    """``assigned: false`` excludes a guest address, an alias, a place in the boot order, and the like.

    Source: the RFC of 2019 that introduced it ("forbid a hostdev … to have an alias and to have a guest address");
    libvirt ``qemuValidateDomainDeviceInfo`` for the ACPI index. libvirt ignores most of the others in silence.
    """
    for subject in context.requested:
        if subject.hostdev.assigned is not False:
            continue
        for field in GUEST_SIDE:
            value = getattr(subject.hostdev, field)
            if value is not None:
                yield subject.problem(
                    "unassigned_conflict",
                    f"{option_of(field)} is given, but with assigned: false the guest does not get the device.",
                    f"Leave {option_of(field)} out, or set assigned: true.",
                    field,
                    str(value) if field == "guest_address" else value,
                )
