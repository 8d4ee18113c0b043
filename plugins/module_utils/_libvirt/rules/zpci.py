# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""uid and fid of PCI functions on IBM Z."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context, unique


def arch(context: Context) -> Iterator[Problem]:
    """Only s390x guests have them.

    Source: libvirt ``qemuValidateDomainDeviceDefZPCIAddress`` ("This QEMU binary doesn't support zPCI").
    """
    kind = context.definition.arch
    if kind == "s390x":
        return
    for subject in context.requested:
        for field in ("zpci_uid", "zpci_fid"):
            value = getattr(subject.hostdev, field)
            if value is not None:
                yield subject.problem(
                    "zpci_unsupported",
                    f"zpci.{field[5:]} 0x{value:x} is given, but the guest is {kind or 'of no known architecture'}; "
                    "only s390x guests have zPCI ids.",
                    "Leave zpci out.",
                    field,
                    f"0x{value:x}",
                )


def uid(context: Context) -> Iterator[Problem]:
    """Source: libvirt ``virDomainZPCIAddressReserveUid``."""
    return unique(
        context, "zpci_uid", "zpci_uid_in_use", "Give each device a uid of its own, or leave it to libvirt.", hex
    )


def fid(context: Context) -> Iterator[Problem]:
    """Source: libvirt ``virDomainZPCIAddressReserveFid``."""
    return unique(
        context, "zpci_fid", "zpci_fid_in_use", "Give each device a fid of its own, or leave it to libvirt.", hex
    )
