# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which driver a PCI function has, and how it gets another one.

Source: Documentation/ABI/testing/sysfs-bus-pci (``driver_override``, ``unbind``, ``bind``, ``drivers_probe``).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.plan import Action
from .._core.state import Record
from .._pci.address import PciAddress
from .._pci.device import DEVICES, DRIVERS, Bus, PciDevice, is_vfio_driver

DRIVERS_PROBE = "/sys/bus/pci/drivers_probe"
MODULES = "/sys/module"

AUTO = "auto"
"""In place of a driver's name: whichever the kernel chooses by the device's ids, if it has one."""

# A driver may take its time, or probe in the background.
VERIFY_ATTEMPTS = 10
VERIFY_INTERVAL = 0.5
MODPROBE_TIMEOUT = 60.0

_HANGS = re.compile(r"^State:\s*D", re.MULTILINE)


@dataclass(frozen=True)
class Binding:
    """The driver a function is bound to, and the only one it may be bound to (None: the kernel goes by ids)."""

    driver: str | None
    driver_override: str | None

    @classmethod
    def of(cls, device: PciDevice) -> Binding:
        """The binding of a device as it was observed."""
        return cls(device.driver, device.driver_override)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Binding:
        """The inverse of :meth:`to_json`."""
        return cls(data["driver"], data["driver_override"])

    def to_json(self) -> dict[str, Any]:
        """The binding for results and records."""
        return {"driver": self.driver, "driver_override": self.driver_override}

    @property
    def is_vfio(self) -> bool:
        """Whether the device is kept for guests: bound to a VFIO driver, or waiting for one."""
        return is_vfio_driver(self.driver) or is_vfio_driver(self.driver_override)

    def allows(self, driver: str | None) -> bool:
        """Whether a device with this driver is as this binding says."""
        if self.driver == AUTO:
            return not is_vfio_driver(driver)
        return driver == self.driver


def bring_to(host: Host, address: PciAddress, wanted: Binding, timeout: float) -> None:
    """Give a function the driver and the override that are wanted, from whatever it has now, and verify it.

    :param timeout: seconds for each write to the kernel
    :raises PassthroughError: ``device_not_found``; what :meth:`Host.write_attribute` raises; ``driver_not_bound``,
        or ``device_hangs`` where the kernel has not come back from an earlier unbind
    """
    path = f"{DEVICES}/{address}"
    now = Binding.of(Bus(host).device(address))
    if now.driver_override != wanted.driver_override:
        # A newline clears it; an empty write does not even reach the kernel.
        host.write_attribute(f"{path}/driver_override", f"{wanted.driver_override or ''}\n", timeout)
    if now.driver is not None and not wanted.allows(now.driver):
        host.write_attribute(f"{path}/driver/unbind", f"{address}\n", timeout)
        now = Binding.of(Bus(host).device(address))
    if wanted.driver is not None and now.driver is None:
        _attach(host, address, wanted, timeout)
    _verify(host, address, wanted)


def _attach(host: Host, address: PciAddress, wanted: Binding, timeout: float) -> None:
    if wanted.driver == wanted.driver_override:
        host.write_attribute(DRIVERS_PROBE, f"{address}\n", timeout)
        return
    directory = f"{DRIVERS}/{wanted.driver}"
    modalias = Bus(host).device(address).modalias
    if modalias is not None and not host.is_dir(directory):
        # As udev does when the device appears. Blacklists hold, and a driver that this brings may bind at once.
        with contextlib.suppress(PassthroughError):
            host.run(["modprobe", "-b", "-q", modalias], timeout=MODPROBE_TIMEOUT, check=False)
    if Bus(host).device(address).driver is not None:
        return
    # Several drivers may know the device: one that is wanted by name is asked by name.
    by_name = f"{directory}/bind"
    host.write_attribute(by_name if host.exists(by_name) else DRIVERS_PROBE, f"{address}\n", timeout)


def _verify(host: Host, address: PciAddress, wanted: Binding) -> None:
    now = Binding.of(Bus(host).device(address))
    for _unused in range(VERIFY_ATTEMPTS):
        if wanted.allows(now.driver) and now.driver_override == wanted.driver_override:
            return
        host.sleep(VERIFY_INTERVAL)
        now = Binding.of(Bus(host).device(address))
    hanging = _hanging_unbinds(host) if now.driver is None else []
    if hanging:
        raise PassthroughError(
            "device_hangs",
            f"{address} should have {_in_words(wanted)}, but has {_in_words(now)}, and the kernel has not finished "
            f"taking a device from its driver ({', '.join(hanging)}).",
            "End what uses the device, or reboot the host; until then the kernel does nothing with it.",
            device=str(address),
            wanted=wanted.to_json(),
            found=now.to_json(),
            reboot_required=True,
        )
    raise PassthroughError(
        "driver_not_bound",
        f"{address} should have {_in_words(wanted)}, but has {_in_words(now)}, "
        f"{VERIFY_ATTEMPTS * VERIFY_INTERVAL:g} s after the kernel was told.",
        "dmesg of the host usually says why the driver did not take it, or what else did.",
        device=str(address),
        wanted=wanted.to_json(),
        found=now.to_json(),
    )


def _hanging_unbinds(host: Host) -> list[str]:
    """The processes that hang in the kernel while they write to ``unbind`` of a PCI driver, as phrases.

    A device whose driver does not return from ``remove`` shows no driver any more, and the kernel does not tell that
    it still has one (drivers/base/dd.c, ``__device_release_driver``): asked to bind it, it does nothing.
    """
    found = []
    for pid in host.list_dir("/proc"):
        if pid.isdigit() and _HANGS.search(host.attribute(f"/proc/{pid}/status") or ""):
            for descriptor in host.list_dir(f"/proc/{pid}/fd"):
                target = host.link_target(f"/proc/{pid}/fd/{descriptor}") or ""
                if target.startswith(f"{DRIVERS}/") and target.endswith("/unbind"):
                    found.append(f"process {pid} still writes to {target}")
    return found


def _in_words(binding: Binding) -> str:
    if binding.driver is None:
        text = "no driver"
    elif binding.driver == AUTO:
        text = "a driver of the host"
    else:
        text = f"the driver {binding.driver}"
    return text if binding.driver_override is None else f"{text} and the override {binding.driver_override}"


@dataclass
class Hang:
    """Whether the kernel hangs over a device. It then holds the device's lock, and every further write hangs too."""

    hangs: bool = False


class Rebind(Action):
    """Bring one function from one binding to another. The actions on a device share one :class:`Hang`."""

    def __init__(
        self,
        address: PciAddress,
        before: Binding,
        after: Binding,
        *,
        timeout: float,
        hang: Hang,
        record: Record | None = None,
    ) -> None:
        self.description = _describe(address, before, after)
        self.target = str(address)
        self.before = before.to_json()
        self.after = after.to_json()
        self._address = address
        self._bindings = (before, after)
        self._timeout = timeout
        self._hang = hang
        self._record = record

    def apply(self, host: Host) -> None:
        self.partial = True
        self._bring_to(host, self._bindings[1])

    def undo(self, host: Host) -> None:
        if self._hang.hangs:
            raise PassthroughError(
                "device_hangs",
                f"The kernel hangs over {self._address}; nothing more can be done with it before the host is rebooted.",
                device=str(self._address),
                reboot_required=True,
            )
        self._bring_to(host, self._bindings[0])

    def _bring_to(self, host: Host, wanted: Binding) -> None:
        try:
            bring_to(host, self._address, wanted, self._timeout)
        except PassthroughError as error:
            self._hang.hangs = self._hang.hangs or error.code in ("attribute_write_timeout", "device_hangs")
            raise

    def records(self) -> Sequence[Record]:
        return () if self._record is None else (self._record,)


def _describe(address: PciAddress, before: Binding, after: Binding) -> str:
    if after.driver == AUTO:
        return f"give {address} to the driver the kernel chooses"
    if after.driver is not None:
        return f"bind {address} to {after.driver}"
    if before.driver is not None:
        return f"detach {address} from {before.driver}"
    return f"keep {address} for {after.driver_override}" if after.driver_override else f"free {address} for any driver"


class LoadModule(Action):
    """Load the module of a driver, and unload it again when that has to be undone."""

    def __init__(self, driver: str) -> None:
        self.description = f"load the module of {driver}"
        self.target = driver
        self.before = "not loaded"
        self.after = "loaded"
        self._driver = driver
        self._was_loaded = False

    def apply(self, host: Host) -> None:
        self._was_loaded = _is_loaded(host, self._driver)
        host.run(["modprobe", self._driver], timeout=MODPROBE_TIMEOUT)
        self.partial = True
        if not host.is_dir(f"{DRIVERS}/{self._driver}"):
            raise PassthroughError.of([_no_such_driver(self._driver)])

    def undo(self, host: Host) -> None:
        if self._was_loaded:  # somebody else was faster
            return
        # A module can be unloaded while devices are bound to it and not open, and then they all lose their driver.
        bound = [name for name in host.list_dir(f"{DRIVERS}/{self._driver}") if host.exists(f"{DEVICES}/{name}")]
        if bound:
            raise PassthroughError(
                "module_in_use",
                f"{', '.join(bound)} would lose the driver {self._driver} with its module, so it stays loaded.",
                driver=self._driver,
                devices=bound,
            )
        host.run(["modprobe", "-r", self._driver], timeout=MODPROBE_TIMEOUT)


def unavailable(host: Host, driver: str) -> Problem | None:
    """Why a PCI driver cannot be had: the kernel does not have it, and there is no module of that name to load."""
    if host.is_dir(f"{DRIVERS}/{driver}"):
        return None
    if _is_loaded(host, driver):  # and brought no such driver, so loading it again will not either
        return _no_such_driver(driver)
    try:
        found = host.run(["modprobe", "-n", "-q", driver], timeout=MODPROBE_TIMEOUT, check=False).rc == 0
    except PassthroughError as error:
        return error.problems[0]
    if found:
        return None
    return Problem(
        "driver_unavailable",
        f"The running kernel has neither a PCI driver nor a module {driver}.",
        "Install the kernel package that has it (on Debian and Ubuntu: not the cloud flavour), or reboot when the "
        "kernel was upgraded.",
        {"driver": driver},
    )


def _is_loaded(host: Host, module: str) -> bool:
    return host.is_dir(f"{MODULES}/{module.replace('-', '_')}")


def _no_such_driver(driver: str) -> Problem:
    return Problem(
        "driver_unavailable",
        f"The module {driver} is loaded, but the kernel has no PCI driver {driver}.",
        f"Look at {DRIVERS} for the driver's name, which may differ from the module's (vfio_pci is the module "
        "of vfio-pci).",
        {"driver": driver},
    )
