# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says about its processors, firmware, kernel and IOMMU units: read on first use, never interpreted here.

What exists but cannot be read (most often for want of root rights) is noted in ``Machine.unreadable`` and taken
for unknown, so that a run without rights answers what it can.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass, field
from functools import cached_property

from .._boot.cmdline import CommandLine
from .._core.container import container, container_image
from .._core.errors import PassthroughError
from .._core.host import Host
from .._pci.device import Bus
from . import device_tree

ACPI_TABLES = "/sys/firmware/acpi/tables"
CLASS_IOMMU = "/sys/class/iommu"

# Firmware vendors (DMI) that are hypervisors, for architectures whose processors have no flag for it.
_VIRTUAL_VENDORS = ("QEMU", "VMware", "innotek", "Xen", "Parallels", "BHYVE", "Red Hat")


@dataclass(frozen=True)
class Unit:
    """An IOMMU the kernel drives, as /sys/class/iommu shows it (Documentation/ABI/testing/sysfs-class-iommu).

    ``registers`` are the attributes of its vendor directory (``intel-iommu/cap``, …), hexadecimal text.
    """

    name: str
    registers: dict[str, str] = field(default_factory=dict)
    devices: int = 0


class Machine:
    """A host at one moment."""

    def __init__(self, host: Host, bus: Bus | None = None) -> None:
        self.host = host
        self.bus = Bus(host) if bus is None else bus
        self.unreadable: list[str] = []

    def read(self, path: str) -> str | None:
        """A small text file, stripped; None when it is not there or (then noted as unreadable) cannot be read."""
        text = self.host.attribute(path)
        if text is None and self.host.exists(path):
            self._note(path)
        return text

    def _note(self, path: str) -> None:
        if path not in self.unreadable:
            self.unreadable.append(path)

    # -- processor and kernel -----------------------------------------------------------------------------

    @cached_property
    def architecture(self) -> str:
        """What ``uname -m`` prints (``x86_64``, ``aarch64``, ``s390x``); empty when it cannot be had."""
        known = self.host.attribute("/proc/sys/kernel/arch")  # since Linux 6.1
        if known:
            return known
        try:
            return self.host.run(["uname", "-m"]).stdout.strip()
        except PassthroughError:
            return ""

    @cached_property
    def kernel(self) -> str | None:
        """The running kernel's release."""
        return self.read("/proc/sys/kernel/osrelease")

    @cached_property
    def command_line(self) -> CommandLine:
        """The running kernel's parameters."""
        return CommandLine.parse(self.read("/proc/cmdline") or "")

    @cached_property
    def _cpuinfo(self) -> dict[str, str]:
        """The fields of the first processor."""
        first = (self.read("/proc/cpuinfo") or "").split("\n\n", 1)[0]
        pairs = (line.partition(":") for line in first.splitlines())
        return {name.strip(): value.strip() for name, separator, value in pairs if separator}

    @property
    def cpu_vendor(self) -> str | None:
        """The processor's vendor as it names itself (``GenuineIntel``); an emulated one may name any."""
        return self._cpuinfo.get("vendor_id")

    @cached_property
    def cpu_flags(self) -> frozenset[str]:
        """The processor's feature flags as the kernel shows them (x86)."""
        return frozenset(self._cpuinfo.get("flags", "").split())

    @cached_property
    def _cpu_features(self) -> frozenset[str]:
        """The features the kernel shows on IBM Z (``sie``) and Arm."""
        return frozenset((self._cpuinfo.get("features") or self._cpuinfo.get("Features") or "").split())

    @cached_property
    def facilities(self) -> frozenset[int]:
        """The facilities of an IBM Z processor (Principles of Operation, STFLE); empty elsewhere."""
        return frozenset(int(word) for word in self._cpuinfo.get("facilities", "").split() if word.isdecimal())

    @cached_property
    def kernel_config(self) -> dict[str, str] | None:
        """The options the running kernel was built with (``CONFIG_PCI`` -> ``y``), or None when nothing says."""
        text = self._own_config()
        for path in (f"/boot/config-{self.kernel}", f"/lib/modules/{self.kernel}/config"):
            text = text or self.read(path)
        return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", text, re.MULTILINE)) if text else None

    def _own_config(self) -> str | None:
        """What the kernel itself says (CONFIG_IKCONFIG_PROC): often all there is for one that somebody built."""
        path = "/proc/config.gz"
        if not self.host.exists(path):
            return None
        try:
            return gzip.decompress(self.host.read_bytes(path)).decode("utf-8", "replace")
        except (PassthroughError, OSError, EOFError, zlib.error):
            self._note(path)
            return None

    # -- firmware -----------------------------------------------------------------------------------------

    @cached_property
    def acpi_tables(self) -> frozenset[str] | None:
        """The names of the firmware's ACPI tables; None without ACPI, or where it is hidden (containers)."""
        names = self.host.list_dir(ACPI_TABLES)
        return frozenset(names) if names else None

    @cached_property
    def device_tree(self) -> list[device_tree.Node]:
        """The nodes of the device tree that matter here; empty without one, as on every x86 machine."""
        return device_tree.read(self.host)

    @cached_property
    def has_device_tree(self) -> bool:
        """Whether the machine is described by a device tree. (With ACPI there is an almost empty one beside it.)"""
        return self.acpi_tables is None and any(self.host.list_dir(root) for root in device_tree.ROOTS)

    def acpi_table(self, name: str) -> bytes | None:
        """An ACPI table, or None when it is not there or (then noted as unreadable) only root may read it."""
        path = f"{ACPI_TABLES}/{name}"
        if not self.host.exists(path):
            return None
        try:
            return self.host.read_bytes(path)
        except PassthroughError:
            self._note(path)
            return None

    # -- IOMMU --------------------------------------------------------------------------------------------

    @cached_property
    def units(self) -> list[Unit]:
        """The IOMMUs that the kernel drives now. Without an active IOMMU there is none."""
        found = []
        for name in self.host.list_dir(CLASS_IOMMU):
            registers = {}
            for vendor in ("intel-iommu", "amd-iommu"):
                for attribute in self.host.list_dir(f"{CLASS_IOMMU}/{name}/{vendor}"):
                    text = self.read(f"{CLASS_IOMMU}/{name}/{vendor}/{attribute}")
                    if text is not None:
                        registers[attribute] = text
            found.append(Unit(name, registers, len(self.host.list_dir(f"{CLASS_IOMMU}/{name}/devices"))))
        return found

    @cached_property
    def interrupts_are_remapped(self) -> bool | None:
        """Whether the running kernel has interrupt remapping on (x86), or None when /proc/interrupts does not tell.

        The interrupt controllers' names begin with "IR-" exactly then (arch/x86/kernel/apic/io_apic.c,
        ``mp_irqdomain_create``; kernel/irq/msi.c and drivers/iommu for MSI).
        """
        text = self.read("/proc/interrupts") or ""
        chips = re.findall(r"\s(IR-)?(?:IO-APIC|PCI-MSI|HPET)", text)
        return any(chips) if chips else None

    # -- virtualization -----------------------------------------------------------------------------------

    @property
    def container(self) -> str | None:
        """What shows that this is a container, in words, or None when nothing does."""
        return container(self.host) or container_image(self.host)

    @cached_property
    def is_xen_dom0(self) -> bool:
        """Whether this is the control domain of a Xen hypervisor, which then owns the IOMMU.

        By xenfs where it is mounted, else by the kernel itself (Documentation/ABI/stable/sysfs-hypervisor-xen).
        """
        if "control_d" in (self.host.attribute("/proc/xen/capabilities") or ""):
            return True
        return self.host.attribute("/sys/hypervisor/start_flags/initdomain") == "1"

    @cached_property
    def is_virtual_machine(self) -> bool:
        """Whether the host is itself a virtual machine, as far as it can tell.

        By the processor's flag on x86; by /proc/sysinfo on IBM Z (an LPAR has no "VM00" lines there); elsewhere by
        the firmware's vendor, or a device tree made for a virtual machine.
        """
        if "hypervisor" in self.cpu_flags:
            return True
        if re.search(r"^VM\d\d Control Program:", self.host.attribute("/proc/sysinfo") or "", re.MULTILINE):
            return True
        if self.cpu_flags:
            return False
        vendor = self.host.attribute("/sys/class/dmi/id/sys_vendor") or ""
        if vendor.startswith(_VIRTUAL_VENDORS):
            return True
        return "linux,dummy-virt" in device_tree.root_compatible(self.host)

    @cached_property
    def lockdown(self) -> str | None:
        """The lockdown mode in force (``none``, ``integrity``, ``confidentiality``), or None without lockdown."""
        match = re.search(r"\[(\w+)\]", self.read("/sys/kernel/security/lockdown") or "")
        return match[1] if match else None

    @property
    def virtualization_flag(self) -> str | None:
        """The flag of the processor's virtualization (``vmx``, ``svm``, on IBM Z ``sie``), or None without it.

        Arm has no flag for it: only /dev/kvm tells whether the kernel was started at EL2.
        """
        if "sie" in self._cpu_features:
            return "sie"
        return next((flag for flag in ("vmx", "svm") if flag in self.cpu_flags), None)

    @property
    def lacks_virtualization(self) -> bool:
        """Whether the processor shows its features, and virtualization is not among them."""
        shown = self.cpu_flags if not self.facilities else self._cpu_features
        return bool(shown) and self.virtualization_flag is None

    @property
    def has_kvm(self) -> bool:
        """Whether /dev/kvm is there."""
        return self.host.exists("/dev/kvm")
