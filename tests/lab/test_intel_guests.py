# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Devices that come to a guest and go again while it runs."""

from __future__ import annotations

import json

import pytest

from tests import lab

from .controller import Controller, quadruple, refusals

pytestmark = pytest.mark.lab("intel")

VF0, NVME = "0000:01:10.0", "0000:03:00.0"
VF_IDS, NVME_IDS = "8086:10ca", "1b36:0010"
MAC = "52:54:00:6b:76:c0"


def guest_has(machine: lab.Machine, domain: str, expected: list[str]) -> None:
    """Wait until a guest has said that, of these kinds of devices, it sees exactly as many as are listed."""
    seen: list[str] = []
    for _unused in range(60):
        seen = sorted(one.ids for one in machine.guest_pci_list(domain) if one.ids in (VF_IDS, NVME_IDS))
        if seen == sorted(expected):
            return
        machine.ssh("sleep 1")
    raise AssertionError(f"{domain} sees {seen} instead of {expected}")


def vf_settings(machine: lab.Machine, index: int) -> tuple[str, int | None]:
    """The MAC address and the VLAN that the card has for a virtual function."""
    vf = json.loads(machine.ssh("ip -j link show dev enp1s0").stdout)[0]["vfinfo_list"][index]
    return vf["address"], vf["vlan_list"][0].get("vlan")


def test_devices_come_and_go_while_a_guest_runs(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    iommu_host.ssh("sudo virsh start guest2")
    guest_has(iommu_host, "guest2", [])

    hostdevs = [{"device": VF0, "kind": "interface", "mac": MAC, "vlan": 42}, {"device": NVME}]
    request = {"domain": "guest2", "scope": "both", "hostdevs": hostdevs}
    plugged = quadruple(ansible, "domain_hostdevs", request)
    assert len(plugged["actions"]) == 4
    guest_has(iommu_host, "guest2", [VF_IDS, NVME_IDS])
    assert vf_settings(iommu_host, 0) == (MAC, 42)
    assert {iommu_host.drivers()[address] for address in (VF0, NVME)} == {"vfio-pci"}

    # Who has it, has it.
    taken = {"domain": "guest1", "hostdevs": [{"device": NVME}]}
    assert refusals(ansible, "domain_hostdevs", taken) == ["in_use_by_domain"]
    owners = ansible.module("hostdev_info")
    assert owners.status == "ok", owners.result

    quadruple(ansible, "domain_hostdevs", {**request, "state": "absent"})
    guest_has(iommu_host, "guest2", [])
    for kind in ("", "--inactive"):
        assert "<hostdev" not in iommu_host.ssh(f"sudo virsh dumpxml {kind} guest2").stdout
    iommu_host.wait_for(f"test -e /sys/bus/pci/drivers/nvme/{NVME}")
    assert iommu_host.drivers()[VF0] == "igbvf"
    iommu_host.ssh("sudo test ! -e /var/lib/kvm-passthrough")
