# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's side of a hostdev: there is such a device, it can be given away, and it is named once."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context


def source_domain(context: Context) -> Iterator[Problem]:
    """QEMU takes host addresses in PCI domains up to 0xffff.

    Source: QEMU hw/core/qdev-properties-system.c, ``set_pci_host_devaddr``; libvirt lets larger ones through.
    """
    for subject in context.requested:
        if subject.source.domain > 0xFFFF:
            yield subject.problem(
                "source_domain_unsupported",
                f"the device is in PCI domain 0x{subject.source.domain:x}, but QEMU can assign devices of domains "
                "0x0000 to 0xffff only.",
                "A domain beyond that is made by the host's Intel VMD; switch VMD off for this slot in the firmware.",
                value=str(subject.source),
            )


def exists(context: Context) -> Iterator[Problem]:
    """The device is there. libvirt does not look until the domain is started."""
    for subject in context.requested:
        if context.device(subject.source) is None:
            yield subject.problem(
                "device_not_found",
                "there is no such PCI device on this host.",
                "Look at kvm.passthrough.pci_device_info; addresses move when hardware is added or removed.",
            )


def endpoint(context: Context) -> Iterator[Problem]:
    """VFIO gives away endpoints only.

    Source: kernel Documentation/driver-api/vfio.rst; libvirt ``virHostdevGetPCIHostDevice`` refuses at start.
    """
    for subject in context.requested:
        device = context.device(subject.source)
        if device is not None and device.is_bridge:
            yield subject.problem(
                "bridge",
                f"the device is a PCI bridge (class {device.pci_class:06x}), and VFIO cannot give a bridge to a guest.",
                "Name the devices behind the bridge.",
            )


def no_vfs(context: Context) -> Iterator[Problem]:
    """A PF whose VFs are in use stays with the host: taking it away takes the VFs away.

    Source: kernel Documentation/PCI/pci-iov-howto.rst.
    """
    for subject in context.requested:
        device = context.device(subject.source)
        if device is not None and device.sriov_numvfs:
            yield subject.problem(
                "has_vfs",
                f"the device is a PF with {device.sriov_numvfs} enabled VFs, which vanish when the host loses it.",
                "Give away VFs instead, or set the number of its VFs to 0 first.",
                vfs=[str(address) for address in device.vfs],
            )


def once(context: Context) -> Iterator[Problem]:
    """A device is given to a guest once, by a hostdev, an interface, or from a network.

    Source: libvirt ``virDomainHostdevMatch`` ("Hostdev already exists in the domain configuration", which does not say
    where). Addresses are compared as numbers: ``bus='10'`` is ``bus='0x0a'``.
    """
    for subject in context.requested:
        there = [str(one.value.kind) for one in context.definition.hostdevs if one.source == subject.source]
        if len(there) > 1:
            yield subject.problem(
                "duplicate_device",
                f"the definition has the device {len(there)} times, by {' and '.join(there)}.",
                "Remove all but one of these elements (virsh edit).",
            )
        elif subject.source in context.definition.pooled_sources:
            yield subject.problem(
                "duplicate_device",
                "the domain has the device already, from a network that is a pool of VFs.",
                "Name a VF that is not in the pool, or take that interface out of the domain.",
            )
