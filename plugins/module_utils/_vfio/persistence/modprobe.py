# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The settings of modprobe that keep devices from a host driver which comes before udev, and the options of vfio-pci.

A udev rule is processed when its device is. By then the host's driver may be there: from a list of modules that the
initramfs loads, or because udev loads it for another device of the same kind at the same moment; it then takes all
devices it knows at once. A driver that is registered looks at each device once, so what counts is that the device has
its ``driver_override`` before the module is loaded, whoever loads it. libkmod sees to that: it does the soft
dependencies of a module first, and for one that has an ``install`` line it runs the command. So the drivers that know
our devices depend on a module that does not exist, whose command sets the overrides. A soft dependency that fails is
passed over: the driver is loaded all the same, and the udev rule is what remains.

Where this does not help: a driver that is built into the kernel, and a device that appears when its driver is loaded
already. Then the rule takes the device away again.

Sources: modprobe.d(5); libkmod/libkmod-module.c ``kmod_module_probe_insert_module``, which udev's builtin ``kmod`` and
systemd-modules-load call, too; drivers/base/dd.c ``driver_attach``; libkmod-config.c, which reads modules.softdep
beside the other files in the order of their names; of several softdep lines for one module only the first counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ..._core.errors import PassthroughError
from ..._core.host import Host
from ..._iommu.modprobe import FOLDERS
from ..._pci.device import PciDevice
from ..._pci.modalias import ModuleAliases
from .images import MODULES, kernels
from .rules import PersistentDevice

MODPROBE_NAME = "kvm-passthrough.conf"
MODPROBE_PATH = f"/etc/modprobe.d/{MODPROBE_NAME}"
CLAIM = "kvm-passthrough-claim"

_HEADER = """\
# Written by kvm.passthrough.vfio_devices, which reads it, too: it replaces or removes the whole file.
"""
_CLAIM = """\
# Devices that go to guests get their driver_override before one of these drivers is loaded.
{softdeps}install {claim} k () {{ cd /sys/bus/pci/devices/$1 && [ ! -e driver ] && read o <driver_override && \
[ "$o" = "(null)" ] && read v <vendor && read d <device && read sv <subsystem_vendor && read sd <subsystem_device && \
[ $v:$d:$sv:$sd = $2 ] && echo $3 >driver_override; }} 2>/dev/null; {calls}true
"""
_CALL = "k {address} 0x{vendor:04x}:0x{device:04x}:0x{subsystem_vendor:04x}:0x{subsystem_device:04x} {driver}; "
_OPTIONS = re.compile(r"^options vfio-pci (.+)$", re.MULTILINE)


def render(devices: Iterable[PersistentDevice], options: Mapping[str, str], softdeps: Mapping[str, str]) -> str:
    """The file for these devices; empty where there is nothing to say.

    :param options: of vfio-pci, as :func:`parse_options` returns them
    :param softdeps: host driver -> what has to come before and after it by other settings (:func:`own_softdeps`)
    """
    text = ""
    if options:
        words = " ".join(f"{name}={value}" for name, value in sorted(options.items()))
        text += f"options vfio-pci {words}\n"
    kept = [device for device in sorted(devices) if device.host_drivers]
    if kept:
        drivers = sorted({driver for device in kept for driver in device.host_drivers})
        lines = "".join(
            f"softdep {driver} pre: {' '.join([CLAIM, softdeps.get(driver, '')]).strip()}\n" for driver in drivers
        )
        text += _CLAIM.format(
            softdeps=lines, claim=CLAIM, calls="".join(_CALL.format(**vars(device)) for device in kept)
        )
    return _HEADER + text if text else ""


def parse_options(text: str) -> dict[str, str]:
    """The options of vfio-pci in a file that :func:`render` made."""
    match = _OPTIONS.search(text)
    words = match[1].split() if match is not None else []
    return {name: value for name, _equals, value in (word.partition("=") for word in words)}


def own_softdeps(host: Host, drivers: Collection[str]) -> dict[str, str]:
    """What other settings say of modules, which a line of ours in front of them would hide: ``realtek post: …``.

    What the installed kernels say is put together, and what an administrator says is added.
    """
    texts = []
    seen = {MODPROBE_NAME}
    for folder in FOLDERS:
        for name in host.list_dir(folder):
            if name.endswith(".conf") and name not in seen:
                seen.add(name)
                texts.append(_text(host, f"{folder}/{name}"))
    texts += [_text(host, f"{MODULES}/{version}/modules.softdep") for version in kernels(host)]
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for line in "\n".join(texts).replace("\\\n", "").splitlines():
        words = line.split()
        if words[:1] != ["softdep"] or len(words) < 3:
            continue
        place: dict[str, list[str]] = {}
        for word in words[2:]:
            if word in ("pre:", "post:"):
                place = before if word == "pre:" else after
            elif word not in place.setdefault(words[1].replace("-", "_"), []):
                place[words[1].replace("-", "_")].append(word)
    found = {}
    for driver in drivers:
        words = before.get(driver.replace("-", "_"), [])
        behind = after.get(driver.replace("-", "_"), [])
        if words or behind:
            found[driver] = " ".join([*words, *(["post:", *behind] if behind else [])])
    return found


class HostDrivers:
    """Which modules of the host would take a device, in whichever of the installed kernels."""

    def __init__(self, host: Host) -> None:
        self._aliases = [ModuleAliases(host, version) for version in kernels(host)]

    def of(self, device: PciDevice) -> tuple[str, ...]:
        """The modules that are made for a device, sorted."""
        found = {module for aliases in self._aliases for module in aliases.modules(device.modalias) or ()}
        return tuple(sorted(found))


def _text(host: Host, path: str) -> str:
    try:
        return host.read_text(path)
    except PassthroughError:
        return ""
