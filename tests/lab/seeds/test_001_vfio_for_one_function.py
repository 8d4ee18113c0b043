# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Laine Stump, "RFC: vfio pci passthrough support" (2013): a VF of an 82576, by hand and as libvirt was to do it.

Group, binding, device nodes, limits of memory; then a hostdev with ``managed='no'``, an interface, a network of VFs.
"""

from __future__ import annotations

import pytest

from tests import lab
from tests.lab.controller import Controller, quadruple, refusals

pytestmark = pytest.mark.lab("intel")

PF, POOLED, VF = "0000:01:00.0", "0000:01:10.2", "0000:01:10.0"
IDS = "8086:10ca"
MAC = "52:54:00:6b:76:c0"


def test_the_group_the_binding_and_a_guest_with_all_three_kinds(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    # 1-3, 5: the device, its group, who else is in it, its ids.
    info = ansible.module("pci_device_info", {"devices": [VF]})
    assert info.status == "ok", info.result
    (device,) = info.result["devices"]
    assert (device["ids"], device["pf"]) == (IDS, PF)
    assert device["iommu_group"]["devices"] == [VF]

    # A device that is not bound is no device for managed='no'.
    unmanaged = {"domain": "guest1", "hostdevs": [{"device": VF, "managed": False}]}
    assert refusals(ansible, "domain_hostdevs", unmanaged) == ["device_not_bound"]
    # 4, 6: from its driver to VFIO, this device and no other of its kind.
    quadruple(ansible, "vfio_devices", {"devices": [VF], "persistent": False})
    assert (iommu_host.drivers()[VF], iommu_host.drivers()[POOLED]) == ("vfio-pci", "igbvf")
    group = device["iommu_group"]["number"]
    assert iommu_host.ssh(f"stat -c %F /dev/vfio/{group}").stdout == "character special file\n"
    # What the document found undecided is so today: no new_id, and modes and owners of the nodes are libvirt's affair.
    assert iommu_host.ssh("stat -c %a:%U /dev/vfio/vfio").stdout == "666:root\n"
    quadruple(ansible, "domain_hostdevs", unmanaged)
    assert refusals(ansible, "domain_hostdevs", {**unmanaged, "domain": "guest2"}) == ["device_in_other_domain"]

    # <network> with <forward mode='hostdev'>, and an interface of a guest that has one from there.
    pool = {"name": "vfio-net", "devices": [{"pf": {"address": PF}, "vf": 1}], "vlan": 7}
    quadruple(ansible, "hostdev_network", pool)
    interface = f"<interface type='network'><source network='vfio-net'/><mac address='{MAC}'/></interface>"
    iommu_host.ssh("sudo virsh attach-device guest1 /dev/stdin --config", stdin=interface)

    # 7-9: owner of the node and limits of memory are libvirt's affair.
    iommu_host.ssh("sudo virsh start guest1")
    assert [function.ids for function in iommu_host.guest_pci_list("guest1")].count(IDS) == 2
    iommu_host.wait_guest_off("guest1")
    # Managed ones go back to the driver of the host, the others stay where they were put.
    assert (iommu_host.drivers()[VF], iommu_host.drivers()[POOLED]) == ("vfio-pci", "igbvf")

    iommu_host.ssh(f"sudo virsh detach-interface guest1 network --mac {MAC} --config")
    quadruple(ansible, "hostdev_network", {"name": "vfio-net", "state": "absent"})
    quadruple(ansible, "domain_hostdevs", {"domain": "guest1", "state": "exact", "hostdevs": []})
    quadruple(ansible, "vfio_devices", {"devices": [VF], "state": "released"})
    iommu_host.ssh("sudo test ! -e /var/lib/kvm-passthrough")
