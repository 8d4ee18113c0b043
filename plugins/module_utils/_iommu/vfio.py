# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the kernel can hand devices to user space: the module vfio-pci, and how strict VFIO is.

Sources: modules.builtin and modules.dep (Documentation/kbuild/kbuild.rst, depmod(8)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .machine import Machine

MODULE = "vfio_pci"
DRIVER = "/sys/bus/pci/drivers/vfio-pci"
UNSAFE_INTERRUPTS = (
    "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
    "/sys/module/iommufd/parameters/allow_unsafe_interrupts",
)


@dataclass(frozen=True)
class VfioPci:
    """The driver vfio-pci. ``available`` is None when the running kernel's list of modules is not there."""

    loaded: bool
    built_in: bool
    available: bool | None

    def as_result(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {"loaded": self.loaded, "built_in": self.built_in, "available": self.available}


def vfio_pci(machine: Machine) -> VfioPci:
    """Whether vfio-pci is at work, part of the kernel, or could be loaded."""
    loaded = machine.host.is_dir(DRIVER)
    folder = f"/lib/modules/{machine.kernel}"
    built_in = _lists(machine.read(f"{folder}/modules.builtin"))
    if loaded or built_in:
        return VfioPci(loaded, bool(built_in), True)
    return VfioPci(False, False, _lists(machine.read(f"{folder}/modules.dep")))


def unsafe_interrupts_allowed(machine: Machine) -> bool:
    """Whether VFIO was told to do without interrupt remapping, now or as soon as it is loaded."""
    if any(machine.read(path) == "Y" for path in UNSAFE_INTERRUPTS):
        return True
    keys = ("vfio_iommu_type1.allow_unsafe_interrupts", "iommufd.allow_unsafe_interrupts")
    values = [parameter.value for key in keys for parameter in machine.command_line.named(key)]
    # kstrtobool(): y, Y, t, T, 1, on; a parameter without value is true.
    return any(value is None or value[:1] in "yYtT1" or value[:2].lower() == "on" for value in values)


def _lists(text: str | None) -> bool | None:
    """Whether a list of module files (``kernel/drivers/vfio/pci/vfio-pci.ko.xz: …``) has the module."""
    if text is None:
        return None
    for line in text.splitlines():
        name = line.partition(":")[0].rpartition("/")[2].partition(".ko")[0]
        if name.replace("-", "_") == MODULE:
            return True
    return False
