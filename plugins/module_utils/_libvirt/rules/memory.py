# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The memory that QEMU may lock, all of which VFIO needs locked."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context

GIBIBYTE = 1024**3


def hard_limit(context: Context) -> Iterator[Problem]:
    """A ``<hard_limit>`` leaves room for the guest's memory and 1 GiB, once for each device behind a guest's IOMMU.

    Source: libvirt ``qemuDomainGetMemLockLimitBytes``: with a hard limit, that is what QEMU may lock, whatever VFIO
    needs, and QEMU does not start (VFIO_MAP_DMA: Cannot allocate memory).
    """
    limit = context.definition.hard_limit
    given = [subject for subject in context.subjects if subject.hostdev.assigned is not False]
    asked = [subject for subject in given if subject.where is not None]
    if limit is None or not asked:
        return
    times = len(given) if context.definition.has_iommu and context.version and context.version >= (8, 7, 0) else 1
    needed = times * context.definition.memory + GIBIBYTE
    if limit < needed:
        why = f", {times} times because the guest has an IOMMU" if times > 1 else ""
        yield asked[0].problem(
            "hard_limit_too_low",
            f"the domain has a <hard_limit> of {limit // 1024} KiB, but a guest with such a device needs "
            f"{needed // 1024} KiB: its memory{why}, and 1 GiB.",
            "Raise it, or take <hard_limit> out of <memtune>: libvirt then allows what is needed.",
            hard_limit=limit,
            needed=needed,
        )
