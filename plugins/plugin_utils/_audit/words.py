# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the page calls things."""

from __future__ import annotations

VERDICTS = {
    "blocked": ("Blocked", "No guest can have a device of this host as it is."),
    "attention": ("Needs attention", "Passthrough is possible, and something is wrong."),
    "unknown": ("Not known", "The host could not be looked at."),
    "ready": ("Ready", "Nothing stands against passthrough, and nothing is wrong."),
}

STATUSES = {
    "audited": "Audited",
    "partial": "Audited in part",
    "unreachable": "Unreachable",
    "failed": "Failed",
    "not_audited": "Not audited",
}

GROUP_STATES = {
    "in_use": ("In use by a guest", "a guest that runs has a device of it"),
    "assigned": ("Assigned to a guest", "the definition of a guest has a device of it"),
    "pool": ("In a pool", "a network gives it to guests"),
    "bound": ("Bound to VFIO", "kept for guests, and none has it"),
    "free": ("Could be given", "nothing stands against giving it to a guest"),
    "kept": ("Stays with the host", "something stands against giving it to a guest"),
    "unknown": ("Not known", "not everything could be looked at"),
    "infrastructure": ("Part of the machine", "bridges, memory controllers and the like"),
}

IOMMU_STATES = {
    "active": "active",
    "disabled_by_parameter": "off by parameter",
    "disabled_by_default": "off by default",
    "disabled_in_firmware": "off in firmware",
    "unsupported": "not in this kernel",
    "unknown": "not known",
}

FINDING_KINDS = {
    "blocker": "What stands against passthrough",
    "conflict": "Conflicts",
    "drift": "Drift",
    "definition": "Definitions that do not hold",
}

SEVERITIES = {"error": "Error", "warning": "Warning"}

DEVICE_KINDS = {
    "network": "Network",
    "storage": "Storage",
    "display": "Graphics",
    "audio": "Audio",
    "usb": "USB",
    "bus": "Serial bus",
    "bridge": "Bridge",
    "accelerator": "Accelerator",
    "other": "Device",
}


def count(number: int, one: str, many: str | None = None) -> str:
    """``1 host``, ``2 hosts``."""
    return f"{number} {one if number == 1 else many or one + 's'}"
