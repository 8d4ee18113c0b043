# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: KVM hosts with PCI devices and an IOMMU, emulated. See docs/lab_from_inside.md."""

from __future__ import annotations

import os
import secrets

from . import boot as boot_machines
from . import intel, small
from .guest import PciFunction
from .large import LargeMachine
from .machine import Machine, attach
from .run import LabError, step

__all__ = ["DEFAULT", "LARGE", "MACHINES", "LabError", "Machine", "PciFunction", "attach", "build", "start"]

LARGE: dict[str, LargeMachine] = {intel.MACHINE.name: intel.MACHINE, **boot_machines.MACHINES}
"""The machines that are complete hosts on a disk, saved as snapshots."""
MACHINES = (*LARGE, *small.MACHINES)
DEFAULT = intel.MACHINE.name
DEFAULT_LIMIT = 3600.0


def start(
    machine: str = DEFAULT,
    *,
    snapshot: str | None = None,
    boot: bool = False,
    name: str | None = None,
    limit: float = DEFAULT_LIMIT,
) -> Machine:
    """Start a machine that answers on ssh; use it in a ``with`` statement, which stops it.

    Of a large machine ``snapshot`` is one of its states (by default the first, ``fresh``),
    and with ``boot`` it boots from that snapshot's disk instead of continuing where it was
    saved; a small one has no snapshots and always boots. Whatever happens to the caller,
    it ends after ``limit`` seconds. What the cache lacks is built first, which takes
    minutes. Raises LabError.
    """
    if machine not in MACHINES:
        raise LabError(f"there is no machine '{machine}'; there is: {', '.join(MACHINES)}")
    unique = name or f"{machine}-{os.getpid()}-{secrets.token_hex(2)}"
    if machine in small.MACHINES:
        if snapshot is not None:
            raise LabError(
                f"the machine '{machine}' has no snapshots; the machines with snapshots are {', '.join(LARGE)}"
            )
        # Built before, so that the time shown is the machine's own.
        small.build(machine)
        with step(f"booting '{unique}'"):
            return small.start(machine, name=unique, limit=limit)
    large = LARGE[machine]
    state = large.state(snapshot)
    with step(f"starting '{unique}' from '{state.name}'{' by booting it' if boot else ''}"):
        return large.start(state, name=unique, limit=limit, boot=boot)


def build(machine: str) -> None:
    """Fill the cache with what starting this machine needs. Raises LabError."""
    if machine in small.MACHINES:
        small.build(machine)
    else:
        LARGE[machine].build()
