# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check of the report is: one subject, the result fields it answers, and the blockers it finds.

A check is a function, so a new one is a file beside this one and a line in ``registry``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Callable

from ..configured import Configured
from ..groups import Group
from ..machine import Machine
from ..modprobe import ModprobeSettings, modprobe_settings
from ..modules import KernelModules
from ..platform import Assessment, Blocker, Platform
from ..software import Versions, installed_versions


@dataclass
class Context:
    """What every check may ask: the host, the verdict on its IOMMU, and what several of them need, read once.

    ``platform`` is None when nothing shows the kind of IOMMU. ``with_groups`` says whether every group is listed.
    """

    machine: Machine
    platform: Platform | None
    assessment: Assessment
    configured: Configured
    groups: list[Group]
    with_groups: bool = False

    @cached_property
    def modules(self) -> KernelModules:
        """Which kernel modules there are."""
        return KernelModules(self.machine)

    @cached_property
    def modprobe(self) -> ModprobeSettings:
        """What modprobe was told about modules."""
        return modprobe_settings(self.machine)

    @cached_property
    def versions(self) -> Versions:
        """Which kernel, libvirt and QEMU the host has."""
        return installed_versions(self.machine)


@dataclass(frozen=True)
class Section:
    """What a check answers: fields of the result (JSON values), and what stands against passthrough."""

    fields: dict[str, Any] = field(default_factory=dict)
    blockers: tuple[Blocker, ...] = ()


Check = Callable[[Context], Section]
