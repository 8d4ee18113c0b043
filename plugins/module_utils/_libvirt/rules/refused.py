# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt has for host devices, but not for PCI devices."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context


def startup_policy(context: Context) -> Iterator[Problem]:
    """``startupPolicy`` is for USB devices.

    Source: libvirt ``virDomainHostdevDefParseXMLSubsys`` ("Setting startupPolicy is only allowed for USB devices").
    """
    return _refused(
        context, "startup_policy", "startup_policy_unsupported", "startupPolicy", "libvirt has it for USB devices only"
    )


def write_filtering(context: Context) -> Iterator[Problem]:
    """``writeFiltering`` is for Xen.

    Source: libvirt ``qemuValidateDomainDeviceDefHostdev`` ("Write filtering of PCI device configuration space is not
    supported by qemu").
    """
    return _refused(
        context, "write_filtering", "write_filtering_unsupported", "writeFiltering", "libvirt has it for Xen only"
    )


def _refused(context: Context, field: str, code: str, attribute: str, why: str) -> Iterator[Problem]:
    for subject in context.requested:
        value = getattr(subject.hostdev, field)
        if value is not None:
            yield subject.problem(
                code,
                f"the source has {attribute}={value!r}, but {why}.",
                f"Take {attribute} out of the element; state: exact does that.",
                field,
                value,
            )
