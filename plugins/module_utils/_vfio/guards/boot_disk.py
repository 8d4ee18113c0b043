# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A disk the host lives on stays with the host."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Change, Guard, GuardContext, Reason


class BootDisk(Guard):
    """Root, boot, swap, any mounted file system or active volume, through whatever layers lie in between, and any disk
    that a program writes to.

    A physical function is also answered for by its virtual functions (NVMe), which go when its driver goes.
    """

    code = "boot_disk"
    changes = frozenset((Change.BIND, Change.REMOVE))

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        vfs = [context.bus.device(address) for address in device.vfs if address in context.bus]
        for function in (device, *vfs):
            of_vf = "" if function is device else f", of its virtual function {function.address}"
            for name in context.topology.block_devices(function):
                if context.storage.is_partition(name):
                    continue  # its uses are those of its disk, which is here as well
                uses = context.storage.uses(name)
                if uses:
                    yield Reason(
                        f"The host uses the disk {name} behind {device.address}{of_vf}: {'; '.join(uses)}.",
                        "If the host can do without it, unmount it, switch its swap off, deactivate its volumes, "
                        "end what writes to it.",
                    )
