# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keyboards of a host, and which PCI functions they are behind.

Sources: Documentation/input/event-codes.rst, include/uapi/linux/input-event-codes.h.
"""

from __future__ import annotations

from functools import cached_property

from .._core.host import Host
from .._pci.device import PciDevice

CLASS_INPUT = "/sys/class/input"

# Keys 1 (KEY_ESC) to 31 (KEY_S): what has them all is a keyboard to udev, too (ID_INPUT_KEYBOARD), and a power button,
# a remote control or a bar code reader's few keys are not.
_KEYBOARD = 0xFFFFFFFE


class Keyboards:
    """The keyboards of real hardware. Everything is read on first use and then kept."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def names(self) -> list[str]:
        """The keyboards as the kernel names its input devices (``input3``)."""
        return list(self._paths)

    def label(self, name: str) -> str:
        """What a keyboard calls itself (``Logitech USB Keyboard``)."""
        return self._host.attribute(f"{CLASS_INPUT}/{name}/name") or name

    def behind(self, device: PciDevice) -> list[str]:
        """Those behind a PCI function."""
        prefix = self._host.real_path(device.path) + "/"
        return [name for name, path in self._paths.items() if path.startswith(prefix)]

    @cached_property
    def _paths(self) -> dict[str, str]:
        found = {}
        for name in self._host.list_dir(CLASS_INPUT):
            path = f"{CLASS_INPUT}/{name}"
            if not name.startswith("input") or not _is_keyboard(self._host.attribute(f"{path}/capabilities/key")):
                continue
            real = self._host.real_path(path)
            if not real.startswith("/sys/devices/virtual/"):  # made by a program (uinput)
                found[name] = real
        return found


def _is_keyboard(keys: str | None) -> bool:
    """Whether a bitmap of keys (hexadecimal words of the machine's size, the highest first) is that of a keyboard."""
    words = (keys or "").split()
    try:
        lowest = int(words[-1], 16) if words else 0
    except ValueError:
        return False
    return lowest & _KEYBOARD == _KEYBOARD
