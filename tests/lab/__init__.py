# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: whole KVM hosts with PCI devices and an IOMMU, emulated. See README.md."""

from __future__ import annotations

import os
import secrets

from .guest import PciFunction
from .machine import Machine, attach
from .run import LabError, step
from .snapshot import Snapshot
from .snapshot import start as _start

__all__ = ["LabError", "Machine", "PciFunction", "Snapshot", "attach", "start"]

MACHINES = ("intel",)
DEFAULT_LIMIT = 3600.0


def start(
    machine: str = "intel",
    *,
    snapshot: str = "fresh",
    boot: bool = False,
    name: str | None = None,
    limit: float = DEFAULT_LIMIT,
) -> Machine:
    """Start a machine that answers on ssh; use it in a ``with`` statement, which stops it.

    ``snapshot`` is ``fresh`` (``intel_iommu=off``) or ``iommu`` (on). With ``boot`` the
    machine boots from that snapshot's disk instead of continuing where it was saved.
    Whatever happens to the caller, it ends after ``limit`` seconds. What the cache lacks
    is built first, which takes minutes. Raises LabError.
    """
    if machine not in MACHINES:
        raise LabError(f"there is no machine '{machine}'; there is: {', '.join(MACHINES)}")
    try:
        wanted = Snapshot(snapshot)
    except ValueError:
        known = ", ".join(each.value for each in Snapshot)
        raise LabError(f"there is no snapshot '{snapshot}'; there is: {known}") from None
    unique = name or f"{machine}-{os.getpid()}-{secrets.token_hex(2)}"
    with step(f"starting '{unique}' from '{snapshot}'{' by booting it' if boot else ''}"):
        return _start(wanted, name=unique, limit=limit, boot=boot)
