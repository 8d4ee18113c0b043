# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The default domain: how the devices that the host itself uses are translated.

VFIO replaces it by a domain of its own, so that it never decides whether passthrough works.
Source: ``iommu_subsys_init()`` in drivers/iommu/iommu.c.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from . import parameters, x86
from .groups import Group
from .machine import Machine

DMA, DMA_FQ, IDENTITY = "DMA", "DMA-FQ", "identity"
"""The kernel's names (Documentation/ABI/testing/sysfs-kernel-iommu_groups): translated with each mapping taken back at
once, translated with mappings taken back later in batches, not translated."""


def default_domain(machine: Machine, groups: Iterable[Group]) -> str | None:
    """The type of the default domain of most groups; without groups that show it, what the kernel would choose.

    Drivers and untrusted devices may ask for another type, so what groups show comes before any reasoning.

    :return: :data:`DMA`, :data:`DMA_FQ`, :data:`IDENTITY`, or None when neither groups, parameters nor the kernel's
        configuration tell
    """
    shown = Counter(group.type for group in groups if group.type in (DMA, DMA_FQ, IDENTITY))
    if shown:
        return shown.most_common(1)[0][0]
    config = machine.kernel_config
    identity = parameters.identity(machine.command_line, machine.architecture in x86.ARCHITECTURES).on
    if identity is None and config is not None:
        identity = config.get("CONFIG_IOMMU_DEFAULT_PASSTHROUGH") == "y"
    if identity is None:
        return None
    if identity:
        return IDENTITY
    strict = parameters.strict(machine.command_line).on
    if strict is None and config is not None:
        strict = config.get("CONFIG_IOMMU_DEFAULT_DMA_STRICT") == "y"
    return None if strict is None else DMA if strict else DMA_FQ
