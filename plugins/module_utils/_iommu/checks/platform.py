# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kind of IOMMU, its state, and what firmware and kernel show of it."""

from __future__ import annotations

from .base import Context, Section

# The firmware tables that describe an IOMMU, on any platform.
IOMMU_TABLES = frozenset(("DMAR", "IVRS", "IORT", "VIOT", "RIMT"))


def check_platform(context: Context) -> Section:
    """The verdict of the platform, as it is."""
    machine, platform, assessment = context.machine, context.platform, context.assessment
    return Section(
        {
            "state": assessment.state.value,
            "platform": None if platform is None else platform.code,
            "platform_name": None if platform is None else platform.name,
            "evidence": list(assessment.evidence),
            "recommended_parameters": list(assessment.recommended),
            "parameters_to_remove": list(assessment.unwanted),
            "architecture": machine.architecture,
            "kernel": machine.kernel,
            "firmware": {
                "acpi": machine.acpi_tables is not None,
                "iommu_tables": sorted(IOMMU_TABLES & (machine.acpi_tables or frozenset())),
                **assessment.firmware,
            },
            "units": [
                {"name": unit.name, "devices": unit.devices, **({} if platform is None else platform.describe(unit))}
                for unit in machine.units
            ],
        },
        assessment.blockers,
    )
