# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device that a virtual machine expects to find bound to a VFIO driver."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Change, Guard, GuardContext, Reason, Severity


class InDomainDefinition(Guard):
    """Domains that are defined with the device, and do not start while the host has it.

    It is a warning: nothing that runs is hurt, and a device may well be released before the definition is changed.
    One that libvirt takes from the host by itself (``managed='yes'``) may go back to the host.
    """

    code = "in_domain_definition"
    forcible = False
    refuses = False
    changes = frozenset((Change.RELEASE,))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        for use in context.definitions.uses(device.address):
            if not use.managed:
                yield Reason(
                    f"The domain {use.domain} is defined with {device.address} and managed='no': it does not start "
                    "while no VFIO driver has the device.",
                    "Remove the device from the definition, or set managed='yes' there, unless it comes back before.",
                    Severity.WARNING,
                )
