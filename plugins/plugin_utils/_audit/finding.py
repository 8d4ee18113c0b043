# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One thing that is wrong on a host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

BLOCKER = "blocker"
"""It stands against passthrough on this host."""
CONFLICT = "conflict"
"""Two have what only one can have."""
DRIFT = "drift"
"""Something is not as it was set up, or as it is asked for."""
DEFINITION = "definition"
"""A domain or a pool that will not start, or not do what it says."""
KINDS = (BLOCKER, CONFLICT, DRIFT, DEFINITION)

ERROR = "error"
WARNING = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str
    severity: str
    code: str
    message: str
    remedy: str = ""
    where: str | None = None
    """The domain or network it is about."""
    devices: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**vars(self), "devices": list(self.devices)}


def device_moved(address: str, ids: str, found: str | None) -> Finding:
    """A device that was prepared for guests is not where it was; ``found`` is what is there now, if anything."""
    now = "nothing" if found is None else f"a device {found}"
    return Finding(
        DRIFT,
        WARNING,
        "device_moved",
        f"A device {ids} was prepared for guests at {address}, where {now} is now.",
        "Addresses move when hardware is added or removed: find it with kvm.passthrough.pci_device_info and name its "
        "new address. Virtual functions come back once they are enabled.",
        devices=(address,),
    )
