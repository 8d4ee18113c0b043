# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each module that changes a host, on a booted one: check, run, check, run, and back again."""

from __future__ import annotations

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("intel")


def test_vfio_devices_until_after_a_reboot_and_back(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    addresses = ["0000:01:10.0", "0000:02:00.0", "0000:02:00.1", "0000:02:00.2", "0000:02:00.3", "0000:00:1a.7"]
    request = {"devices": [{"address": address} for address in addresses], "group": "include"}
    before = iommu_host.drivers()

    quadruple(ansible, "vfio_devices", request)
    bound = iommu_host.drivers()
    assert {bound[address] for address in addresses} == {"vfio-pci"}

    iommu_host.reboot()
    after_reboot = iommu_host.drivers()
    assert {after_reboot[address] for address in addresses} == {"vfio-pci"}
    again = ansible.module("vfio_devices", request)
    assert again.status == "ok", again.result
    assert not again.changed

    released = quadruple(ansible, "vfio_devices", {**request, "state": "released"})
    assert released["changed"]
    assert iommu_host.drivers() == before
    leftovers = iommu_host.ssh("sudo find /etc /var/lib /run -xdev -name '*kvm-passthrough*' ! -name '*.lock'").stdout
    assert leftovers == ""


def test_domain_hostdevs(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    definition = iommu_host.ssh("sudo virsh dumpxml --inactive --security-info guest1").stdout
    request = {
        "domain": "guest1",
        "state": "exact",
        "hostdevs": [
            {"device": {"address": "01:10.0", "expect": {"vendor_id": "8086", "device_id": "10ca"}}},
            {"device": "02:00.0", "guest_address": "00:10.0"},
            {"device": "02:00.1", "assigned": False},
            {"device": "02:00.2", "assigned": False},
            {"device": "02:00.3", "guest_address": "00:10.3"},
        ],
    }

    quadruple(ansible, "domain_hostdevs", request)

    now = iommu_host.ssh("sudo virsh dumpxml --inactive guest1").stdout
    assert now.count("<hostdev ") == 5
    assert now.count("<address type='unassigned'/>") == 2
    # Another domain cannot have the same device.
    other = ansible.module("domain_hostdevs", {"domain": "guest2", "hostdevs": [{"device": "01:10.0"}]})
    assert other.status == "failed"
    assert "guest1" in other.result["msg"]

    quadruple(ansible, "domain_hostdevs", {"domain": "guest1", "state": "exact", "hostdevs": []})
    after = iommu_host.ssh("sudo virsh dumpxml --inactive --security-info guest1").stdout
    assert "<hostdev" not in after
    assert _without_controllers(after) == _without_controllers(definition)


def _without_controllers(definition: str) -> str:
    """A definition without PCI controllers, which libvirt adds for a hostdev and keeps."""
    lines, skipping = [], False
    for line in definition.splitlines():
        skipping = skipping or "<controller type='pci'" in line
        if not skipping:
            lines.append(line)
        if skipping and ("</controller>" in line or (line.rstrip().endswith("/>") and "<controller" in line)):
            skipping = False
    return "\n".join(lines)
