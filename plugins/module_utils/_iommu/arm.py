# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arm System Memory Management Unit (SMMU), versions 1 to 3, described by ACPI (IORT) or by a device tree.

Sources: drivers/iommu/arm/arm-smmu/arm-smmu.c and arm-smmu-v3/arm-smmu-v3.c (names of units, ``compatible`` strings,
one driver each), Documentation/devicetree/bindings/iommu/arm,smmu*.yaml, Documentation/admin-guide/
kernel-parameters.txt. The kernel uses an SMMU as soon as its driver is there. ``iommu=`` does not exist on Arm:
``iommu.passthrough=`` chooses the default domain, which VFIO replaces in any case; what keeps the SMMU from being
used is only what keeps its driver from being run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .._core.errors import PassthroughError
from . import acpi, firmware, iort, parameters, verdicts
from .firmware import FirmwareUnit, ReservedMemory
from .groups import may_join_group_later
from .machine import ACPI_TABLES, Machine, Unit
from .platform import Assessment, Blocker, Claim, Platform, Remapping, State

ARCHITECTURES = frozenset(("aarch64", "armv7l", "armv8l"))
TABLE = iort.SIGNATURE
UNIT_PREFIXES = ("smmu3.", "smmu.")
_BRIDGES = 0x06  # the base class of host bridges and PCI-to-PCI bridges

# arm_smmu_of_match[] in both drivers; nodes of a certain chip name their general kind behind their own.
_COMPATIBLE = {
    "arm,smmu-v3": "smmu_v3",
    **dict.fromkeys(
        (
            "arm,smmu-v1",
            "arm,smmu-v2",
            "arm,mmu-400",
            "arm,mmu-401",
            "arm,mmu-500",
            "cavium,smmu-v2",
            "marvell,ap806-smmu-500",
            "nvidia,smmu-500",
            "qcom,adreno-smmu",
            "qcom,smmu-500",
            "qcom,smmu-v2",
        ),
        "smmu_v2",
    ),
}


@dataclass(frozen=True)
class _Driver:
    option: str
    module: str


# Both files have module_platform_driver(arm_smmu_driver) or the like, so both initcalls have this name.
_INITCALL = "arm_smmu_driver_init"
_DRIVERS = {
    "smmu_v3": _Driver("CONFIG_ARM_SMMU_V3", "arm_smmu_v3"),
    "smmu_v2": _Driver("CONFIG_ARM_SMMU", "arm_smmu"),
}


@dataclass(frozen=True)
class _Description:
    """What the firmware says. ``bridges`` are the PCI host bridges, each with whether an SMMU translates its DMA."""

    source: str
    units: tuple[FirmwareUnit, ...] = ()
    memory: tuple[ReservedMemory, ...] = ()
    bridges: tuple[tuple[str, bool], ...] = ()
    foreign: tuple[str, ...] = ()

    @property
    def enabled(self) -> list[FirmwareUnit]:
        return [unit for unit in self.units if unit.enabled]


class ArmSmmu(Platform):
    """SMMUv1 to SMMUv3."""

    code = "arm_smmu"
    name = "Arm SMMU"
    architectures = ARCHITECTURES

    def claim(self, machine: Machine) -> Claim:
        if verdicts.units_of(machine, UNIT_PREFIXES):
            return Claim.UNITS
        description = _describe(machine)
        return Claim.FIRMWARE if description is not None and description.units else Claim.NONE

    def assess(self, machine: Machine) -> Assessment:
        description = _describe(machine)
        evidence = verdicts.active(machine, UNIT_PREFIXES)
        if evidence is None:
            return self._inactive(machine, description)
        waiting = _ungrouped(machine)
        notes = [evidence]
        if waiting:
            notes.append(
                f"{verdicts.count(len(waiting), 'PCI device')} without a driver and without an IOMMU group "
                f"({verdicts.shortened(waiting)}): on Arm a device may join its group only when a driver probes it"
            )
        return Assessment(
            State.ACTIVE,
            tuple(notes),
            remapping=_isolated_interrupts(machine),
            firmware=_firmware(machine, description),
            blockers=_untranslated(machine, description),
            groups_complete=not waiting,
        )

    def _inactive(self, machine: Machine, description: _Description | None) -> Assessment:
        if description is None:
            return verdicts.firmware_hidden(())
        return replace(self._verdict(machine, description), firmware=_firmware(machine, description))

    def _verdict(self, machine: Machine, description: _Description) -> Assessment:
        kinds = dict.fromkeys(unit.kind for unit in description.enabled)
        if not kinds:
            return verdicts.off_in_firmware(
                (
                    "the kernel drives no IOMMU unit",
                    f"the {description.source} has {verdicts.count(len(description.units), 'SMMU node')}, disabled",
                ),
                f"The {description.source} describes an SMMU, and says that it is not to be used.",
                "Switch on the SMMU (or IOMMU) in the firmware setup, or use a firmware or device tree that enables "
                'it (status = "okay").',
            )
        drivers = [_DRIVERS[kind] for kind in kinds]
        verdict = verdicts.assess_driver(machine, self.name, *(driver.option for driver in drivers))
        if verdict is not None:
            return verdict
        verdict = self._off_by_parameter(machine, drivers)
        if verdict is not None:
            return verdict
        evidence = [f"the {description.source} describes {verdicts.count(len(description.enabled), 'SMMU')}"]
        evidence.append("the kernel drives none")
        absent = [driver.module for driver in drivers if _is_unloaded_module(machine, driver)]
        if absent:
            evidence.append(f"the module {' and '.join(absent)} is not loaded")
            return verdicts.did_not_start(
                self.name,
                tuple(evidence),
                "arm-smmu",
                f"The driver is a module: load it early (put {' '.join(absent)} into the initramfs), then reboot. "
                "dmesg of the host says more (look for arm-smmu).",
            )
        return verdicts.did_not_start(self.name, tuple(evidence), "arm-smmu")

    def _off_by_parameter(self, machine: Machine, drivers: list[_Driver]) -> Assessment | None:
        """The verdict for a command line that keeps the driver from being run."""
        line = machine.command_line
        modules = frozenset(driver.module for driver in drivers if _may_be_module(machine, driver))
        unwanted_items = {
            "initcall_blacklist": frozenset((_INITCALL,)),
            "module_blacklist": modules,
            "modprobe.blacklist": modules,
        }
        texts: list[str] = []
        recommended: list[str] = []
        unwanted: list[str] = []
        for key, items in unwanted_items.items():
            found = line.named(key)
            if key == "module_blacklist":
                found = found[-1:]  # the last one counts
            elif key == "modprobe.blacklist":
                items |= _dashed(items)  # modprobe takes a dash for an underscore; the kernel does not
            guilty = [parameter.text for parameter in found if items.intersection(parameters.items(parameter))]
            if guilty:
                texts += guilty
                to_set, to_remove = parameters.without_items(found, items)
                recommended += to_set
                unwanted += to_remove
        if not texts:
            return None
        return verdicts.off_by_parameter(self.name, " ".join(texts), tuple(recommended), tuple(unwanted))

    def describe(self, unit: Unit) -> dict[str, Any]:
        prefix, _dot, address = unit.name.partition(".")
        return {"kind": "smmu_v3" if prefix == "smmu3" else "smmu_v2", "address": address.replace("0x", "")}


def assess_undescribed(machine: Machine) -> Assessment:
    """The verdict for an Arm host without IOMMU units, whose firmware describes no SMMU."""
    description = _describe(machine)
    if description is None:
        return verdicts.firmware_hidden(
            (
                f"the firmware cannot be seen: neither {ACPI_TABLES} nor a device tree is there, "
                f"or the {TABLE} table cannot be read",
            )
        )
    evidence = ["the kernel drives no IOMMU unit", f"the {description.source} describes no SMMU"]
    if description.foreign:
        evidence.append(f"it has IOMMUs of other kinds: {verdicts.shortened(description.foreign)}")
        return Assessment(
            State.UNKNOWN,
            tuple(evidence),
            blockers=(
                Blocker(
                    "iommu_not_started",
                    "error",
                    "The kernel drives no IOMMU, and those the firmware describes are of kinds this module does not "
                    f"know: {verdicts.shortened(description.foreign)}.",
                    "dmesg of the host says more; many of these serve displays and cameras, never PCI devices.",
                ),
            ),
        )
    remedy = "Switch on the SMMU (or IOMMU) in the firmware setup, if there is one, and start the host again."
    if machine.is_virtual_machine:
        evidence.append("this host is itself a virtual machine")
        remedy = "Give this virtual machine a virtual IOMMU, and start it again."
    return verdicts.off_in_firmware(
        tuple(evidence),
        f"The firmware offers no IOMMU to the kernel (its {description.source} describes no SMMU): it is switched "
        "off there, or the hardware has none. No kernel parameter can change that.",
        remedy,
    )


# -- the firmware -----------------------------------------------------------------------------------------


def _describe(machine: Machine) -> _Description | None:
    """What ACPI or the device tree says of SMMUs; None when neither can be seen."""
    if machine.acpi_tables is None:
        return _describe_device_tree(machine) if machine.has_device_tree else None
    if TABLE not in machine.acpi_tables:
        return _Description("ACPI (without an IORT table)")
    table = iort.parse(machine.acpi_table(TABLE))
    if table is None:
        return None
    bridges = tuple((f"PCI segment {segment:04x}", behind) for segment, behind in sorted(table.segments.items()))
    return _Description(f"{TABLE} table", table.units, table.memory, bridges)


def _describe_device_tree(machine: Machine) -> _Description:
    units: list[FirmwareUnit] = []
    bridges: list[tuple[str, bool]] = []
    foreign: list[str] = []
    for node in machine.device_tree:
        kind = next((_COMPATIBLE[name] for name in node.compatible if name in _COMPATIBLE), None)
        if kind is not None:
            units.append(FirmwareUnit(kind, node.unit_address, enabled=node.is_enabled, node=node.path))
        elif node.device_type == "pci" and node.is_enabled:
            bridges.append((node.path, bool(node.properties.intersection(("iommu-map", "iommus")))))
        elif "#iommu-cells" in node.properties and node.is_enabled:
            foreign.append(f"{node.path} ({', '.join(node.compatible)})")
    return _Description("device tree", tuple(units), (), tuple(bridges), tuple(foreign))


def _firmware(machine: Machine, description: _Description | None) -> dict[str, Any]:
    found: dict[str, Any] = {"device_tree": machine.has_device_tree}
    if description is not None:
        found.update(firmware.as_result(description.units, description.memory))
    return found


def _untranslated(machine: Machine, description: _Description | None) -> tuple[Blocker, ...]:
    """The blocker for a machine whose SMMUs serve something else than PCI.

    A PCI device in a group proves the contrary, whatever was understood of the description.
    """
    if description is None or not description.bridges or any(behind for _name, behind in description.bridges):
        return ()
    if any(machine.bus.group_members(group) for group in machine.bus.groups()):
        return ()
    names = verdicts.shortened(name for name, _behind in description.bridges)
    return (
        Blocker(
            "pci_without_iommu",
            "error",
            f"This host has an SMMU, but the {description.source} connects no PCI host bridge to one ({names}).",
            "Use a firmware or device tree that does (property iommu-map of the host bridge), if the hardware can.",
        ),
    )


# -- the kernel -------------------------------------------------------------------------------------------


def _ungrouped(machine: Machine) -> list[str]:
    """The PCI functions, bridges aside, that may get an IOMMU group with a driver."""
    found = []
    for device in machine.bus.devices():
        try:
            may_wait = may_join_group_later(device, machine) and device.pci_class >> 16 != _BRIDGES
        except PassthroughError:  # it vanished meanwhile
            continue
        if may_wait:
            found.append(str(device.address))
    return found


def _may_be_module(machine: Machine, driver: _Driver) -> bool:
    return machine.kernel_config is None or machine.kernel_config.get(driver.option) == "m"


def _is_unloaded_module(machine: Machine, driver: _Driver) -> bool:
    config = machine.kernel_config
    return (
        config is not None
        and config.get(driver.option) == "m"
        and not machine.host.is_dir(f"/sys/module/{driver.module}")
    )


def _dashed(items: frozenset[str]) -> frozenset[str]:
    return frozenset(item.replace("_", "-") for item in items)


def _isolated_interrupts(machine: Machine) -> Remapping:
    """Whether the interrupt controller checks which device an interrupt comes from.

    That is what VFIO asks for (``msi_device_has_isolated_msi()``). The interrupt translation service of GICv3 does
    (IRQ_DOMAIN_FLAG_ISOLATED_MSI in drivers/irqchip/irq-gic-v3-its.c), the message frames of GICv2m do not.
    """
    remedy = (
        "This machine's interrupt controller cannot do it; one with a GICv3 interrupt translation service can. "
        "Only when all guests are trusted: set vfio_iommu_type1.allow_unsafe_interrupts=1."
    )
    interrupts = machine.read("/proc/interrupts") or ""
    if "ITS-MSI" in interrupts or "ITS-PCI-MSI" in interrupts:
        return Remapping(True, True, ("/proc/interrupts has interrupts of a GICv3 ITS",), remedy)
    found = _interrupt_controllers(machine)
    if found is None:
        return Remapping(None, None, (), remedy)
    has_its, has_frames, source = found
    if has_its:
        return Remapping(True, True, (f"the {source} describes a GICv3 ITS",), remedy)
    if has_frames:
        return Remapping(False, False, (f"the {source} describes GICv2m message frames and no GICv3 ITS",), remedy)
    return Remapping(None, None, (f"the {source} describes neither a GICv3 ITS nor GICv2m",), remedy)


def _interrupt_controllers(machine: Machine) -> tuple[bool, bool, str] | None:
    """Whether the firmware describes an interrupt translation service, and message frames; None when it hides."""
    if machine.has_device_tree:
        names = {name for node in machine.device_tree if node.is_enabled for name in node.compatible}
        return "arm,gic-v3-its" in names, "arm,gic-v2m-frame" in names, "device tree"
    types = acpi.madt_types(machine.acpi_table("APIC"))
    if types is None:
        return None
    return acpi.MADT_GIC_ITS in types, acpi.MADT_GIC_MSI_FRAME in types, "APIC table"
