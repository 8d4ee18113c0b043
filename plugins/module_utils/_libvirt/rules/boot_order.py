# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The place of a device in the boot order."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context, unique


def one_kind(context: Context) -> Iterator[Problem]:
    """An order per device and ``<os><boot dev=…/>`` exclude each other.

    Source: libvirt ``virDomainDefBootOrderPostParse``.
    """
    if not context.definition.boots_by_os_element:
        return
    for subject in context.requested:
        if subject.hostdev.boot_order is not None:
            yield subject.problem(
                "boot_order_conflict",
                f"boot_order {subject.hostdev.boot_order} is given, but the domain says what to boot from by "
                "<os><boot dev=…/>; libvirt takes one or the other.",
                "Replace <boot dev=…/> by a <boot order=…/> in the disk or interface it means (virsh edit).",
                "boot_order",
                subject.hostdev.boot_order,
            )


def one_each(context: Context) -> Iterator[Problem]:
    """No two devices have the same place.

    Source: libvirt ``virDomainDefValidateBootOrder``.
    """
    return unique(context, "boot_order", "boot_order_in_use", "Give each device a number of its own.")
