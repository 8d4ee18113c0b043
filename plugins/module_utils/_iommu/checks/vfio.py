# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the kernel can hand devices to user space: vfio-pci, what is behind it, what keeps it from loading."""

from __future__ import annotations

from .. import vfio
from ..modprobe import kernel_refusal
from ..modules import ModuleState
from ..platform import Blocker
from .base import Context, Section

# What loading vfio_pci loads, too; vfio_iommu_type1 is asked for by the kernel when a guest opens its first device.
_NEEDED = ("vfio", "vfio_pci_core", vfio.MODULE, "vfio_iommu_type1")
_NO_IOMMU = "enable_unsafe_noiommu_mode"


def check_vfio(context: Context) -> Section:
    """The driver vfio-pci, the back ends, and how VFIO is set."""
    machine = context.machine
    pci = context.modules.state(vfio.MODULE)
    back_ends = {module: context.modules.state(module) for module in vfio.BACK_ENDS}
    no_iommu = vfio.module_parameter(machine, context.modprobe, "vfio", _NO_IOMMU)
    described = {
        module: {
            **state.as_result(),
            "allow_unsafe_interrupts": vfio.module_parameter(machine, context.modprobe, module, vfio.UNSAFE_INTERRUPTS),
        }
        for module, state in back_ends.items()
    }
    iommufd = back_ends["iommufd"]
    return Section(
        {
            "vfio": {
                "pci": {
                    **pci.as_result(),
                    "blacklisted": context.modprobe.blacklisting(vfio.MODULE) is not None,
                    "options": vfio.options(machine),
                },
                "type1": described["vfio_iommu_type1"],
                "iommufd": {
                    **described["iommufd"],
                    "device": machine.host.exists(vfio.IOMMUFD),
                    "vfio_device_files": False if iommufd.available is False else vfio.has_device_files(machine),
                },
                "container": machine.host.exists(vfio.CONTAINER),
                "unsafe_noiommu_mode": no_iommu,
            }
        },
        (
            *_missing(context, pci, back_ends),
            *_not_loadable(context, pci),
            *(_no_iommu_mode() if no_iommu else ()),
        ),
    )


def _missing(context: Context, pci: ModuleState, back_ends: dict[str, ModuleState]) -> list[Blocker]:
    kernel = context.machine.kernel
    if pci.available is None:
        return [
            Blocker(
                "kernel_modules_missing",
                "warning",
                f"Whether the running kernel {kernel} has the driver vfio-pci is not known: "
                f"/lib/modules/{kernel} is not there.",
                "Look on the host itself: a container has no modules of its own."
                if context.machine.container is not None
                else "When the kernel was upgraded or removed since the host was started, reboot the host.",
            )
        ]
    if not pci.available:
        return [
            Blocker(
                "vfio_pci_missing",
                "error",
                f"The running kernel {kernel} has no driver vfio-pci, neither built in nor as a module.",
                "Install the kernel package that has it (often named linux-modules-extra or kernel-modules-extra), "
                "or boot another kernel.",
            )
        ]
    if all(state.available is False for state in back_ends.values()):
        return [
            Blocker(
                "vfio_back_end_missing",
                "error",
                f"The running kernel {kernel} has vfio-pci, but neither {' nor '.join(back_ends)}: VFIO has nothing "
                "to give a guest's memory to devices with.",
                "Install the kernel package that has one of them (often named linux-modules-extra or "
                "kernel-modules-extra), or boot another kernel.",
            )
        ]
    return []


def _not_loadable(context: Context, pci: ModuleState) -> list[Blocker]:
    """What keeps the modules from being loaded, where they are not at work; loaded once, they stay for this boot."""
    if pci.available is False:
        return []
    for module in _NEEDED:
        state = context.modules.state(module)
        if state.usable_now or state.available is False:
            continue
        if module == "vfio_iommu_type1" and context.modules.state("iommufd").usable_now:
            continue
        refusal = kernel_refusal(context.machine, module)
        if refusal is not None:
            return [
                Blocker(
                    "vfio_not_loadable",
                    "error",
                    f"The kernel refuses to load the module {module}, which VFIO needs: {refusal}.",
                    "Remove that setting and reboot the host, or see that the module is loaded at boot before it "
                    "takes effect.",
                )
            ]
        disabling = context.modprobe.disabling(module)
        if disabling is not None:
            return [
                Blocker(
                    "vfio_not_loadable",
                    "error",
                    f"modprobe does not load the module {module}, which VFIO needs: {disabling.source} has it run "
                    f"{disabling.argument!r} instead.",
                    f"Remove the line 'install {disabling.module} …' from {disabling.source}; where the file is in the "
                    "initramfs, build that again.",
                )
            ]
    blacklisting = context.modprobe.blacklisting(vfio.MODULE)
    if blacklisting is not None and not pci.usable_now:
        return [
            Blocker(
                "vfio_pci_blacklisted",
                "warning",
                f"The module vfio_pci is on modprobe's blacklist ({blacklisting.source}) and not loaded: libvirt does "
                "not load it for a device it manages, nor does systemd at boot.",
                "Remove it from the blacklist.",
            )
        ]
    return []


def _no_iommu_mode() -> list[Blocker]:
    return [
        Blocker(
            "noiommu_mode",
            "warning",
            f"VFIO was told to do without an IOMMU ({_NO_IOMMU}): whoever may open such a device can read and write "
            "all memory of this host.",
            f"Remove vfio.{_NO_IOMMU} from the kernel's parameters and from modprobe's settings, and reboot the host. "
            "Guests of libvirt cannot use it anyway.",
        )
    ]
