# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hostdevs in the definition of a real domain: check, run, check, run, and back again."""

from __future__ import annotations

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("intel")


@pytest.mark.full  # seeds/test_002_partial_assignment.py gives the same devices to a guest that runs
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
