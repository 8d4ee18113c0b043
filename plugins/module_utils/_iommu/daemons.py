# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How systemd confines the libvirt daemons that start guests, whether they run now or when somebody asks for them.

Sources: systemd.exec(5), systemctl(1) ``show``; capabilities(7) (CAP_SYS_RESOURCE), setrlimit(2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._core.errors import PassthroughError
from .machine import Machine

UNITS = ("virtqemud.service", "libvirtd.service")
# sd_booted(3): this folder is there exactly when systemd runs the host.
SYSTEMD_RUNS = "/run/systemd/system"

_PROPERTIES = (
    "Id",
    "LoadState",
    "CapabilityBoundingSet",
    "LimitMEMLOCK",
    "PrivateDevices",
    "ProtectKernelModules",
    "ProtectKernelTunables",
)
_TIMEOUT = 15.0
_INFINITY = ("infinity", str(2**64 - 1))


@dataclass(frozen=True)
class Daemon:
    """One unit. What systemd does not tell (an older one has no such property) is False, or None.

    ``memlock_limit`` is in bytes, None for no limit.
    """

    unit: str
    hides_modules: bool
    hides_devices: bool
    sysfs_is_read_only: bool
    may_raise_limits: bool
    memlock_limit: int | None

    def as_result(self) -> dict[str, Any]:
        """The unit as JSON values."""
        return {
            "unit": self.unit,
            "hides_modules": self.hides_modules,
            "hides_devices": self.hides_devices,
            "sysfs_is_read_only": self.sysfs_is_read_only,
            "may_raise_limits": self.may_raise_limits,
            "memlock_limit": self.memlock_limit,
        }


def libvirt_daemons(machine: Machine) -> list[Daemon] | None:
    """The libvirt daemons that are installed as units; None where systemd does not run the host or does not answer."""
    if not machine.host.is_dir(SYSTEMD_RUNS):
        return None
    arguments = [word for name in _PROPERTIES for word in ("-p", name)]
    try:
        done = machine.host.run(["systemctl", "show", *arguments, *UNITS], timeout=_TIMEOUT)
    except PassthroughError:
        return None
    units = [_properties(block) for block in done.stdout.split("\n\n")]
    return [_daemon(unit) for unit in units if unit.get("LoadState") == "loaded" and unit.get("Id") in UNITS]


def _properties(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines())
    return {name: value for name, separator, value in pairs if separator}


def _daemon(unit: dict[str, str]) -> Daemon:
    limit = unit.get("LimitMEMLOCK", "")
    capabilities = unit.get("CapabilityBoundingSet")
    return Daemon(
        unit=unit["Id"],
        hides_modules=unit.get("ProtectKernelModules") == "yes",
        hides_devices=unit.get("PrivateDevices") == "yes",
        sysfs_is_read_only=unit.get("ProtectKernelTunables") == "yes",
        may_raise_limits=capabilities is None or "cap_sys_resource" in capabilities.lower().split(),
        memlock_limit=int(limit) if limit.isdecimal() and limit not in _INFINITY else None,
    )
