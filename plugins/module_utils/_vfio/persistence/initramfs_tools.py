# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""initramfs-tools (Debian, Ubuntu).

Sources: initramfs-tools(7); its hook ``udev`` copies /etc/udev/rules.d, and mkinitramfs /etc/modprobe.d. As
update-initramfs builds ``initrd.img-VERSION.new`` and renames it only when that ended well, an old image survives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..._core.errors import Problem
from ..._core.files import FileState
from ..._core.host import Host
from . import images
from .images import Image
from .initramfs import BUILD_TIMEOUT, Inspect

HOOK_PATH = "/etc/initramfs-tools/hooks/kvm-passthrough"

_HOOK_FUNCTIONS = "/usr/share/initramfs-tools/hook-functions"
_HOOK = """\
#!/bin/sh
# Written by kvm.passthrough.vfio_devices, which replaces or removes the whole file.
# This adds the drivers; initramfs-tools itself copies what else there is to have:
# {carried}
PREREQ=""

case "$1" in
prereqs)
    echo "$PREREQ"
    exit 0
    ;;
esac

. {functions}

manual_add_modules {drivers}
"""


class InitramfsTools:
    """A hook adds the modules; the images are built by ``update-initramfs``, now and for each kernel to come."""

    name = "initramfs-tools"

    def is_used(self, host: Host) -> bool:
        """Other tools may bring an ``update-initramfs`` of their own; the hook functions come with this one only."""
        return host.exists(_HOOK_FUNCTIONS) and host.which("update-initramfs") is not None

    def obstacle(self, host: Host) -> Problem | None:
        """See :class:`.initramfs.Initramfs`."""
        return None

    def settings(self, drivers: Collection[str], carried: Collection[str]) -> Mapping[str, FileState]:
        """See :class:`.initramfs.Initramfs`."""
        if not drivers:
            return {HOOK_PATH: FileState(None)}
        text = _HOOK.format(
            carried=" ".join(sorted(carried)), functions=_HOOK_FUNCTIONS, drivers=" ".join(sorted(drivers))
        )
        return {HOOK_PATH: FileState(text.encode(), mode=0o755)}

    def images(self, host: Host) -> list[Image]:
        """See :class:`.initramfs.Initramfs`. Hooks of boot loaders (/etc/initramfs/post-update.d) make the copies."""
        return images.find(host)

    def build(self, host: Host, inspect: Inspect) -> None:
        """See :class:`.initramfs.Initramfs`."""
        host.run(["update-initramfs", "-u", "-k", "all"], timeout=2 * BUILD_TIMEOUT)
