# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secure Boot and lockdown. Neither stands against passthrough.

VFIO has no lockdown reason of its own (include/linux/security.h, ``enum lockdown_reason``), and a distribution's
modules are signed; what is refused is a module somebody built without signing it. So this makes no blockers.

Sources: UEFI specification 3.3 (SecureBoot, SetupMode); drivers/firmware/efi/libstub/secureboot.c; shim's
MokVars.txt (MokSBStateRT); arch/s390/kernel/ipl.c (``secure``).
"""

from __future__ import annotations

from ..._boot.efi import VARIABLES
from ..._core.errors import PassthroughError
from ..machine import Machine
from .base import Context, Section

GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHIM_GUID = "605dab50-e046-4300-abb6-3dd810dd8b23"
S390_SECURE = "/sys/firmware/ipl/secure"


def check_secure_boot(context: Context) -> Section:
    """Whether the firmware checks what it starts, and how far the kernel is locked down."""
    return Section({"secure_boot": secure_boot(context.machine), "lockdown": context.machine.lockdown})


def secure_boot(machine: Machine) -> bool | None:
    """Whether the host was started with Secure Boot in force; None when that cannot be seen."""
    ipl = machine.read(S390_SECURE)
    if ipl is not None:
        return ipl == "1"
    if not machine.host.is_dir("/sys/firmware/efi"):
        # Without EFI there is no Secure Boot; an empty /sys/firmware is what a container shows.
        return False if machine.host.list_dir("/sys/firmware") else None
    name = f"SecureBoot-{GLOBAL_GUID}"
    if not machine.host.exists(f"{VARIABLES}/{name}"):
        return False if machine.host.list_dir(VARIABLES) else None
    enabled = _efi_flag(machine, name)
    if not enabled:
        return enabled
    # In setup mode anybody may replace the keys; with shim's switch its own checks are off.
    return not (_efi_flag(machine, f"SetupMode-{GLOBAL_GUID}") or _efi_flag(machine, f"MokSBStateRT-{SHIM_GUID}"))


def _efi_flag(machine: Machine, name: str) -> bool | None:
    """An EFI variable of one byte, after the four of its attributes; None when it is not there or not readable."""
    path = f"{VARIABLES}/{name}"
    if not machine.host.exists(path):
        return None
    try:
        content = machine.host.read_bytes(path)
    except PassthroughError:
        machine.unreadable.append(path)
        return None
    return content[4] == 1 if len(content) == 5 else None
