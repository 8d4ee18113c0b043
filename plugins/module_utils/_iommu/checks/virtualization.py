# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether KVM can run guests at all."""

from __future__ import annotations

from ..machine import Machine
from ..platform import Blocker
from .base import Context, Section

# The module of each processor extension (arch/x86/kvm/Makefile); elsewhere KVM is one module, or built in.
_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}
_KVM = "kvm"


def check_virtualization(context: Context) -> Section:
    """The processor's virtualization extension, and KVM."""
    machine = context.machine
    module = _MODULES.get(machine.virtualization_flag or "", _KVM)
    loaded = context.modules.state(module).loaded
    return Section(
        {
            "cpu": {
                "vendor": machine.cpu_vendor,
                "virtualization": machine.virtualization_flag,
                "is_virtual_machine": machine.is_virtual_machine,
            },
            "kvm": {"device": machine.has_kvm, "module": module, "loaded": loaded},
        },
        tuple(_kvm_blockers(machine, module, loaded)),
    )


def _kvm_blockers(machine: Machine, module: str, loaded: bool) -> list[Blocker]:
    if machine.has_kvm:
        return []
    if machine.lacks_virtualization:
        on_x86 = bool(machine.cpu_flags)
        flags = "neither vmx nor svm is among its flags" if on_x86 else "sie is not among its features"
        where = "Switch on Intel VT-x or AMD SVM in the firmware setup; in" if on_x86 else "In"
        return [
            Blocker(
                "no_virtualization",
                "error",
                f"The processor offers no hardware virtualization ({flags}), so KVM cannot run guests here.",
                f"{where} a virtual machine, nested virtualization has to be switched on by its host.",
            )
        ]
    if module == _KVM:
        return [
            Blocker(
                "no_kvm",
                "warning",
                "/dev/kvm is not there, so KVM cannot run guests now.",
                "Load the module kvm. On Arm the kernel has to be started at EL2, which is the firmware's decision; "
                "dmesg says (look for kvm).",
            )
        ]
    if loaded:
        return [
            Blocker(
                "no_kvm",
                "warning",
                f"/dev/kvm is not there although the module {module} is, so KVM cannot run guests now.",
                "In a container, hand /dev/kvm in. On the host, see that udev or devtmpfs makes device nodes.",
            )
        ]
    return [
        Blocker(
            "no_kvm",
            "warning",
            f"/dev/kvm is not there, since the module {module} is not loaded, so KVM cannot run guests now.",
            f"Run modprobe {module} on the host. When that fails, dmesg says what hinders it: most often the "
            "firmware has locked the processor's virtualization although the processor shows it.",
        )
    ]
