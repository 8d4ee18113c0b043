# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which modules the running kernel has: at work, built in, or there to be loaded.

Sources: modules.builtin and modules.dep (Documentation/kbuild/kbuild.rst, depmod(8)); /sys/module
(Documentation/ABI/stable/sysfs-module).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .machine import Machine

# The options (drivers/vfio, drivers/iommu/iommufd) that say what there is where no list of modules does.
_OPTIONS = {
    "vfio_pci": "CONFIG_VFIO_PCI",
    "vfio_iommu_type1": "CONFIG_VFIO_IOMMU_TYPE1",
    "iommufd": "CONFIG_IOMMUFD",
}

# ``kernel/drivers/vfio/pci/vfio-pci.ko.xz: …`` in modules.dep, without what follows the name in modules.builtin.
_LISTED = re.compile(r"^(?:[^\s:]*/)?([^\s:/]+?)\.ko\b", re.MULTILINE)


@dataclass(frozen=True)
class ModuleState:
    """A module: at work, part of the kernel, there at all. ``available`` is None when nothing says."""

    loaded: bool
    built_in: bool
    available: bool | None

    @property
    def usable_now(self) -> bool:
        """Whether nothing has to be loaded."""
        return self.loaded or self.built_in

    def as_result(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {"loaded": self.loaded, "built_in": self.built_in, "available": self.available}


class KernelModules:
    """The modules of the running kernel."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._folder = f"/lib/modules/{machine.kernel}"

    def state(self, name: str) -> ModuleState:
        """The state of a module, by its name with underscores (``vfio_pci``)."""
        loaded = self._machine.host.is_dir(f"/sys/module/{name}")
        how = self._configured(name) if self._builtin is None else None
        built_in = how == "y" or name in (self._builtin or ())
        if loaded or built_in:
            return ModuleState(loaded, built_in, True)
        if self._loadable is not None:
            return ModuleState(False, False, name in self._loadable)
        # Built as a module, but its file is nowhere to be seen: whether it can be loaded is not known.
        return ModuleState(False, False, False if how == "n" else None)

    def _configured(self, name: str) -> str | None:
        """How the kernel was built with a module (``y``, ``m``, ``n``); None when nothing says."""
        config = self._machine.kernel_config
        option = _OPTIONS.get(name)
        return None if config is None or option is None else config.get(option, "n")

    @cached_property
    def _builtin(self) -> frozenset[str] | None:
        return self._names("modules.builtin")

    @cached_property
    def _loadable(self) -> frozenset[str] | None:
        return self._names("modules.dep")

    def _names(self, file: str) -> frozenset[str] | None:
        text = self._machine.read(f"{self._folder}/{file}")
        return None if text is None else frozenset(name.replace("-", "_") for name in _LISTED.findall(text))
