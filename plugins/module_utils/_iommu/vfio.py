# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""How strict VFIO is, and what its interfaces are.

Sources: Documentation/driver-api/vfio.rst, Documentation/userspace-api/iommufd.rst, drivers/vfio/Kconfig.
"""

from __future__ import annotations

from . import parameters
from .machine import Machine
from .modprobe import ModprobeSettings

MODULE = "vfio_pci"
CONTAINER = "/dev/vfio/vfio"
DEVICES = "/dev/vfio/devices"
IOMMUFD = "/dev/iommu"
UNSAFE_INTERRUPTS = "allow_unsafe_interrupts"
BACK_ENDS = ("vfio_iommu_type1", "iommufd")
"""What can give a guest's memory to devices; each has the parameter ``allow_unsafe_interrupts``."""


def module_parameter(machine: Machine, settings: ModprobeSettings, module: str, name: str) -> bool:
    """Whether a switch of a module is on: as the module has it, else as it will have it once it is loaded."""
    running = machine.read(f"/sys/module/{module}/parameters/{name}")
    if running is not None:
        return running == "Y"
    given = machine.command_line.named(f"{module}.{name}")
    if given:
        return _is_true(given[-1].value)
    option = settings.option(module, name)
    return option is not None and _is_true(option or None)


def _is_true(value: str | None) -> bool:
    """A switch of a module that is given without a value is on (kernel/params.c, ``param_set_bool``)."""
    return value is None or parameters.boolean(value) is True


def unsafe_interrupts_allowed(machine: Machine, settings: ModprobeSettings) -> bool:
    """Whether VFIO was told to do without interrupt remapping, now or as soon as it is loaded."""
    return any(module_parameter(machine, settings, module, UNSAFE_INTERRUPTS) for module in BACK_ENDS)


def options(machine: Machine) -> dict[str, str]:
    """The options vfio-pci runs with; empty when it is not at work. The kernel does not show ``ids``."""
    folder = f"/sys/module/{MODULE}/parameters"
    values = {name: machine.read(f"{folder}/{name}") for name in machine.host.list_dir(folder)}
    return {name: value for name, value in values.items() if value is not None}


def has_device_files(machine: Machine) -> bool | None:
    """Whether VFIO devices have files of their own for IOMMUFD (CONFIG_VFIO_DEVICE_CDEV); None when nothing says."""
    if machine.host.is_dir(DEVICES):
        return True
    config = machine.kernel_config
    return None if config is None else config.get("CONFIG_VFIO_DEVICE_CDEV") == "y"
