# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules, in the order in which their problems are reported."""

from __future__ import annotations

from collections.abc import Iterable

from ..._core.errors import Problem
from . import (
    boot_order,
    group,
    guest_address,
    guest_names,
    needed,
    other_domain,
    rom,
    source,
    unassigned,
    version,
    zpci,
)
from .context import Context, Rule

WITHIN: tuple[Rule, ...] = (
    # the element by itself
    version.known,
    unassigned.unassigned,
    rom.enabled,
    source.source_domain,
    # within the definition
    source.not_by_interface,
    guest_address.possible,
    guest_address.free,
    guest_address.multifunction,
    boot_order.one_kind,
    boot_order.one_each,
    guest_names.alias,
    guest_names.acpi_index,
    guest_names.acpi_index_arch,
    zpci.arch,
    zpci.uid,
    zpci.fid,
)
"""What needs the definition only, and no host."""

ON_HOST: tuple[Rule, ...] = (
    source.exists,
    source.endpoint,
    source.no_vfs,
    rom.file_exists,
    needed.host_can_spare,
    group.functions_declared,
    group.group_complete,
    group.unmanaged_is_bound,
    other_domain.not_in_another,
)
"""What needs the host that the domain is on."""

RULES = (*WITHIN, *ON_HOST)


def broken(context: Context, rules: Iterable[Rule] = RULES) -> list[Problem]:
    """Everything that is wrong with the definition as it would be."""
    return [problem for rule in rules for problem in rule(context)]
