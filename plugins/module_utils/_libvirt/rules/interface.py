# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What libvirt sets up on a VF, through its PF, for an interface."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from ..hostdev import INTERFACE, VIRTUALPORT_TYPE
from .context import Context, unique


def virtual_function(context: Context) -> Iterator[Problem]:
    """An interface needs a VF: its MAC address and its VLAN are set through the PF.

    Source: libvirt ``virHostdevSaveNetConfig`` and ``virHostdevSetNetConfig`` ("Interface type hostdev is currently
    supported on SR-IOV Virtual Functions only"), when the domain is started.
    """
    for subject in context.requested:
        device = context.device(subject.source)
        if subject.hostdev.kind == INTERFACE and device is not None and device.pf is None:
            yield subject.problem(
                "vf_needed",
                "the kind is interface, but the device is no SR-IOV virtual function, and libvirt sets MAC address and "
                "VLAN through a physical function.",
                "Name a VF, or give the device with kind: hostdev; the guest's driver then keeps the card's own MAC "
                "address.",
                "kind",
                INTERFACE,
            )


def network_card(context: Context) -> Iterator[Problem]:
    """An interface needs a network card.

    Source: libvirt ``virHostdevNetDevice`` looks for the PF's network interface, when the domain is started.
    """
    for subject in context.requested:
        device = context.device(subject.source)
        if subject.hostdev.kind != INTERFACE or device is None or device.pf is None or device.pf not in context.bus:
            continue
        if device.pci_class >> 16 != 0x02 and not context.bus.device(device.pf).interfaces:
            yield subject.problem(
                "network_card_needed",
                f"the kind is interface, but the device (class {device.pci_class:06x}) is no network card.",
                "Give it with kind: hostdev.",
                "kind",
                INTERFACE,
            )


def mac_unique(context: Context) -> Iterator[Problem]:
    """No two network cards of a guest have one MAC address, save the two of a team.

    Source: IEEE 802-2014, 8.2; libvirt does not look, and finds interfaces by MAC address when it takes one out
    (``virDomainNetFindIdx``).
    """
    teamed = {
        occupant.mac
        for occupant in context.occupants
        if occupant.backs_up
        and any(subject.hostdev.teaming_persistent == occupant.alias for subject in context.requested)
    }
    for problem in unique(context, "mac", "mac_in_use", "Give each a MAC address of its own, or leave it to libvirt."):
        if problem.details.get("value") not in teamed:
            yield problem


def vlan_of_a_vf(context: Context) -> Iterator[Problem]:
    """A VF has one VLAN and is no trunk.

    Source: libvirt ``virHostdevSetNetConfig`` ("vlan trunking is not supported by SR-IOV network devices").
    """
    for subject in context.requested:
        if isinstance(subject.hostdev.vlan, tuple):
            tags = ", ".join(str(tag) for tag in subject.hostdev.vlan)
            yield subject.problem(
                "vlan_trunk",
                f"the interface is a trunk or has several VLANs ({tags}), which a VF cannot have.",
                "Give vlan with one number; it replaces what is there.",
                "vlan",
                list(subject.hostdev.vlan),
            )
        elif subject.hostdev.vlan is not None and not 1 <= subject.hostdev.vlan <= 4094:
            yield subject.problem(
                "vlan_reserved",
                f"vlan {subject.hostdev.vlan} is no VLAN: 0 stands for none, and 4095 is reserved.",
                "Choose one from 1 to 4094.",
                "vlan",
                subject.hostdev.vlan,
            )


def virtualport(context: Context) -> Iterator[Problem]:
    """A virtual port of a VF is of type 802.1Qbh and has a profile; the switch then chooses the VLAN.

    Source: libvirt ``virHostdevNetConfigVirtPortProfile`` and ``virHostdevSetNetConfig`` ("direct setting of the vlan
    tag is not allowed for hostdev devices"), when the domain is started; ``virNetDevVPortProfileCheckComplete``.
    """
    for subject in context.requested:
        kind, profile = subject.hostdev.virtualport_type, subject.hostdev.virtualport_profileid
        if kind is None and profile is None:
            continue
        if kind != VIRTUALPORT_TYPE:
            yield subject.problem(
                "virtualport_unsupported",
                f"virtualport.type is {kind or 'not given'}, but libvirt can set up {VIRTUALPORT_TYPE} only for a "
                "device that is passed through.",
                "Take the virtualport out, or use an interface of type network, bridge or direct.",
                "virtualport_type",
                kind,
            )
        elif not profile:
            yield subject.problem(
                "virtualport_incomplete",
                "the virtualport has no profileid.",
                "Give virtualport.profileid, the name of the port profile in the switch.",
                "virtualport_profileid",
            )
        if subject.hostdev.vlan is not None:
            yield subject.problem(
                "virtualport_vlan",
                "vlan and virtualport are both given, but with a virtual port it is the switch that chooses the VLAN.",
                "Leave one of the two out.",
                "vlan",
                subject.hostdev.vlan,
            )
