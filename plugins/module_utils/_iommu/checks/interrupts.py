# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Interrupt remapping, without which a guest could send interrupts to the host."""

from __future__ import annotations

from ..platform import Assessment, Blocker, State
from ..vfio import unsafe_interrupts_allowed
from .base import Context, Section


def check_interrupt_remapping(context: Context) -> Section:
    """Whether interrupts are remapped, and whether VFIO was told to do without."""
    remapping = context.assessment.remapping
    unsafe = unsafe_interrupts_allowed(context.machine, context.modprobe)
    return Section(
        {
            "interrupt_remapping": {
                "supported": remapping.supported,
                "enabled": remapping.enabled,
                "evidence": list(remapping.evidence),
                "allow_unsafe_interrupts": unsafe,
            }
        },
        _blockers(context.assessment, unsafe),
    )


def _blockers(assessment: Assessment, unsafe: bool) -> tuple[Blocker, ...]:
    if assessment.state is not State.ACTIVE or assessment.remapping.enabled is not False:
        return ()
    why = "; ".join(assessment.remapping.evidence)
    if unsafe:
        return (
            Blocker(
                "unsafe_interrupts",
                "warning",
                f"Interrupt remapping is off ({why}), and VFIO was told to do without: "
                "a guest can send interrupts to the host and to other guests.",
                "Switch interrupt remapping on in firmware or kernel, and remove allow_unsafe_interrupts.",
            ),
        )
    return (
        Blocker(
            "no_interrupt_remapping",
            "error",
            f"Interrupt remapping is off ({why}). VFIO refuses devices without it, since a guest could send "
            "interrupts to the host.",
            assessment.remapping.remedy,
        ),
    )
