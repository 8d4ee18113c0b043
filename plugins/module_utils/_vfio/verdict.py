# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands against giving a device to a guest, and whether that leaves it assignable."""

from __future__ import annotations

from collections.abc import Iterable

from .._pci.device import PciDevice
from .group import mates_to_take
from .guards.base import Change, Finding, GuardContext
from .guards.registry import check_device


def obstacles(device: PciDevice, context: GuardContext) -> list[Finding]:
    """What the guards find about a device and about the group mates that would be taken from the host with it.

    These are the findings on which the module vfio_devices acts with ``group: include``. Mates that may stay where they
    are (bridges, and what VFIO or pci-stub has) are no obstacle; the device itself being a bridge is one.
    """
    findings = check_device(device, context, Change.towards_guest(device))
    for mate in mates_to_take(device, context.bus):
        findings += check_device(mate, context, Change.towards_guest(mate))
    return findings


def is_assignable(findings: Iterable[Finding]) -> bool | None:
    """Whether a device with these :func:`obstacles` can be given to a guest; None when that is not known.

    It is not known when evidence could not be read, or when it shows only once the device is bound.
    """
    found = list(findings)
    if any(finding.refuses and finding.certain for finding in found):
        return False
    return True if all(finding.certain for finding in found) else None
