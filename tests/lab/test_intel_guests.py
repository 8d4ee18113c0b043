# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real guests have: devices that come and go while one runs, an interface with its address, one from a pool."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("intel")

PF, VF0, VF1, NVME = "0000:01:00.0", "0000:01:10.0", "0000:01:10.2", "0000:03:00.0"
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


def refused(ansible: Controller, request: dict[str, Any]) -> list[str]:
    """The codes with which domain_hostdevs refuses something."""
    task = ansible.module("domain_hostdevs", request)
    assert task.status == "failed", task.result
    return [problem["code"] for problem in task.result["problems"]]


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
    assert refused(ansible, taken) == ["in_use_by_domain"]
    owners = ansible.module("hostdev_info")
    assert owners.status == "ok", owners.result

    quadruple(ansible, "domain_hostdevs", {**request, "state": "absent"})
    guest_has(iommu_host, "guest2", [])
    for kind in ("", "--inactive"):
        assert "<hostdev" not in iommu_host.ssh(f"sudo virsh dumpxml {kind} guest2").stdout
    iommu_host.ssh("timeout 60 sh -c 'until test -e /sys/bus/pci/drivers/nvme/" + NVME + "; do sleep 0.2; done'")
    assert iommu_host.drivers()[VF0] == "igbvf"
    assert iommu_host.ssh("sudo ls /var/lib/kvm-passthrough", check=False).returncode != 0


def test_one_interface_from_a_pool_and_one_device_that_was_bound_before(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    # A device that is not bound is no device for managed=no.
    unmanaged = {"domain": "guest1", "hostdevs": [{"device": VF1, "managed": False}]}
    assert refused(ansible, unmanaged) == ["device_not_bound"]
    quadruple(ansible, "vfio_devices", {"devices": [VF1], "persistent": False})
    quadruple(ansible, "domain_hostdevs", unmanaged)
    assert refused(ansible, {**unmanaged, "domain": "guest2"}) == ["device_in_other_domain"]

    pool = {"name": "vfs", "devices": [{"pf": {"address": PF}, "vf": 0}], "vlan": 7}
    quadruple(ansible, "hostdev_network", pool)
    interface = f"<interface type='network'><source network='vfs'/><mac address='{MAC}'/></interface>"
    iommu_host.ssh("sudo virsh attach-device guest1 /dev/stdin --config", stdin=interface)
    iommu_host.ssh("sudo virsh start guest1")
    assert sorted(one.ids for one in iommu_host.guest_pci_list("guest1")).count(VF_IDS) == 2
    iommu_host.ssh("timeout 60 sh -c 'while sudo virsh domstate guest1 | grep -q running; do sleep 1; done'")
    # Managed ones go back to the host's driver, the others stay where they were put.
    assert (iommu_host.drivers()[VF0], iommu_host.drivers()[VF1]) == ("igbvf", "vfio-pci")

    iommu_host.ssh(f"sudo virsh detach-interface guest1 network --mac {MAC} --config")
    quadruple(ansible, "hostdev_network", {"name": "vfs", "state": "absent"})
    quadruple(ansible, "domain_hostdevs", {"domain": "guest1", "state": "exact", "hostdevs": []})
    quadruple(ansible, "vfio_devices", {"devices": [VF1], "state": "released"})
    assert iommu_host.ssh("sudo ls /var/lib/kvm-passthrough", check=False).returncode != 0
