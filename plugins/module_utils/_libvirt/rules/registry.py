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
    hotplug,
    interface,
    kind,
    memory,
    needed,
    other_domain,
    refused,
    rom,
    source,
    teaming,
    unassigned,
    version,
    zpci,
)
from .context import Context, Rule

WITHIN: tuple[Rule, ...] = (
    # the element by itself
    version.known,
    kind.fits,
    unassigned.unassigned,
    rom.enabled,
    source.source_domain,
    refused.startup_policy,
    refused.write_filtering,
    interface.vlan_of_a_vf,
    interface.virtualport,
    # within the definition
    source.once,
    guest_address.possible,
    guest_address.free,
    guest_address.multifunction,
    boot_order.one_kind,
    boot_order.one_each,
    guest_names.alias,
    guest_names.acpi_index,
    guest_names.acpi_index_arch,
    interface.mac_unique,
    teaming.peer_exists,
    teaming.same_mac,
    memory.hard_limit,
    zpci.arch,
    zpci.complete,
    zpci.uid,
    zpci.fid,
)
"""What needs the definition only, and no host."""

ON_HOST: tuple[Rule, ...] = (
    version.ibm_z,
    source.exists,
    source.endpoint,
    source.no_vfs,
    interface.virtual_function,
    interface.network_card,
    rom.file_exists,
    needed.host_can_spare,
    group.functions_declared,
    group.group_complete,
    group.unmanaged_is_bound,
    other_domain.not_in_another,
    # and the guest that runs there
    hotplug.function_0,
    hotplug.bus_takes_it,
    hotplug.ports_left,
    hotplug.whole_slot,
    hotplug.group_is_free,
)
"""What needs the host that the domain is on."""

RULES = (*WITHIN, *ON_HOST)


def broken(context: Context, rules: Iterable[Rule] = RULES) -> list[Problem]:
    """Everything that is wrong with the definition as it would be."""
    return [problem for rule in rules for problem in rule(context)]
