# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A graphics card that programs draw or compute with."""

from __future__ import annotations

from collections.abc import Iterator

from ..._pci.device import PciDevice
from .base import Guard, GuardContext, Reason


class DisplayInUse(Guard):
    """Open files of /dev/dri, be it the card (a desktop, Plymouth) or its render node (transcoding, computing).

    A driver that is taken away from under them waits for them for ever, or leaves them with a device that is gone
    (Documentation/gpu/drm-uapi.rst, "Device Hot-Unplug").
    """

    code = "display_in_use"

    def reasons(self, device: PciDevice, context: GuardContext) -> Iterator[Reason]:
        nodes = {f"/dev/dri/{name}" for name in context.topology.drm_nodes(device)}
        if not nodes:
            return
        opened = {(file.pid, file.path) for file in context.processes.device_files if file.path in nodes}
        if opened:
            holders = [f"{path} by {context.processes.holder(pid)}" for pid, path in sorted(opened)]
            yield Reason(
                f"Programs use the graphics card {device.address}: {', '.join(holders)}.",
                "End them first (a desktop: log out and stop the display manager), or have them use another card.",
            )
