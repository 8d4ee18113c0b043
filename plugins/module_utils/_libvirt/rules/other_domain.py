# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device belongs to one domain."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context


def not_in_another(context: Context) -> Iterator[Problem]:
    """No other domain runs with the device or has it in its definition. libvirt looks when a domain is started.

    Source: libvirt ``virHostdevIsPCINodeDeviceUsed``.
    """
    for subject in context.requested:
        for other in context.others:
            if subject.source in other.live:
                yield subject.problem(
                    "in_use_by_domain",
                    f"the domain {other.name} is running with this device.",
                    f"Shut {other.name} down and remove the device from it, or choose another device.",
                    domain=other.name,
                )
            elif subject.source in other.config:
                yield subject.problem(
                    "device_in_other_domain",
                    f"the definition of the domain {other.name} has this device too; only one of the two could run.",
                    f"Remove it there first (state: absent with domain: {other.name}), or choose another device.",
                    domain=other.name,
                )
