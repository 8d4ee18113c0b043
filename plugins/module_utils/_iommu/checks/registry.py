# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""All checks, in the order in which their blockers are told. A new check is a file beside this one and a line here."""

from __future__ import annotations

from .base import Check
from .groups import check_groups
from .interrupts import check_interrupt_remapping
from .libvirt_daemon import check_libvirt_daemon
from .parameters import check_parameters
from .platform import check_platform
from .secure_boot import check_secure_boot
from .versions import check_versions
from .vfio import check_vfio
from .virtualization import check_virtualization

CHECKS: tuple[Check, ...] = (
    check_platform,
    check_parameters,
    check_interrupt_remapping,
    check_groups,
    check_vfio,
    check_secure_boot,
    check_virtualization,
    check_versions,
    check_libvirt_daemon,
)
