# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All guards, and the one question they answer together. A new guard is a file beside this one and a line here."""

from __future__ import annotations

from ..._pci.device import PciDevice
from ..evidence import EvidenceMissing
from .base import Change, Finding, Guard, GuardContext
from .boot_disk import BootDisk
from .bridge import Bridge
from .console_display import ConsoleDisplay
from .display_in_use import DisplayInUse
from .has_vfs import HasVfs
from .in_domain_definition import InDomainDefinition
from .in_use_by_domain import InUseByDomain
from .management_network import ManagementNetwork
from .no_interrupt_remapping import NoInterruptRemapping
from .no_iommu import NoIommu
from .no_reset import NoReset
from .reserved_region import ReservedRegion
from .system_device import SystemDevice
from .usb_in_use import UsbInUse

GUARDS: tuple[Guard, ...] = (
    Bridge(),
    NoIommu(),
    NoInterruptRemapping(),
    ReservedRegion(),
    SystemDevice(),
    BootDisk(),
    ManagementNetwork(),
    ConsoleDisplay(),
    DisplayInUse(),
    UsbInUse(),
    InUseByDomain(),
    InDomainDefinition(),
    HasVfs(),
    NoReset(),
)

FORCIBLE_CODES: tuple[str, ...] = tuple(sorted(guard.code for guard in GUARDS if guard.forcible and guard.refuses))
"""What ``force`` accepts."""


def check_device(device: PciDevice, context: GuardContext, change: Change = Change.BIND) -> list[Finding]:
    """Everything the guards find about a change of a device, in the order of :data:`GUARDS`.

    A guard whose evidence cannot be read makes an error that is not ``certain``: a module refuses then just the
    same, a report says that it does not know.
    """
    key = (device.address, change)
    if key not in context.findings:
        context.findings[key] = _ask_guards(device, context, change)
    return list(context.findings[key])


def _ask_guards(device: PciDevice, context: GuardContext, change: Change) -> list[Finding]:
    found = []
    for guard in GUARDS:
        if change not in guard.changes:
            continue
        address = str(device.address)
        try:
            for reason in guard.reasons(device, context):
                found.append(
                    Finding(
                        guard.code,
                        address,
                        reason.message,
                        reason.remedy,
                        guard.forcible,
                        reason.severity,
                        reason.certain,
                    )
                )
        except EvidenceMissing as error:
            found.append(
                Finding(
                    guard.code,
                    address,
                    f"Whether {guard.code} stands against {address} cannot be known: {error}.",
                    "Run on the host itself, as root (become: true), with what is missing installed.",
                    guard.forcible,
                    certain=False,
                )
            )
    return found
