# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers out of kernel text, which may be empty, cut or garbled when a device goes away while it is read."""

from __future__ import annotations


def integer(text: str | None, base: int = 10, lowest: int = 0) -> int | None:
    """The number in a sysfs attribute, or None when there is none.

    :param text: an attribute's text, or None when it could not be read; base 16 takes a leading ``0x``
    :param lowest: a smaller number is none (the kernel says -1 for "no NUMA node")
    """
    if text is None:
        return None
    try:
        number = int(text, base)
    except ValueError:
        return None
    return number if number >= lowest else None
