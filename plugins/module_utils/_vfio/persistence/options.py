# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of the module vfio-pci: what may be asked for, and what the running kernel makes of it.

Since Linux 5.15 (``vfio_pci_core_set_params``) most options are looked at once, when the module is loaded. sysfs lets
``disable_idle_d3`` and ``nointxmask`` be written all the same, with no effect, so that is not done here.

Sources: drivers/vfio/pci/vfio_pci.c (``module_param``, ``vfio_pci_init``, ``vfio_pci_fill_ids``).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..._core.errors import PassthroughError, Problem
from ..._core.host import Host
from ..._core.plan import Action
from ..._pci.address import PciAddress
from ..._pci.device import DEVICES, DRIVERS, Bus, PciDevice

DRIVER = "vfio-pci"
SWITCHES = ("disable_denylist", "disable_idle_d3", "disable_vga", "enable_sriov", "nointxmask")

_MODULE = "/sys/module/vfio_pci"
_MODPROBE_TIMEOUT = 60.0
_WRITE_TIMEOUT = 10.0
_ALWAYS_WRITABLE = ("enable_sriov",)
_ONCE_WRITABLE = ("disable_idle_d3", "nointxmask")
_SPLIT = (5, 15)
_WHY = "whose options are read once"
_ID = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})(?::([0-9a-f]{4}):([0-9a-f]{4}))?", re.IGNORECASE)


def from_params(params: Mapping[str, Any] | None) -> dict[str, str] | None:
    """The option ``options`` of the module as modprobe takes it; None when it says nothing, empty for no options.

    :raises PassthroughError: ``ids_invalid``, one problem for each
    """
    if params is None:
        return None
    found = {name: "Y" if params[name] else "N" for name in SWITCHES if params.get(name) is not None}
    ids = [str(text).strip().lower() for text in params.get("ids") or ()]
    problems = [
        Problem(
            "ids_invalid",
            f"options.ids: {text!r} is no id.",
            "Write vendor and device, and the subsystem's if you like, in hexadecimal: 10de:2484, 8086:1572:8086:0007.",
            {"field": "options.ids", "value": text},
        )
        for text in ids
        if not _ID.fullmatch(text)
    ]
    if problems:
        raise PassthroughError.of(problems)
    if ids:
        found["ids"] = ",".join(dict.fromkeys(ids))
    return found


def unlisted_twins(options: Mapping[str, str], bus: Bus, kept: Collection[PciAddress]) -> list[Problem]:
    """The devices of the host that ``ids`` would take from it, though nobody asked for them."""
    problems = []
    for text in filter(None, options.get("ids", "").split(",")):
        for device in bus.devices():
            if _has_id(device, text) and device.address not in kept:
                problems.append(
                    Problem(
                        "ids_catch_unlisted",
                        f"options.ids: vfio-pci would take {device.address}, too, at the next boot: it has the ids "
                        f"{text}, and is not listed.",
                        "List that device as well, add the subsystem's ids where they differ, or leave ids out: the "
                        "devices of this run are bound without, each by its address.",
                        {"device": str(device.address), "ids": text},
                    )
                )
    return problems


def _has_id(device: PciDevice, text: str) -> bool:
    match = _ID.fullmatch(text)
    if match is None:  # a file that was edited by hand
        return False
    own = (device.vendor_id, device.device_id, device.subsystem_vendor_id, device.subsystem_device_id)
    return all(part is None or int(part, 16) == number for part, number in zip(match.groups(), own))


@dataclass(frozen=True)
class LoadedOptions:
    """The module as it is in the running kernel."""

    loaded: bool
    built_in: bool
    values: Mapping[str, str]
    """Switch -> ``Y`` or ``N``, as far as the kernel shows them."""
    writable: tuple[str, ...]
    """The switches that may be changed while the module is loaded."""
    bound: tuple[str, ...]
    """The devices that would lose their driver with the module."""
    in_use: bool

    @classmethod
    def observe(cls, host: Host) -> LoadedOptions:
        """Look at the module."""
        loaded = host.is_dir(_MODULE)
        shown = {name: host.attribute(f"{_MODULE}/parameters/{name}") for name in SWITCHES}
        values = {name: value for name, value in shown.items() if value is not None}
        writable = _ALWAYS_WRITABLE if _is_split(host) else (*_ALWAYS_WRITABLE, *_ONCE_WRITABLE)
        bound = tuple(name for name in host.list_dir(f"{DRIVERS}/{DRIVER}") if host.exists(f"{DEVICES}/{name}"))
        # Only what was loaded has a state of loading (kernel/module/sysfs.c).
        built_in = loaded and not host.exists(f"{_MODULE}/initstate")
        return cls(
            loaded, built_in, values, writable, bound, (host.attribute(f"{_MODULE}/refcnt") or "0") not in ("0", "-1")
        )

    def differing(self, options: Mapping[str, str]) -> list[str]:
        """The switches that the running kernel has otherwise, or does not have."""
        if not self.loaded:
            return []
        return [name for name in SWITCHES if name in options and self.values.get(name) != options[name]]

    def first(self, options: Mapping[str, str]) -> list[Action]:
        """What makes the running kernel have these options before devices are bound, as far as it does no harm."""
        differing = self.differing(options)
        if all(name in self.writable and name in self.values for name in differing):
            return [SetOption(name, self.values[name], options[name]) for name in differing]
        if self.built_in or self.in_use or self.bound:
            return []
        return [ReloadModule(load=True)]

    def last(self, options: Mapping[str, str], former: Mapping[str, str], leaving: Collection[str]) -> list[Action]:
        """What makes the running kernel forget options when nobody needs the driver any more.

        :param former: the options that a file of ours asked for until now
        :param leaving: the devices that are given back
        """
        stale = [name for name in SWITCHES if name in former and name not in options and self.values.get(name) == "Y"]
        if all(name in self.writable for name in stale):
            return [SetOption(name, "Y", "N") for name in stale]
        if options or self.built_in or self.in_use or not set(self.bound) <= set(leaving):
            return []
        return [ReloadModule(load=False)]


def _is_split(host: Host) -> bool:
    """Whether vfio-pci-core is a module of its own, which is told the options once."""
    if host.is_dir("/sys/module/vfio_pci_core"):
        return True
    numbers = re.match(r"(\d+)\.(\d+)", host.attribute("/proc/sys/kernel/osrelease") or "")
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= _SPLIT


def built_in_problem(options: Mapping[str, str], loaded: LoadedOptions) -> Problem | None:
    """A driver that is part of the kernel never reads a file: its options are kernel parameters."""
    differing = loaded.differing(options)
    if not loaded.built_in or not differing:
        return None
    parameters = [f"{DRIVER}.{name}={options[name]}" for name in differing]
    return Problem(
        "options_need_kernel_parameters",
        f"vfio-pci is built into the running kernel, so its options are kernel parameters: {' '.join(parameters)}.",
        f"Give them with kvm.passthrough.kernel_parameters (present: {parameters}), reboot, and leave options out.",
        {"parameters": parameters},
    )


class SetOption(Action):
    """Change an option of the loaded module that it looks at whenever it needs it."""

    def __init__(self, name: str, before: str, after: str) -> None:
        self.description = f"set the option {name} of vfio-pci to {after}"
        self.target = f"{_MODULE}/parameters/{name}"
        self.before = before
        self.after = after

    def apply(self, host: Host) -> None:
        host.write_attribute(self.target, f"{self.after}\n", _WRITE_TIMEOUT)

    def undo(self, host: Host) -> None:
        host.write_attribute(self.target, f"{self.before}\n", _WRITE_TIMEOUT)


class ReloadModule(Action):
    """Unload the module, which no device has, and load it again with its options, or leave that to whoever needs it."""

    before = "loaded with other options"

    def __init__(self, *, load: bool) -> None:
        """:param load: whether devices are to be bound; then, on failure, the former options have to be in their file
        again before the module is loaded with them"""
        self.description = f"{'load the module of vfio-pci again' if load else 'unload the module of vfio-pci'}, {_WHY}"
        self.target = DRIVER
        self.after = "loaded with the options" if load else "not loaded"
        self.regenerates = load
        self._load = load

    def apply(self, host: Host) -> None:
        host.run(["modprobe", "-r", DRIVER], timeout=_MODPROBE_TIMEOUT)
        self.partial = True
        if self._load:
            host.run(["modprobe", DRIVER], timeout=_MODPROBE_TIMEOUT)

    def undo(self, host: Host) -> None:
        if self._load:
            host.run(["modprobe", "-r", DRIVER], timeout=_MODPROBE_TIMEOUT, check=False)
        host.run(["modprobe", DRIVER], timeout=_MODPROBE_TIMEOUT)
