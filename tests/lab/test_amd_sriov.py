# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions behind AMD-Vi, on a host without systemd."""

from __future__ import annotations

import json

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("amd")

PF = "0000:01:00.0"
VFS = ["0000:01:10.0", "0000:01:10.2"]


@pytest.mark.full
def test_virtual_functions_are_made_set_bound_and_removed(small_machine: lab.Machine) -> None:
    ansible = Controller(small_machine)
    before = small_machine.drivers()
    asked = {"pf": {"address": PF}, "count": 2, "vfs": [{"vf": 1, "mac": "52:54:00:6b:76:b1", "vlan": 7}]}

    refused = ansible.module("sriov_vfs", {"pfs": [asked]})
    assert refused.result["code"] == "persistence_unsupported"
    quadruple(ansible, "sriov_vfs", {"pfs": [asked], "persistent": False})
    interface = small_machine.ssh(f"ls /sys/bus/pci/devices/{PF}/net").stdout.strip()
    link = json.loads(small_machine.ssh(f"ip -j link show dev {interface}").stdout)[0]
    assert [(vf["address"], vf["vlan_list"][0].get("vlan")) for vf in link["vfinfo_list"]] == [
        ("00:00:00:00:00:00", None),
        ("52:54:00:6b:76:b1", 7),
    ]

    bound = {"devices": [{"pf": {"address": PF}, "vf": 1}], "persistent": False}
    quadruple(ansible, "vfio_devices", bound)
    drivers = small_machine.drivers()
    assert {vf: drivers[vf] for vf in VFS} == {VFS[0]: "", VFS[1]: "vfio-pci"}
    quadruple(ansible, "vfio_devices", {**bound, "state": "released"})
    quadruple(ansible, "sriov_vfs", {"pfs": [{"pf": PF, "count": 0}], "persistent": False})

    assert small_machine.drivers() == before
    leftovers = small_machine.ssh("sudo find / -xdev -name '*kvm-passthrough*' ! -name '*.lock'").stdout
    assert leftovers == ""
