# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Versions of kernel, libvirt and QEMU, and the minimum that IBM Z needs.

Sources: libvirt's NEWS for 6.5.0, and those of ``ZPCI_MINIMUM``.
What is not installed is no blocker: a host that is being prepared has neither libvirt nor QEMU yet.
"""

from __future__ import annotations

from ..platform import Blocker
from ..software import ZPCI_MINIMUM, Version, Versions, shown
from .base import Context, Section

ZPCI_ADDRESSES: tuple[int, ...] = (6, 5)
_NAMES = {"kernel": "the running kernel", "libvirt": "libvirt", "qemu": "QEMU"}


def check_versions(context: Context) -> Section:
    """What is installed, and what of it is too old."""
    versions = context.versions
    is_z = context.machine.architecture in ("s390x", "s390")
    return Section({"versions": versions.as_result()}, tuple(_zpci_blockers(versions)) if is_z else ())


def _zpci_blockers(versions: Versions) -> list[Blocker]:
    found = []
    for name, minimum in ZPCI_MINIMUM.items():
        version: Version = getattr(versions, name)
        if version is not None and version < minimum:
            found.append(
                Blocker(
                    "version_too_old",
                    "error",
                    f"On IBM Z, PCI passthrough needs {_NAMES[name]} to be at least {shown(minimum)}; "
                    f"it is {shown(version)}.",
                    f"Upgrade {_NAMES[name]}.",
                )
            )
    libvirt = versions.libvirt
    if libvirt is not None and ZPCI_MINIMUM["libvirt"] <= libvirt < ZPCI_ADDRESSES:
        found.append(
            Blocker(
                "zpci_addresses_unreliable",
                "warning",
                f"libvirt {shown(libvirt)} makes up wrong uid and fid for devices that do not name them; "
                f"this was corrected in {shown(ZPCI_ADDRESSES)}.",
                "Give every device uid and fid (zpci of the guest's address), or upgrade libvirt.",
            )
        )
    return found
