# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""initramfs-tools (Debian, Ubuntu). Sources: initramfs-tools(7), its hook ``udev``, which copies /etc/udev/rules.d."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ..._core.errors import PassthroughError
from ..._core.files import FileState
from ..._core.host import Host
from .rules import RULES_NAME

HOOK_PATH = "/etc/initramfs-tools/hooks/kvm-passthrough"
LISTING_TIMEOUT = 600.0

_HOOK_FUNCTIONS = "/usr/share/initramfs-tools/hook-functions"
_HOOK = """\
#!/bin/sh
# Written by kvm.passthrough.vfio_devices, which replaces or removes the whole file.
# The rules {rules} are copied by the hook of udev; this adds the drivers they name.
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

    def settings(self, drivers: Collection[str]) -> Mapping[str, FileState]:
        """See :class:`.initramfs.Initramfs`."""
        if not drivers:
            return {HOOK_PATH: FileState(None)}
        text = _HOOK.format(rules=RULES_NAME, functions=_HOOK_FUNCTIONS, drivers=" ".join(sorted(drivers)))
        return {HOOK_PATH: FileState(text.encode(), mode=0o755)}

    def command(self) -> list[str]:
        """See :class:`.initramfs.Initramfs`."""
        return ["update-initramfs", "-u", "-k", "all"]

    def check(self, host: Host, drivers: Collection[str]) -> None:
        """See :class:`.initramfs.Initramfs`."""
        for version in host.list_dir("/lib/modules"):
            image = f"/boot/initrd.img-{version}"
            if not host.exists(image):
                continue
            names = host.run(["lsinitramfs", image], timeout=LISTING_TIMEOUT).stdout.splitlines()
            has_rules = any(name.endswith(f"/udev/rules.d/{RULES_NAME}") for name in names)
            if has_rules != bool(drivers):
                raise _incomplete(image, f"{'still has' if has_rules else 'lacks'} the udev rules {RULES_NAME}")
            for driver in drivers:
                if _is_module(host, version, driver) and not any(_holds_module(name, driver) for name in names):
                    raise _incomplete(image, f"lacks the module {driver}")


def _is_module(host: Host, version: str, driver: str) -> bool:
    """Whether a driver is a module of a kernel, rather than built in or not there at all."""
    text = host.attribute(f"/lib/modules/{version}/modules.dep") or ""
    return any(_holds_module(line.partition(":")[0], driver) for line in text.splitlines())


def _holds_module(path: str, driver: str) -> bool:
    """Whether a path is that of a module: names are the same with dashes and underscores, files may be compressed."""
    name = re.fullmatch(r"(?:.*/)?([^/]+)\.ko(?:\.[a-z0-9]+)?", path)
    return name is not None and name[1].replace("-", "_") == driver.replace("-", "_")


def _incomplete(image: str, what: str) -> PassthroughError:
    return PassthroughError(
        "initramfs_incomplete",
        f"update-initramfs ended well, but {image} {what}.",
        "Look at /etc/initramfs-tools (update_initramfs in update-initramfs.conf, hooks that fail) and run "
        "'update-initramfs -u -k all' by hand to see what it says.",
        image=image,
    )
