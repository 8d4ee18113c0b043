# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Intel Virtualization Technology for Directed I/O (VT-d).

Sources: Intel VT-d specification (section 8.1 DMAR table; 11.4.3 extended capability register),
drivers/iommu/intel/iommu.c, Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from .._core.errors import PassthroughError
from .._pci.address import PciAddress
from .._pci.device import PciDevice
from . import dmar, firmware, parameters, verdicts, x86
from .machine import Machine, Unit
from .platform import Assessment, Blocker, Claim, Platform, State

TABLE = dmar.SIGNATURE
UNIT_PREFIX = "dmar"

_ECAP_INTERRUPT_REMAPPING = 1 << 3
_DISPLAY = 0x03
_INTEL = 0x8086
_GPU_OFF = ("igfx_off", "intgpu_off")


class IntelVtd(Platform):
    """VT-d."""

    code = "intel_vtd"
    name = "Intel VT-d"
    architectures = x86.ARCHITECTURES

    def claim(self, machine: Machine) -> Claim:
        return x86.claim(machine, UNIT_PREFIX, TABLE)

    def assess(self, machine: Machine) -> Assessment:
        evidence = verdicts.active(machine, UNIT_PREFIX)
        table = _firmware(machine)
        if evidence is not None:
            supported, sources = _remapping_support(machine, table)
            return Assessment(
                State.ACTIVE,
                (evidence, *_forced_on(machine, table)),
                remapping=x86.remapping(machine, supported, sources),
                firmware=table,
                blockers=_excluded_gpu(machine),
            )
        return replace(self._inactive(machine), firmware=table)

    def _inactive(self, machine: Machine) -> Assessment:
        verdict = verdicts.assess_driver(machine, self.name, "CONFIG_INTEL_IOMMU")
        if verdict is not None:
            return verdict
        line = machine.command_line
        own = parameters.intel_iommu(line)
        everything = parameters.iommu(line)
        on = ",".join(["on", *parameters.other_items(line.named("intel_iommu"))])
        present, unwanted = parameters.without_off(line.named("iommu"))
        recommended = (f"intel_iommu={on}", *present)
        if own.on is False or everything.on is False:
            texts = [switch.text for switch in (own, everything) if switch.on is False]
            return verdicts.off_by_parameter(self.name, " ".join(texts), recommended, tuple(unwanted))
        evidence = [f"the firmware has a {TABLE} table"]
        if own.on:
            evidence += [f"the kernel was started with {own.text}", "it drives no IOMMU unit"]
            return verdicts.did_not_start(self.name, tuple(evidence), "DMAR")
        evidence.append("the kernel was started without intel_iommu=on or off")
        config = machine.kernel_config
        if config is not None:
            option = _default_on(config)
            if option is not None:
                evidence += [f"it was built with {option}", "it drives no IOMMU unit"]
                return verdicts.did_not_start(self.name, tuple(evidence), "DMAR")
            evidence.append("it was built without CONFIG_INTEL_IOMMU_DEFAULT_ON")
        else:
            evidence += ["it drives no IOMMU unit", "what it was built with is not known"]
        return Assessment(
            State.DISABLED_BY_DEFAULT,
            tuple(evidence),
            recommended,
            blockers=(
                Blocker(
                    "iommu_disabled_by_default",
                    "error",
                    f"The firmware offers {self.name}, but this kernel "
                    + (
                        "does not use it, most likely because it wants to be told to."
                        if config is None
                        else "uses it only when it is told to."
                    ),
                    f"Set {recommended[0]} with kvm.passthrough.kernel_parameters, then reboot the host.",
                ),
            ),
        )

    def describe(self, unit: Unit) -> dict[str, Any]:
        found: dict[str, Any] = {
            name: f"0x{unit.registers[name]}" for name in ("cap", "ecap") if name in unit.registers
        }
        found.update({name: unit.registers[name] for name in ("address", "version") if name in unit.registers})
        ecap = _number(unit.registers.get("ecap"))
        if ecap is not None:
            found["interrupt_remapping"] = bool(ecap & _ECAP_INTERRUPT_REMAPPING)
        return found


def _firmware(machine: Machine) -> dict[str, Any]:
    table = dmar.parse(machine.acpi_table(TABLE), lambda address: _secondary_bus(machine, address))
    if table is None:
        return {}
    return {
        "dmar_flags": f"0x{table.flags:02x}",
        "interrupt_remapping": bool(table.flags & dmar.INTERRUPT_REMAPPING),
        "x2apic_opt_out": bool(table.flags & dmar.X2APIC_OPT_OUT),
        "dma_protection": bool(table.flags & dmar.DMA_CONTROL_OPT_IN),
        **firmware.as_result(table.units, table.memory),
    }


def _secondary_bus(machine: Machine, address: PciAddress) -> int | None:
    text = machine.bus.device(address).attribute("secondary_bus_number") if address in machine.bus else None
    return int(text) if text is not None and text.isdecimal() and int(text) <= 0xFF else None


def _forced_on(machine: Machine, table: dict[str, Any]) -> list[str]:
    """Why an IOMMU is active that the kernel leaves off by default, and that nobody switched on.

    ``platform_optin_force_iommu()``: the firmware asks for protection, and there are ports for external devices.
    """
    config = machine.kernel_config
    if not table.get("dma_protection") or config is None or _default_on(config) is not None:
        return []
    if parameters.intel_iommu(machine.command_line).on is not None:
        return []
    return [
        "nobody switched it on: the firmware asks for protection against external devices (bit 2 of the flags of the "
        f"{TABLE} table), for which the kernel uses it"
    ]


def _default_on(config: dict[str, str]) -> str | None:
    """The option by which a kernel uses VT-d without being told to; Debian's have one more to choose from."""
    return next((name for name in config if name.startswith("CONFIG_INTEL_IOMMU_DEFAULT_ON")), None)


def _excluded_gpu(machine: Machine) -> tuple[Blocker, ...]:
    """The warning for an integrated GPU that the kernel leaves out (``igfx_off``, or Debian's default)."""
    left_out = [str(device.address) for device in machine.bus.devices() if _is_integrated_gpu(device)]
    left_out = [name for name in left_out if machine.bus.device(PciAddress.parse(name)).iommu_group is None]
    if not left_out:
        return ()
    line = machine.command_line
    rest = [item for item in parameters.other_items(line.named("intel_iommu")) if not item.startswith(_GPU_OFF)]
    excluding = [parameter.text for parameter in line.named("intel_iommu") if _excludes_gpu(parameter.value)]
    if excluding:
        why = f"the kernel was started with {' '.join(excluding)}"
    elif "CONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF" in (machine.kernel_config or {}):
        why = "it was built with CONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF"
    else:
        why = "dmesg says why (look for DMAR)"
    return (
        Blocker(
            "integrated_gpu_excluded",
            "warning",
            f"The kernel keeps the integrated GPU ({', '.join(left_out)}) out of the IOMMU: {why}.",
            f"To give it to a guest, set intel_iommu={','.join(['on', *rest])} with kvm.passthrough.kernel_parameters "
            "and reboot the host. Other devices are not affected.",
            tuple(left_out),
        ),
    )


def _excludes_gpu(value: str | None) -> bool:
    return any(item.startswith(_GPU_OFF) for item in (value or "").split(","))


def _is_integrated_gpu(device: PciDevice) -> bool:
    """A display controller of Intel on the root bus (as ``IS_INTGPU_DEVICE`` of Debian's kernels has it)."""
    if device.address.domain or device.address.bus:
        return False
    try:
        return device.pci_class >> 16 == _DISPLAY and device.vendor_id == _INTEL
    except PassthroughError:  # it vanished meanwhile
        return False


def _remapping_support(machine: Machine, table: dict[str, Any]) -> tuple[bool | None, tuple[str, ...]]:
    """Whether every unit can remap interrupts and the firmware allows it, and how that is known."""
    evidence = []
    able = []
    for unit in machine.units:
        ecap = _number(unit.registers.get("ecap"))
        if ecap is not None:
            able.append(bool(ecap & _ECAP_INTERRUPT_REMAPPING))
            evidence.append(f"bit 3 of the extended capabilities of {unit.name} is {int(able[-1])}")
    if "interrupt_remapping" in table:
        able.append(table["interrupt_remapping"])
        evidence.append(f"bit 0 of the flags of the {TABLE} table is {int(table['interrupt_remapping'])}")
    return (all(able) if able else None), tuple(evidence)


def _number(text: str | None) -> int | None:
    try:
        return None if text is None else int(text, 16)
    except ValueError:
        return None
