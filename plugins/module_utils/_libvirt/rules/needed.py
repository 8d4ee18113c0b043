# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host itself cannot do without."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from ..._pci.device import PciDevice, is_vfio_driver
from ..._vfio.guards.base import Finding, GuardContext
from ..._vfio.guards.registry import check_device
from .context import Context

# Other rules speak of these in the terms of a definition; what VFIO wants of the host may be put right before the
# domain starts.
_LEFT_TO_OTHERS = frozenset(("bridge", "has_vfs", "in_use_by_domain", "no_iommu", "no_interrupt_remapping"))


def host_can_spare(context: Context) -> Iterator[Problem]:
    """The host does not live on a device that libvirt takes from it when the domain is started.

    With ``managed: true`` libvirt unbinds the host's driver without a question (``virHostdevPreparePCIDevices``), root
    disk or not. The guards are those of vfio_devices, and there they can be forced; a device that is bound to a VFIO
    driver is past that, and so is one that the definition has like this already: it is not about to change.
    """
    guards = GuardContext(context.host, context.bus)
    for subject in context.requested:
        device = context.device(subject.source)
        if device is None or subject.hostdev.managed is False or is_vfio_driver(device.driver):
            continue
        present = context.definition.hostdev(subject.source)
        if present is not None and present.value.managed:
            continue
        for finding in refusals(device, guards):
            yield subject.problem(
                finding.code,
                finding.message,
                f"{finding.remedy} To give it away all the same, bind it with kvm.passthrough.vfio_devices first, "
                f"with {finding.code} in force.",
            )


def refusals(device: PciDevice, guards: GuardContext) -> Iterator[Finding]:
    """Why the host cannot do without a device, as far as no other rule of a definition says so."""
    return (one for one in check_device(device, guards) if one.refuses and one.code not in _LEFT_TO_OTHERS)
