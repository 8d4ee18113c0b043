# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules for a pool of VFs, which libvirt mostly applies when a guest that uses the pool is started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Callable, Optional

from ..._core.errors import Problem
from ..._core.host import Host
from ..._iommu.groups import leaves_group_free
from ..._pci.address import PciAddress
from ..._pci.device import Bus, PciDevice, is_vfio_driver
from ..._vfio.guards.base import GuardContext
from ..element import Version, bindings, version_text
from ..hostdev import VIRTUALPORT_TYPE
from ..network import Pool, members, pf_device
from .needed import refusals


@dataclass(frozen=True)
class PoolContext:
    """All that a rule may look at."""

    name: str
    pool: Pool
    """The pool as it would be."""
    asked: Optional[Pool]
    """What a person says about it; None for a pool that is only looked at."""
    known: frozenset[PciAddress]
    """The VFs that it has already: what the host loses is not about to change."""
    runs: bool
    """Whether it is to be active, now or from the next start of the daemon on."""
    others: Mapping[PciAddress, Sequence[str]]
    """Who else has a device: ``the domain web01``, ``the network pool2``."""
    version: Version
    host: Host
    bus: Bus

    def problem(
        self, code: str, message: str, remedy: str = "", device: PciAddress | None = None, **details: Any
    ) -> Problem:
        """A problem of this pool, or of a device of it."""
        label = f"network {self.name}" if device is None else f"network {self.name} ({device})"
        known = {"network": self.name, **({} if device is None else {"device": str(device)})}
        return Problem(code, f"{label}: {message}", remedy, {**known, **details})

    @cached_property
    def members(self) -> list[PciAddress]:
        """The VFs that guests would get."""
        return members(self.pool, self.host, self.bus)

    @property
    def devices(self) -> Iterator[PciDevice]:
        """The VFs that guests would get, as far as they are there."""
        return (self.bus.device(address) for address in self.members if address in self.bus)

    @property
    def managed(self) -> bool:
        """Whether libvirt takes the VFs from the host's driver by itself."""
        return bool(self.pool.managed)


PoolRule = Callable[[PoolContext], Iterable[Problem]]


def known_settings(context: PoolContext) -> Iterator[Problem]:
    """A setting is not older than the libvirt that has to understand it; an older one drops it without a word.

    Source: the version in which libvirt's "Network XML format" says each was introduced (``since`` of the field).
    """
    for field, binding in bindings(context.pool):
        value = None if context.asked is None else getattr(context.asked, field)
        if value is None or binding.since is None or binding.since <= context.version:
            continue
        needed, have = version_text(binding.since), version_text(context.version)
        yield context.problem(
            "libvirt_too_old",
            f"{binding.option} needs libvirt {needed}, but this host has {have}, which would ignore it without a word.",
            f"Leave {binding.option} out, or update libvirt on the host.",
            field=binding.option,
            value=binding.shown(value),
            needed=needed,
            version=have,
        )


def one_tag(context: PoolContext) -> Iterator[Problem]:
    """A VF has one VLAN tag, of those that there are, and no trunk.

    Source: libvirt ``virNetDevSetNetConfig`` ("vlan trunking is not supported by SR-IOV network devices"), which is
    called when the guest starts.
    """
    for group in context.pool.groups:
        where = f"port group {group.name}" if group.name else "the network"
        if group.vlan is not None and not group.vlan.possible:
            yield context.problem(
                "vlan_trunk",
                f"{where} has the VLANs {group.vlan.shown}, but a VF can have one only; a guest would not start.",
                "Give one vlan, and each further one a port group of its own.",
                field="vlan",
                value=group.vlan.shown,
            )
        elif group.vlan is not None and any(not 1 <= number <= 4094 for number, _mode in group.vlan.tags):
            yield context.problem(
                "vlan_reserved",
                f"{where} has the VLAN {group.vlan.tags[0][0]}, which is none: 0 stands for no VLAN, and 4095 is "
                "reserved (IEEE 802.1Q).",
                "Choose one from 1 to 4094.",
                field="vlan",
                value=group.vlan.shown,
            )


def virtualport_kind(context: PoolContext) -> Iterator[Problem]:
    """The port profile of a VF is of the kind 802.1Qbh, and then the switch sets the VLAN.

    Source: libvirt ``virHostdevNetConfigVirtPortProfile`` and ``virHostdevSetNetConfig``, when the guest starts.
    """
    for group in context.pool.groups:
        where = f"port group {group.name}" if group.name else "the network"
        port = group.virtualport
        if port is None or not port.type:
            continue
        if port.type != VIRTUALPORT_TYPE:
            yield context.problem(
                "virtualport_unsupported",
                f"{where} has a virtualport of type {port.type}, but a VF can have {VIRTUALPORT_TYPE} only; a guest "
                "would not start.",
                f"Give a virtualport of type {VIRTUALPORT_TYPE}, or of type none.",
                field="virtualport",
                value=port.type,
            )
        elif not dict(port.parameters).get("profileid"):
            yield context.problem(
                "virtualport_incomplete",
                f"{where} has a virtualport without a profileid; a guest would not start.",
                "Give virtualport.profileid, the name of the port profile in the switch.",
                field="virtualport",
                value=port.type,
            )
        elif group.vlan is not None and group.vlan.tags:
            yield context.problem(
                "virtualport_vlan",
                f"{where} has both the VLAN {group.vlan.shown} and a virtualport, with which the switch sets the VLAN; "
                "a guest would not start.",
                "Leave one of them out (vlan: 0, or virtualport with type none).",
                field="vlan",
                value=group.vlan.shown,
            )


def portgroup_names(context: PoolContext) -> Iterator[Problem]:
    """Port groups have names of their own, and at most one is the default.

    Source: libvirt ``networkValidate``.
    """
    groups = context.pool.portgroups or ()
    for name, count in Counter(group.name for group in groups).items():
        if count > 1:
            yield context.problem(
                "portgroup_duplicate",
                f"{count} port groups have the name {name}.",
                "Give each a name of its own.",
                field="portgroups",
                value=name,
            )
    defaults = [group.name for group in groups if group.default]
    if len(defaults) > 1:
        yield context.problem(
            "portgroup_defaults",
            f"the port groups {' and '.join(defaults)} are all the default one.",
            "Set default: true for one of them at most.",
            field="portgroups",
            value=defaults,
        )


def has_vfs(context: PoolContext) -> Iterator[Problem]:
    """There are VFs to give.

    Source: libvirt ``networkCreateInterfacePool`` ("No usable Vf's present on SRIOV PF"), when the network is started.
    """
    interface = context.pool.pf
    if not interface:
        if not context.pool.addresses:
            yield context.problem(
                "pool_empty", "it has no VF and no PF to take VFs from.", "Give pf, or the VFs as devices."
            )
        return
    device = pf_device(context.host, context.bus, interface)
    if device is None:
        yield context.problem(
            "pf_not_found",
            f"its PF {interface} is no network interface of a PCI device on this host now.",
            "Look at kvm.passthrough.pci_device_info; a PF that is bound to VFIO or to no driver has no interface.",
            field="pf",
            value=interface,
        )
    elif not device.vfs and context.runs:
        yield context.problem(
            "pf_without_vfs",
            f"its PF {interface} ({device.address}) has no VFs, so that the network cannot be started.",
            "Make VFs first, with kvm.passthrough.sriov_vfs: at every boot, too, before libvirt starts.",
            device.address,
            field="pf",
            value=interface,
        )


def are_network_vfs(context: PoolContext) -> Iterator[Problem]:
    """Each device is there, and a VF of a network card whose PF has an interface: libvirt sets MAC address and VLAN
    through it.

    Source: libvirt ``networkValidate`` ("is not an SR-IOV Virtual Function") when it is defined, and
    ``virHostdevNetDevice``, when the guest starts.
    """
    for address in context.members:
        if address not in context.bus:
            yield context.problem(
                "device_not_found",
                "there is no such PCI device on this host.",
                "Look at kvm.passthrough.pci_device_info; kvm.passthrough.sriov_vfs makes VFs at every boot.",
                address,
            )
            continue
        device = context.bus.device(address)
        if device.pf is None:
            yield context.problem(
                "not_a_vf",
                "the device is no VF, and a pool gives VFs only.",
                "Name VFs, or pf to have all VFs of a card; a whole device is given with domain_hostdevs.",
                address,
            )
        elif device.pci_class >> 16 != 0x02:
            yield context.problem(
                "not_a_network_device",
                f"the device is a VF, but no network card (class {device.pci_class:06x}).",
                "Give it to a domain with kvm.passthrough.domain_hostdevs.",
                address,
            )
        elif device.pf in context.bus and not _has_interface(context.host, context.bus.device(device.pf)):
            yield context.problem(
                "pf_without_interface",
                f"its PF {device.pf} has no network interface, through which libvirt sets MAC address and VLAN.",
                f"Bind the PF to its own driver; now it is bound to {context.bus.device(device.pf).driver or 'none'}.",
                address,
            )
        if address.domain > 0xFFFF:
            yield context.problem(
                "source_domain_unsupported",
                f"the device is in PCI domain 0x{address.domain:x}, but QEMU can assign devices of domains 0x0000 to "
                "0xffff only.",
                "",
                address,
            )


def host_can_spare(context: PoolContext) -> Iterator[Problem]:
    """The host does not live on a VF that libvirt takes from it when a guest gets it.

    See :func:`needed.host_can_spare`.
    """
    if not context.managed:
        return
    guards = GuardContext(context.host, context.bus)
    for device in context.devices:
        if device.address in context.known or is_vfio_driver(device.driver):
            continue
        for finding in refusals(device, guards):
            yield context.problem(
                finding.code,
                finding.message,
                f"{finding.remedy} Or name the other VFs as devices, instead of pf.",
                device.address,
            )


def unmanaged_is_bound(context: PoolContext) -> Iterator[Problem]:
    """With ``managed: false`` libvirt leaves the driver alone, so it has to be a VFIO driver already.

    Source: libvirt ``virHostdevPreparePCIDevicesImpl`` ("must be manually detached from the host").
    """
    if context.managed:
        return
    for device in context.devices:
        if not is_vfio_driver(device.driver):
            yield context.problem(
                "device_not_bound",
                f"managed is false, but the device is bound to {device.driver or 'no driver'}, not to a VFIO driver.",
                "Bind it with kvm.passthrough.vfio_devices first, or set managed: true.",
                device.address,
                field="managed",
                value=False,
                driver=device.driver,
            )


def group_complete(context: PoolContext) -> Iterator[Problem]:
    """Nothing else in the IOMMU group of a VF is held by a driver of the host: a guest gets one VF alone.

    Source: kernel Documentation/driver-api/vfio.rst.
    """
    for device in context.devices:
        if device.iommu_group is None:
            continue
        held = [
            mate
            for mate in (context.bus.device(one) for one in device.group_members if one in context.bus)
            if mate.address != device.address and not mate.is_bridge and not leaves_group_free(mate.driver)
        ]
        if held:
            names = ", ".join(str(mate.address) for mate in held)
            yield context.problem(
                "group_not_viable",
                f"IOMMU group {device.iommu_group} of the VF also has {names}, held by "
                f"{', '.join(sorted({str(mate.driver) for mate in held}))} of the host; a guest would not start.",
                "Bind them to vfio-pci with kvm.passthrough.vfio_devices, or put the card into a slot in which each "
                "VF has a group of its own.",
                device.address,
                missing=[str(mate.address) for mate in held],
                iommu_group=device.iommu_group,
            )


def not_elsewhere(context: PoolContext) -> Iterator[Problem]:
    """No domain and no other pool has one of the VFs: libvirt gives the first one that *this* network has not given.

    Source: libvirt ``networkAllocatePort``, which counts the connections of one network.
    """
    for address in context.members:
        for owner in context.others.get(address, ()):
            yield context.problem(
                "device_elsewhere",
                f"{owner} has this VF too; only one of the two could give it to a guest.",
                f"Take it from {owner}, or name the other VFs as devices, instead of pf.",
                address,
                owner=owner,
            )


WITHIN_POOL: tuple[PoolRule, ...] = (
    one_tag,
    virtualport_kind,
    portgroup_names,
)
"""What needs the definition only, and no host."""

POOL_RULES: tuple[PoolRule, ...] = (
    known_settings,
    *WITHIN_POOL,
    has_vfs,
    are_network_vfs,
    host_can_spare,
    unmanaged_is_bound,
    group_complete,
    not_elsewhere,
)
"""The rules, in the order in which their problems are reported."""


def broken_pool(context: PoolContext, rules: Iterable[PoolRule] = POOL_RULES) -> list[Problem]:
    """Everything that is wrong with the pool as it would be."""
    return [problem for rule in rules for problem in rule(context)]


def _has_interface(host: Host, device: PciDevice) -> bool:
    # Not the interfaces that it had, which the bus may recall.
    return any(host.exists(f"/sys/class/net/{name}") for name in device.interfaces)
