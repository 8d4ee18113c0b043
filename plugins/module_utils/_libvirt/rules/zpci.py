# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""uid and fid of PCI functions on IBM Z."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from ..._core.errors import Problem
from ..hostdev import INTERFACE
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


def complete(context: Context) -> Iterator[Problem]:
    """What libvirt makes up for one device is not what another one asks for.

    libvirt makes up what is missing one device after the other, the interfaces first, and then comes to those that
    have ids and refuses them (``virDomainDeviceInfoIterate``, ``virDomainZPCIAddressReserveAddr``). Devices that ask
    for more are written first (:mod:`.target`), which settles the rest.
    """
    if context.definition.arch != "s390x":
        return
    asked = sorted(context.requested, key=lambda one: (one.hostdev.kind != INTERFACE, one.hostdev.zpci_ids_missing))
    for (first, later), field in itertools.product(itertools.combinations(asked, 2), ("zpci_uid", "zpci_fid")):
        value = getattr(later.hostdev, field)
        if first.hostdev.assigned is not False and getattr(first.hostdev, field) is None and value is not None:
            name = f"zpci.{field[5:]}"
            yield first.problem(
                "zpci_incomplete",
                f"{name} is not given, but {later.label} asks for 0x{value:x}, which libvirt could make up for this "
                "one before it comes to that one.",
                f"Give {name} here too.",
                field,
            )
            return


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
