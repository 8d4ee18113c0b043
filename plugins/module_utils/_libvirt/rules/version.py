# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the host's libvirt knows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..._core.errors import Problem
from ..._iommu.software import ZPCI_MINIMUM
from ..element import bindings
from ..hostdev import SAYS_NOTHING
from .context import Context

_FIRST = re.compile(r"(\d+)\.(\d+)")
_NAMES = {"kernel": "the kernel", "libvirt": "libvirt", "qemu": "QEMU"}


def known(context: Context) -> Iterator[Problem]:
    """A setting is not older than the libvirt that has to understand it; an older one drops it without a word.

    Source: the version in which libvirt's "Domain XML format" says each was introduced (``since`` of the field).
    """
    if context.version is None:
        return
    for subject in context.requested:
        for field, binding in bindings(subject.hostdev):
            value = None if subject.asked is None else getattr(subject.asked, field)
            if binding.since is None or binding.since <= context.version or value in (None, SAYS_NOTHING.get(field)):
                continue
            yield subject.problem(
                "libvirt_too_old",
                f"{binding.option} needs libvirt {_text(binding.since)}, but this host has {_text(context.version)}, "
                "which would ignore it without a word.",
                f"Leave {binding.option} out, or update libvirt on the host.",
                field,
                binding.shown(value),
                needed=_text(binding.since),
                version=_text(context.version),
            )


def ibm_z(context: Context) -> Iterator[Problem]:
    """IBM Z needs libvirt 4.10 and QEMU 2.11 (and kernel 4.14) for PCI devices.

    Source: IBM, "PCI passthrough", and the announcements of zPCI passthrough; see :mod:`_iommu.software`.
    """
    if context.definition.arch != "s390x":
        return
    kernel = _FIRST.match(context.host.attribute("/proc/sys/kernel/osrelease") or "")
    found = {
        "kernel": None if kernel is None else (int(kernel[1]), int(kernel[2])),
        "libvirt": context.version,
        "qemu": context.qemu,
    }
    for subject in context.requested:
        for name, minimum in ZPCI_MINIMUM.items():
            version = found[name]
            if version is not None and version < minimum:
                yield subject.problem(
                    "version_too_old",
                    f"on IBM Z, PCI passthrough needs {_NAMES[name]} {_text(minimum)}, but this host has "
                    f"{_text(version)}.",
                    f"Upgrade {_NAMES[name]}.",
                    needed=_text(minimum),
                    version=_text(version),
                )


def _text(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)
