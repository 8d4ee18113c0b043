# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI on IBM Z (zPCI): every function has translation tables of its own, and the machine always uses them.

Sources: arch/s390/pci/pci.c ``pci_base_init`` (facilities, ``pci=off`` in ``pcibios_setup``), drivers/iommu/
s390-iommu.c ``zpci_init_iommu`` (names of units), drivers/pci/hotplug/s390_pci_hpc.c (slots),
Documentation/arch/s390/pci.rst. There is no firmware table and no parameter that switches it on.
"""

from __future__ import annotations

from typing import Any

from . import parameters, verdicts
from .machine import Machine, Unit
from .platform import Assessment, Blocker, Claim, Platform, Remapping, State

ARCHITECTURES = frozenset(("s390x",))
UNIT_PREFIX = "s390-iommu."
SLOTS = "/sys/bus/pci/slots"

# PCI facility and adapter-event-notification facility; without them pci_base_init() does nothing.
_FACILITIES = (69, 71)


class IbmZ(Platform):
    """zPCI."""

    code = "ibm_z"
    name = "IBM Z PCI"
    architectures = ARCHITECTURES

    def claim(self, machine: Machine) -> Claim:
        # There is no other kind on this architecture, and no firmware table to ask for it.
        return Claim.UNITS if verdicts.units_of(machine, UNIT_PREFIX) else Claim.FIRMWARE

    def assess(self, machine: Machine) -> Assessment:
        evidence = verdicts.active(machine, UNIT_PREFIX)
        if evidence is None:
            return self._inactive(machine)
        return Assessment(
            State.ACTIVE,
            (evidence, *_standby_evidence(machine)),
            # arch_is_isolated_msi() in arch/s390/include/asm/msi.h; until 6.2 IOMMU_CAP_INTR_REMAP of the driver.
            remapping=Remapping(
                True, True, ("the interrupts of a PCI function on IBM Z can only be those registered for it",)
            ),
        )

    def _inactive(self, machine: Machine) -> Assessment:
        offs = [parameter for parameter in machine.command_line.named("pci") if "off" in parameters.items(parameter)]
        if offs:
            # Compared as a whole there (strcmp), item by item (pci_setup() in drivers/pci/pci.c).
            present, unwanted = parameters.without_items(machine.command_line.named("pci"), frozenset(("off",)))
            text = " ".join(parameter.text for parameter in offs)
            return verdicts.off_by_parameter(self.name, text, tuple(present), tuple(unwanted))
        verdict = verdicts.assess_driver(machine, self.name, "CONFIG_PCI", "CONFIG_S390_IOMMU")
        if verdict is not None:
            return verdict
        missing = [facility for facility in _FACILITIES if machine.facilities and facility not in machine.facilities]
        if missing:
            return verdicts.off_in_firmware(
                (f"the processor does not show facility {' and '.join(map(str, missing))} (/proc/cpuinfo)",),
                "The machine or the hypervisor offers no PCI to this system (the processor's facilities say so).",
                "In z/VM or KVM, give this guest PCI functions; on an LPAR, see that the machine has the PCI feature.",
            )
        if machine.bus.addresses:
            return verdicts.did_not_start(
                self.name,
                (f"there are {verdicts.count(len(machine.bus.addresses), 'PCI function')}", "none has an IOMMU unit"),
                "s390-iommu or zpci",
                "Boot a kernel of 4.14 or later with CONFIG_S390_IOMMU; dmesg of the host says more (look for zpci).",
            )
        return _without_functions(machine)

    def describe(self, unit: Unit) -> dict[str, Any]:
        return {"fid": f"0x{unit.name[len(UNIT_PREFIX) :]}"} if unit.name.startswith(UNIT_PREFIX) else {}


def _standby(machine: Machine) -> list[str]:
    """The functions (their ids) that are there and switched off."""
    return [name for name in machine.host.list_dir(SLOTS) if machine.host.attribute(f"{SLOTS}/{name}/power") == "0"]


def _standby_evidence(machine: Machine) -> list[str]:
    found = _standby(machine)
    return [f"{verdicts.count(len(found), 'PCI function')} in standby: {verdicts.shortened(found)}"] if found else []


def _without_functions(machine: Machine) -> Assessment:
    """A machine with zPCI and without a function: nothing is wrong, and there is nothing to pass through.

    The state is unknown, since the IOMMU belongs to the functions: it is at work as soon as there is one.
    """
    standby = _standby(machine)
    paths = [f"{SLOTS}/{name}/power" for name in standby]
    return Assessment(
        State.UNKNOWN,
        ("the kernel drives no IOMMU unit", "there is no PCI function", *_standby_evidence(machine)),
        blockers=(
            Blocker(
                "no_pci_functions",
                "error",
                "This system has no PCI function in use, and every function has an IOMMU of its own."
                + (f" {len(standby)} in standby." if standby else ""),
                f"Switch one on: echo 1 > {verdicts.shortened(paths, 2)}"
                if standby
                else "Assign one to this system, in the I/O configuration of the machine or in its hypervisor. "
                "No kernel parameter is needed.",
            ),
        ),
    )
