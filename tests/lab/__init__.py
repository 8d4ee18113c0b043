# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: KVM hosts with PCI devices and an IOMMU, emulated. See README.md."""

from __future__ import annotations

import os
import secrets

from . import small
from .guest import PciFunction
from .machine import Machine, attach
from .run import LabError, step
from .snapshot import Snapshot
from .snapshot import build as _build
from .snapshot import start as _start

__all__ = ["MACHINES", "LabError", "Machine", "PciFunction", "Snapshot", "attach", "build", "start"]

LARGE = "intel"
"""The machine that is a complete host on a disk, saved as snapshots."""
MACHINES = (LARGE, *small.MACHINES)
DEFAULT_LIMIT = 3600.0


def start(
    machine: str = LARGE,
    *,
    snapshot: str | None = None,
    boot: bool = False,
    name: str | None = None,
    limit: float = DEFAULT_LIMIT,
) -> Machine:
    """Start a machine that answers on ssh; use it in a ``with`` statement, which stops it.

    Of the large machine ``snapshot`` is ``fresh`` (``intel_iommu=off``, the default) or
    ``iommu`` (on), and with ``boot`` it boots from that snapshot's disk instead of
    continuing where it was saved; a small one has no snapshots and always boots. Whatever
    happens to the caller, it ends after ``limit`` seconds. What the cache lacks is built
    first, which takes minutes. Raises LabError.
    """
    if machine not in MACHINES:
        raise LabError(f"there is no machine '{machine}'; there is: {', '.join(MACHINES)}")
    unique = name or f"{machine}-{os.getpid()}-{secrets.token_hex(2)}"
    if machine in small.MACHINES:
        if snapshot is not None:
            raise LabError(f"the machine '{machine}' has no snapshots; '{LARGE}' has")
        # Built before, so that the time shown is the machine's own.
        small.build(machine)
        with step(f"booting '{unique}'"):
            return small.start(machine, name=unique, limit=limit)
    try:
        wanted = Snapshot(snapshot or Snapshot.FRESH)
    except ValueError:
        known = ", ".join(each.value for each in Snapshot)
        raise LabError(f"there is no snapshot '{snapshot}'; there is: {known}") from None
    with step(f"starting '{unique}' from '{wanted.value}'{' by booting it' if boot else ''}"):
        return _start(wanted, name=unique, limit=limit, boot=boot)


def build(machine: str) -> None:
    """Fill the cache with what starting this machine needs. Raises LabError."""
    if machine in small.MACHINES:
        small.build(machine)
    else:
        for each in Snapshot:
            _build(each)
