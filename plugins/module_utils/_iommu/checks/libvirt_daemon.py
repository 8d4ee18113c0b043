# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether libvirt's daemon may do what passthrough needs: how systemd confines it, and how qemu.conf confines guests.

Sources: libvirt src/util/virpci.c (``virPCIDeviceFindBestVFIOVariant`` reads modules.alias, since 10.0),
src/qemu/qemu_cgroup.c (``defaultDeviceACL``; the files of VFIO are added for each device, whatever the list says),
src/qemu/qemu_namespace.c (the list is what a guest's /dev has), src/security/security_dac.c
(``virSecurityDACSetHostdevLabel`` leaves owners alone without dynamic ownership), src/util/virprocess.c
(``virProcessSetMaxMemLock``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .. import qemu_conf
from ..daemons import Daemon, libvirt_daemons
from ..machine import Machine
from ..platform import Blocker
from ..qemu_conf import ConfSyntaxError, Value
from ..software import Version
from .base import Context, Section

QEMU_CONF = "/etc/libvirt/qemu.conf"
NEEDED_DEVICES = ("/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx", "/dev/kvm")
"""What every guest has when qemu.conf does not say otherwise."""

_SEARCHES_VARIANTS: tuple[int, ...] = (10, 0)
# libvirt lets a guest with VFIO devices lock its memory and this much more (qemuDomainGetMemLockLimitBytes).
_MEMLOCK_BESIDES_GUEST = 1 << 30
_ROOT = frozenset(("root", "0", "+0"))


def check_libvirt_daemon(context: Context) -> Section:
    """The units, the settings that matter, and what of them stands against passthrough."""
    daemons = libvirt_daemons(context.machine)
    settings = _settings(context.machine)
    found = []
    for daemon in daemons or ():
        found += _unit_blockers(daemon, context.versions.libvirt)
    # Distributions install both daemons side by side: as long as one of them can start guests, guests can have devices.
    if daemons and not all(_stops_guests(daemon) for daemon in daemons):
        found = [replace(blocker, severity="warning") for blocker in found]
    return Section(
        {
            "libvirt": {
                "daemons": None if daemons is None else [daemon.as_result() for daemon in daemons],
                "qemu_conf": settings,
            }
        },
        (*found, *_conf_blockers(settings)),
    )


def _settings(machine: Machine) -> dict[str, Any] | None:
    """The settings of qemu.conf that matter, None for each that is not set; None when there is no file to be read."""
    text = machine.read(QEMU_CONF)
    if text is None:
        return None
    try:
        values = qemu_conf.parse(text)
    except ConfSyntaxError:
        machine.unreadable.append(QEMU_CONF)
        return None
    owner = values.get("dynamic_ownership")
    return {
        "user": _text(values.get("user")),
        "dynamic_ownership": None if owner is None else owner == 1,
        "cgroup_device_acl": _texts(values.get("cgroup_device_acl")),
        "cgroup_controllers": _texts(values.get("cgroup_controllers")),
        "namespaces": _texts(values.get("namespaces")),
    }


def _text(value: Value | None) -> str | None:
    return None if value is None or isinstance(value, list) else str(value)


def _texts(value: Value | None) -> list[str] | None:
    return [str(item) for item in value] if isinstance(value, list) else None


def _stops_guests(daemon: Daemon) -> bool:
    """Whether no guest of a daemon can have a device."""
    return daemon.hides_devices or _memlock_is_short(daemon)


def _memlock_is_short(daemon: Daemon) -> bool:
    limit = daemon.memlock_limit
    return not daemon.may_raise_limits and limit is not None and limit <= _MEMLOCK_BESIDES_GUEST


def _unit_blockers(daemon: Daemon, libvirt: Version) -> list[Blocker]:
    found = []
    change = f"With systemctl edit {daemon.unit}, set"
    restart = f"then systemctl restart {daemon.unit}"
    if daemon.hides_devices:
        found.append(
            Blocker(
                "daemon_hides_devices",
                "error",
                f"The unit {daemon.unit} has PrivateDevices=yes: the daemon and its guests see neither /dev/vfio "
                "nor /dev/kvm.",
                f"{change} PrivateDevices=no below [Service], {restart}.",
            )
        )
    if daemon.hides_modules and (libvirt is None or libvirt >= _SEARCHES_VARIANTS):
        found.append(
            Blocker(
                "daemon_hides_modules",
                "warning",
                f"The unit {daemon.unit} has ProtectKernelModules=yes, which hides /lib/modules. Since libvirt 10.0 "
                "the daemon looks there for the driver of a device with managed='yes', and then starts no guest.",
                f"{change} ProtectKernelModules=no below [Service], {restart}; or bind the devices with "
                "kvm.passthrough.vfio_devices and use managed='no'.",
            )
        )
    if daemon.sysfs_is_read_only:
        found.append(
            Blocker(
                "daemon_cannot_bind",
                "warning",
                f"The unit {daemon.unit} has ProtectKernelTunables=yes, which makes /sys read-only for it: the daemon "
                "cannot bind a device with managed='yes' to VFIO.",
                f"{change} ProtectKernelTunables=no below [Service], {restart}; or bind the devices with "
                "kvm.passthrough.vfio_devices and use managed='no'.",
            )
        )
    if _memlock_is_short(daemon):
        found.append(
            Blocker(
                "daemon_cannot_raise_memlock",
                "error",
                f"The unit {daemon.unit} may lock {daemon.memlock_limit} bytes of memory and, without CAP_SYS_RESOURCE "
                "in its CapabilityBoundingSet, cannot allow its guests more. A guest with a VFIO device needs all its "
                "memory locked, and 1 GiB besides.",
                f"{change} CapabilityBoundingSet=CAP_SYS_RESOURCE (which adds it) or LimitMEMLOCK=infinity below "
                f"[Service], {restart}.",
            )
        )
    return found


def _conf_blockers(settings: dict[str, Any] | None) -> list[Blocker]:
    if settings is None:
        return []
    found = []
    listed = settings["cgroup_device_acl"]
    missing = [] if listed is None else [device for device in NEEDED_DEVICES if device not in listed]
    if missing and not _is_unused(settings):
        found.append(
            Blocker(
                "device_acl_incomplete",
                "warning",
                f"cgroup_device_acl in {QEMU_CONF} lacks {', '.join(missing)}. The list replaces libvirt's own, so "
                + (
                    "no guest can use KVM, let alone a device."
                    if "/dev/kvm" in missing
                    else "guests cannot open what it lacks."
                ),
                "Add what is missing, or comment the setting out; the files of VFIO need not be in it. Then restart "
                "the daemon.",
            )
        )
    if settings["dynamic_ownership"] is False and settings["user"] not in _ROOT:
        found.append(
            Blocker(
                "dynamic_ownership_off",
                "warning",
                f"dynamic_ownership is 0 in {QEMU_CONF}, so libvirt leaves /dev/vfio files to root, and QEMU, which "
                "does not run as root, cannot open them.",
                "Set dynamic_ownership = 1 and restart the daemon.",
            )
        )
    return found


def _is_unused(settings: dict[str, Any]) -> bool:
    """Whether neither the devices cgroup nor a /dev of their own keeps guests to the list."""
    controllers, namespaces = settings["cgroup_controllers"], settings["namespaces"]
    return controllers is not None and "devices" not in controllers and namespaces == []
