# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A kernel over a directory tree: what is written to PCI drivers' attributes has the effect it has on a real machine.

It knows ``driver_override``, ``bind``, ``unbind``, ``drivers_probe`` and how modules come and go (drivers/base/bus.c,
drivers/base/dd.c, drivers/pci/pci-driver.c), and it can be told to misbehave at any write (:mod:`~.faults`). Further
attributes are added through :attr:`FakeKernel.reactions`. Beside it stand the few programs the code under test calls:
``modprobe``, ``ip``, and what builds the initramfs.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host

from .faults import Fault, Faults
from .initramfs import StandIn
from .procedures import unwatched
from .sysfs import SysfsTree

__all__ = ["PCI_DEVICES", "PCI_DRIVERS", "FakeKernel", "Fault"]

VFIO_PARAMETERS = ("disable_denylist", "disable_idle_d3", "disable_vga", "enable_sriov", "nointxmask")
PCI_DEVICES = "/sys/bus/pci/devices"
PCI_DRIVERS = "/sys/bus/pci/drivers"


class FakeKernel(Host):
    """A :class:`Host` over a :class:`SysfsTree` whose attributes react.

    :param drivers: driver -> the devices (``vendor:device``) it knows by itself; its module of the same name can be
        loaded. A driver that is bound to a device of the tree is loaded already, others are when ``loaded`` names them
    """

    def __init__(
        self,
        tree: SysfsTree,
        drivers: Mapping[str, Iterable[str]],
        loaded: Iterable[str] = (),
        addresses: Sequence[Mapping[str, Any]] = (),
        default_routes: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(str(tree.root), runner=self._run, clock=lambda: 1_800_000_000.0, sleep=self._sleep)
        self.tree = tree
        self.drivers = {name: frozenset(ids) for name, ids in drivers.items()}
        self.loaded = [name for name in drivers if name in loaded or tree.path(f"{PCI_DRIVERS}/{name}").exists()]
        for name in self.loaded:
            self.add_module(name)
        self.addresses = list(addresses)
        self.default_routes = list(default_routes)
        self.initramfs: StandIn | None = None
        self.faults = Faults()
        self.failing_commands: set[str] = set()
        self.writes: list[tuple[str, str]] = []
        self.commands: list[list[str]] = []
        self.reactions: dict[str, Callable[[str, str], None]] = {
            "driver_override": self._set_override,
            "drivers_probe": self._told_to_probe,
            "unbind": self._told_to_unbind,
            "bind": self._told_to_bind,
        }
        """What a write does (path, value), by the name of the attribute; it raises what :meth:`refused` makes."""
        self.unbound: list[str] = []
        """What was taken from a driver, in that order."""
        self._declined: set[str] = set()
        self._hung: dict[str, tuple[str, str]] = {}
        self._late: list[tuple[str, str]] = []
        self._asleep = 0.0
        # A driver's interfaces live and die with its binding. They are kept here while they are gone.
        self._interfaces: dict[tuple[str, str], dict[str, str]] = {}
        self.groups_at_probe: dict[str, int] = {}
        """The IOMMU groups that devices get when a driver first probes them (Arm, before Linux 6.15)."""

    # -- attributes --------------------------------------------------------------------------------------

    def write_attribute(self, path: str, value: str, timeout: float = 10.0) -> None:
        with unwatched():
            self._written(path, value)

    def _written(self, path: str, value: str) -> None:
        address, name = self.address_of(path, value), path.rsplit("/", 1)[-1]
        self.writes.append((path, value))
        if address in self._hung:
            raise self._hangs(path, value)
        fault = self.faults.of(len(self.writes), address, name)
        if fault is Fault.HANG:
            self._hung[address] = (path, value)
            raise self._hangs(path, value)
        if fault is Fault.VANISH:
            self.remove_device(address)
        if fault is not None and fault.errno is not None:
            raise self.refused(path, value, fault.errno)
        if not self.exists(path):
            raise self.refused(path, value, errno.ENOENT)
        if fault is Fault.IGNORE:
            return
        if path.startswith("/sys/module/"):
            self.tree.write(path, value)
            return
        if fault is Fault.LATE:
            self._late.append((path, value))
            self._asleep = 0.0
            return
        if fault is Fault.DECLINE:
            self._declined.add(address)
        try:
            self._react(path, value)
        finally:
            self._declined.discard(address)
        if fault is Fault.INTERFERE:
            self.give_back(address)

    def attributes_in_time(self, paths: Sequence[str], timeout: float = 10.0) -> dict[str, str | None]:
        """Not in a child process: what hangs is known here."""
        for path in paths:
            if self.address_of(path, "") in self._hung:
                raise PassthroughError("attribute_read_timeout", f"hung: {path}", path=path, reboot_required=True)
        return {path: self.attribute(path) for path in paths}

    def unhang(self, address: str) -> None:
        """What the kernel waited for has come: the write that hung has its effect, and the device's lock is free."""
        self._react(*self._hung.pop(address))

    def give_back(self, address: str) -> None:
        """What somebody else may do at any time (driverctl, ``virsh nodedev-reattach``): the driver by the ids."""
        if self.exists(f"{PCI_DEVICES}/{address}"):
            self.tree.set_attribute(address, "driver_override", "(null)")
            if self.link_name(f"{PCI_DEVICES}/{address}/driver") is not None:
                self._unbind(address)
            self._probe(address)

    def _hangs(self, path: str, value: str) -> PassthroughError:
        return PassthroughError(
            "attribute_write_timeout", f"hung: {path}", path=path, value=value.strip(), reboot_required=True
        )

    def address_of(self, path: str, value: str) -> str:
        """The device that a write is about: it is in the attribute's path, or it is what is written."""
        match = re.match(rf"{PCI_DEVICES}/([^/]+)/", path)
        return match[1] if match else value.strip()

    def refused(self, path: str, value: str, number: int) -> PassthroughError:
        """What the kernel's refusal with an errno is to the code under test."""
        return PassthroughError(
            "attribute_write_failed",
            f"{os.strerror(number)}: {path}",
            path=path,
            value=value.strip(),
            errno=errno.errorcode[number],
        )

    def _react(self, path: str, value: str) -> None:
        reaction = self.reactions.get(path.rsplit("/", 1)[-1])
        if reaction is None:
            raise self.refused(path, value, errno.EACCES)
        reaction(path, value)

    def _set_override(self, path: str, value: str) -> None:
        if value:  # an empty write does not reach the driver core
            text = value.split("\n")[0]
            self.tree.set_attribute(self.address_of(path, value), "driver_override", text or "(null)")

    def _told_to_probe(self, path: str, value: str) -> None:
        address = self._present(path, value)
        if self.link_name(f"{PCI_DEVICES}/{address}/driver") is None and address not in self._declined:
            self._probe(address)

    def _told_to_unbind(self, path: str, value: str) -> None:
        address = self._present(path, value)
        if self.link_name(f"{PCI_DEVICES}/{address}/driver") != self.real_path(path).rsplit("/", 2)[-2]:
            raise self.refused(path, value, errno.ENODEV)
        self._unbind(address)

    def _told_to_bind(self, path: str, value: str) -> None:
        address, driver = self._present(path, value), self.real_path(path).rsplit("/", 2)[-2]
        if self.link_name(f"{PCI_DEVICES}/{address}/driver") is not None:
            raise self.refused(path, value, errno.EBUSY)
        if not self._matches(driver, address):
            raise self.refused(path, value, errno.ENODEV)
        if address in self._declined:
            raise self.refused(path, value, errno.EIO)
        self._bind(address, driver)

    def _present(self, path: str, value: str) -> str:
        address = value.strip()
        if not self.exists(f"{PCI_DEVICES}/{address}"):
            raise self.refused(path, value, errno.ENODEV)
        return address

    # -- drivers -----------------------------------------------------------------------------------------

    def _matches(self, driver: str, address: str) -> bool:
        """pci_match_device(): an override excludes all other drivers, and needs no id."""
        override = self.attribute(f"{PCI_DEVICES}/{address}/driver_override")
        if override not in (None, "", "(null)"):
            return override == driver
        ids = [(self.attribute(f"{PCI_DEVICES}/{address}/{name}") or "")[2:] for name in ("vendor", "device")]
        return ":".join(ids) in self.drivers[driver]

    def _probe(self, address: str) -> None:
        for driver in self.loaded:
            if self._matches(driver, address):
                self._bind(address, driver)
                return

    def _bind(self, address: str, driver: str) -> None:
        if "vfio" in driver and (self.attribute(f"{PCI_DEVICES}/{address}/class") or "").startswith("0x0604"):
            return  # vfio_pci_core: only endpoints
        group = self.groups_at_probe.pop(address, None)
        if group is not None:
            self.tree.join_group(address, group)
        self.tree.bind(address, driver)
        for name, mac in self._interfaces.pop((address, driver), {}).items():
            self.tree.add_interface(name, mac, self.tree.device_path(address))

    def _unbind(self, address: str) -> None:
        driver = self.link_name(f"{PCI_DEVICES}/{address}/driver")
        assert driver is not None
        self.unbound.append(address)
        net = self.tree.path(f"{self.tree.device_path(address)}/net")
        if net.is_dir():
            kept = {}
            for entry in sorted(net.iterdir()):
                kept[entry.name] = (entry / "address").read_text().strip()
                self.tree.path(f"/sys/class/net/{entry.name}").unlink()
            shutil.rmtree(net)
            self._interfaces[(address, driver)] = kept
        self.tree.bind(address, None)

    def remove_device(self, address: str) -> None:
        """Take a device out of the machine."""
        if self.link_name(f"{PCI_DEVICES}/{address}/driver") is not None:
            self._unbind(address)
        group = self.link_name(f"{PCI_DEVICES}/{address}/iommu_group")
        if group is not None:
            self.tree.path(f"/sys/kernel/iommu_groups/{group}/devices/{address}").unlink()
        shutil.rmtree(self.tree.path(self.tree.device_path(address)))
        self.tree.path(f"{PCI_DEVICES}/{address}").unlink()

    def _sleep(self, seconds: float) -> None:
        self._asleep += seconds
        if self._asleep >= 1.0:
            late, self._late = self._late, []
            for path, value in late:
                with contextlib.suppress(PassthroughError):
                    self._react(path, value)

    # -- programs ----------------------------------------------------------------------------------------

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        self.commands.append(list(argv))
        program = argv[0]
        if program in self.failing_commands:
            return Completed(tuple(argv), 1, "", f"{program}: told to fail")
        if program == "modprobe":
            with unwatched():
                return Completed(tuple(argv), self._modprobe(argv[1:]), "", "")
        if program == "ip":
            listed = self.addresses if "addr" in argv else self.default_routes if "-4" in argv else []
            return Completed(tuple(argv), 0, json.dumps(listed), "")
        done = self.initramfs.run(argv) if self.initramfs is not None else None
        if done is not None:
            return done
        raise FileNotFoundError(program)

    def _do_soft_dependencies(self, driver: str) -> None:
        """As libkmod: what comes before a module is done first, and an install line is a command for the shell."""
        lines = []
        for name in self.list_dir("/etc/modprobe.d"):
            lines += self.read_text(f"/etc/modprobe.d/{name}").splitlines() if name.endswith(".conf") else []
        for words in (line.split() for line in lines):
            if words[:2] == ["softdep", driver] and words[2] == "pre:":
                commands = [line.split(None, 2)[2] for line in lines if line.startswith(f"install {words[3]} ")]
                for command in commands[:1]:
                    subprocess.run(["sh", "-c", command.replace("/sys/", f"{self.root}/sys/")], check=True)

    def add_module(self, driver: str) -> None:
        """A driver that was loaded, with the values of its parameters that modprobe's settings give it."""
        self.tree.add_driver(driver)
        module = f"/sys/module/{driver.replace('-', '_')}"
        self.tree.write(f"{module}/initstate", "live\n")
        self.tree.write(f"{module}/refcnt", "0\n")
        if driver == "vfio-pci":
            values = dict.fromkeys(VFIO_PARAMETERS, "N")
            for name in self.list_dir("/etc/modprobe.d"):
                for line in self.read_text(f"/etc/modprobe.d/{name}").splitlines():
                    if name.endswith(".conf") and line.startswith("options vfio-pci "):
                        values.update(re.findall(r"(\w+)=(\S+)", line))
            for name in VFIO_PARAMETERS:
                self.tree.write(f"{module}/parameters/{name}", f"{values[name]}\n")

    def _modprobe(self, arguments: Sequence[str]) -> int:
        options = [word for word in arguments if word.startswith("-")]
        name = next(word for word in arguments if not word.startswith("-"))
        if name.startswith("pci:"):
            known = [driver for driver, ids in self.drivers.items() if any(_modalias(one) in name for one in ids)]
        else:
            known = [driver for driver in self.drivers if driver.replace("-", "_") == name.replace("-", "_")]
        if not known:
            return 1
        if "-n" in options:
            return 0
        for driver in known:
            if "-r" in options:
                for device in self.list_dir(f"{PCI_DRIVERS}/{driver}"):
                    if self.exists(f"{PCI_DEVICES}/{device}"):
                        self._unbind(device)  # that a device is bound does not keep a module from being unloaded
                self.loaded.remove(driver)
                shutil.rmtree(self.tree.path(f"{PCI_DRIVERS}/{driver}"))
                shutil.rmtree(self.tree.path(f"/sys/module/{driver.replace('-', '_')}"))
            elif driver not in self.loaded:
                self._do_soft_dependencies(driver)
                self.loaded.append(driver)
                self.add_module(driver)
                for address in self.list_dir(PCI_DEVICES):
                    if self.link_name(f"{PCI_DEVICES}/{address}/driver") is None and self._matches(driver, address):
                        self._bind(address, driver)
        return 0

    def install(self, tool: type[StandIn], *kernels: str, **options: Any) -> FakeKernel:
        """Install a tool that builds initramfs images, and kernels whose images were built already."""
        for path in ("/usr/share/initramfs-tools/hook-functions", "/usr/sbin/update-initramfs"):
            if self.exists(path):
                self.tree.path(path).unlink()
        for image in self.list_dir("/boot") if self.initramfs is not None else ():
            self.tree.path(f"/boot/{image}").unlink()
        self.initramfs = tool(self, self.tree.root, kernels, self.drivers, **options)
        return self


def _modalias(ids: str) -> str:
    vendor, device = ids.upper().split(":")
    return f"v0000{vendor}d0000{device}"
