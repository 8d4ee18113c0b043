# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fedora 13, "Virtualization Guide", PCI passthrough with virsh: the EHCI controller in slot 26, function 7.

Node device, decimal numbers to hexadecimal ones, detaching, a boolean of SELinux, and the start of the guest.
"""

from __future__ import annotations

import pytest

from tests import lab
from tests.lab.controller import Controller, quadruple, refusals

pytestmark = pytest.mark.lab("intel")

EHCI, UHCI = "0000:00:1a.7", "0000:00:1a.0"
IDS = "8086:293c"


def test_a_usb_controller_of_which_decimal_numbers_are_known(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    shown = iommu_host.ssh("sudo virsh nodedev-dumpxml pci_0000_00_1a_7").stdout
    assert "<slot>26</slot>" in shown
    assert iommu_host.drivers()[EHCI] == "ehci-pci"

    # The numbers are decimal as libvirt shows them. No printf is needed: what to write for them is in the answer.
    decimal = ansible.module("vfio_devices", {"devices": [{"address": {"bus": 0, "slot": 26, "function": 7}}]})
    assert decimal.result["code"] == "address_invalid", decimal.result
    assert 'slot: "1a" if 26 is decimal' in decimal.result["msg"]
    device = {
        "address": {"bus": 0, "slot": "1a", "function": 7},
        "expect": {"vendor_id": "8086", "device_id": "293c"},
    }
    # The other function of the slot goes along.
    assert refusals(ansible, "vfio_devices", {"devices": [device], "persistent": False}) == ["group_not_viable"]
    taken = {"devices": [device], "group": "include", "persistent": False}
    bound = quadruple(ansible, "vfio_devices", taken)
    assert [each["address"] for each in bound["devices"]] == [UHCI, EHCI]
    assert {iommu_host.drivers()[address] for address in (UHCI, EHCI)} == {"vfio-pci"}

    # A host without SELinux has no boolean to set, and that is no failure.
    boolean = ansible.module("selinux_booleans", {"booleans": {"virt_manage_sysfs": True}, "missing": "ignore"})
    assert (boolean.status, boolean.changed) == ("ok", False), boolean.result
    assert boolean.result["selinux"]["mode"] == "disabled"

    hostdevs = [{"device": "pci_0000_00_1a_7", "guest_address": "00:1a.0"}, {"device": UHCI, "assigned": False}]
    quadruple(ansible, "domain_hostdevs", {"domain": "guest1", "hostdevs": hostdevs})
    assert "<address domain='0x0000' bus='0x00' slot='0x1a' function='0x7'/>" in (
        iommu_host.ssh("sudo virsh dumpxml --inactive guest1").stdout
    )
    iommu_host.ssh("sudo virsh start guest1")
    listed = {function.address: function.ids for function in iommu_host.guest_pci_list("guest1")}
    assert listed.get("0000:00:1a.0") == IDS, listed
    iommu_host.wait_guest_off("guest1")

    quadruple(ansible, "domain_hostdevs", {"domain": "guest1", "state": "exact", "hostdevs": []})
    quadruple(ansible, "vfio_devices", {**taken, "state": "released"})
    assert iommu_host.drivers()[EHCI] == "ehci-pci"
