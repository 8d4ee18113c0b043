# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and numbers by which the guest or the operator knows the device: each is given once."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context, unique


def alias(context: Context) -> Iterator[Problem]:
    """Source: libvirt ``virDomainDefValidateAliases``."""
    return unique(context, "alias", "alias_in_use", "Give each device an alias of its own.")


def acpi_index(context: Context) -> Iterator[Problem]:
    """Source: QEMU ``acpi_pcihp_device_pre_plug_cb``; libvirt lets it through, and QEMU does not start."""
    return unique(context, "acpi_index", "acpi_index_in_use", "Give each device an index of its own.")


def acpi_index_arch(context: Context) -> Iterator[Problem]:
    """There is no ACPI on IBM Z and POWER.

    Source: QEMU docs/specs/acpi_pci_hotplug.rst.
    """
    arch = context.definition.arch
    if arch.split("_")[0] not in ("s390x", "ppc64", "ppc64le"):
        return
    for subject in context.requested:
        if subject.hostdev.acpi_index is not None:
            yield subject.problem(
                "acpi_index_unsupported",
                f"acpi_index is given, but the guest is {arch}, which has no ACPI.",
                "Leave acpi_index out.",
                "acpi_index",
                subject.hostdev.acpi_index,
            )
