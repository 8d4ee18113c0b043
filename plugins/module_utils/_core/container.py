# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this is a container, whose kernel, boot loader and devices are those of its host."""

from __future__ import annotations

from .host import Host


def container(host: Host) -> str | None:
    """What shows that this is a container, in words; None on a machine, virtual ones included.

    The rules are those of systemd's detect_container() (src/basic/virt.c), without the ones that guess.
    """
    name = host.attribute("/run/systemd/container")
    if name:
        return f"/run/systemd/container says {name}"
    if host.exists("/run/.containerenv"):
        return "/run/.containerenv is there"
    for setting in (host.attribute("/proc/1/environ") or "").split("\0"):
        if setting.startswith("container=") and len(setting) > len("container="):
            return f"process 1 was started with {setting}"
    return None


def container_image(host: Host) -> str | None:
    """What shows that this file tree was made for a container, in words; None when nothing does.

    It proves no container: a machine whose disk was made from a container image has the mark, too.
    """
    return "/.dockerenv is there" if host.exists("/.dockerenv") else None
