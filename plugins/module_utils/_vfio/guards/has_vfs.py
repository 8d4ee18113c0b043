# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A physical function whose virtual functions exist."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Change, Guard, GuardContext, Reason


class HasVfs(Guard):
    """The host's driver of the PF serves the VFs; without it they vanish or stop working."""

    code = "has_vfs"
    changes = frozenset((Change.BIND, Change.ASSIGN))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        if device.sriov_numvfs:
            yield Reason(
                f"{device.address} has {device.sriov_numvfs} virtual functions, which its present driver serves "
                f"({', '.join(str(address) for address in device.vfs)}).",
                "Give away the virtual functions instead, or remove them first.",
            )
