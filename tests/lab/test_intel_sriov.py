# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Virtual functions of real drivers (igb, nvme): made, set, given to VFIO, there after a reboot, and gone again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("intel")

PF = "0000:01:00.0"
VFS = ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4", "0000:01:10.6"]
HOSTS_OWN_RULE = "/etc/udev/rules.d/60-igb-virtual-functions.rules"
UNIT = "kvm-passthrough-sriov.service"

FOUR = {
    "pf": {"address": PF, "expect": {"vendor_id": "8086", "device_id": "10c9"}},
    "count": 4,
    "vfs": [
        {"vf": "all", "spoof_check": True},
        {"vf": 0, "mac": "52:54:00:6b:76:a0", "vlan": 100, "vlan_qos": 3},
        {"vf": [1], "mac": "52:54:00:6b:76:a1", "trust": True},
        {"vf": 3, "trust": True, "max_tx_rate": 100},
    ],
}
# The flexible resources of the drive are two queues and an interrupt for each.
DRIVE = "0000:03:00.0"
DRIVE_VFS = ["0000:03:00.1", "0000:03:00.2"]
TWO_CONTROLLERS = {"pf": DRIVE, "count": 2, "vfs": [{"vf": "all", "queues": 2, "interrupts": 1}]}
# With a secondary controller that is offline the driver fails.
TRY_CONTROLLER = """
set -eu
cd /sys/bus/pci/devices/{address}
echo nvme | sudo tee driver_override >/dev/null
echo {address} | sudo tee /sys/bus/pci/drivers_probe >/dev/null
timeout 60 sh -c 'until grep -qsx live nvme/*/state; do sleep 0.2; done'
echo {address} | sudo tee driver/unbind >/dev/null
echo | sudo tee driver_override >/dev/null
"""
TO_VFIO = {"devices": [{"pf": {"address": PF}, "vf": [0, 1]}]}


def settings(machine: lab.Machine) -> list[tuple[Any, ...]]:
    """What ip tells of each VF: MAC address, VLAN, priority, trust, spoof check, rate."""
    link = json.loads(machine.ssh("ip -j link show dev enp1s0").stdout)[0]
    return [
        (
            vf["address"],
            vf["vlan_list"][0].get("vlan"),
            vf["vlan_list"][0].get("qos"),
            vf["trust"],
            vf["spoofchk"],
            vf["rate"]["max_tx"],
        )
        for vf in link.get("vfinfo_list", [])
    ]


def controllers(machine: lab.Machine) -> list[tuple[int, int, int]]:
    """What nvme tells of each secondary controller: whether it is online, its queues and its interrupts."""
    (name,) = machine.ssh(f"ls /sys/bus/pci/devices/{DRIVE}/nvme").stdout.split()
    listed = json.loads(machine.ssh(f"sudo nvme list-secondary /dev/{name} -o json").stdout)
    names = ("secondary-controller-state", "num-virtual-queues", "num-virtual-interrupts")
    return [(entry[names[0]], entry[names[1]], entry[names[2]]) for entry in listed["secondary-controllers"]]


AS_ASKED = [
    ("52:54:00:6b:76:a0", 100, 3, False, True, 0),
    ("52:54:00:6b:76:a1", None, None, True, True, 0),
    ("00:00:00:00:00:00", None, None, False, True, 0),
    ("00:00:00:00:00:00", None, None, True, True, 100),
]


def vfs_of(drivers: dict[str, str]) -> dict[str, str]:
    return {address: driver for address, driver in drivers.items() if address.startswith("0000:01:1")}


def monotonic(machine: lab.Machine, unit: str, moment: str) -> int:
    """When a unit reached a state in this boot, in microseconds; never is 0."""
    return int(machine.ssh(f"systemctl show --value -p {moment}TimestampMonotonic {unit}").stdout)


def change(ansible: Controller, module: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Run a module that is to change something; returns its result."""
    task = ansible.module(module, arguments)
    assert (task.status, task.changed) == ("ok", True), task.result["msg"]
    return task.result


def test_virtual_functions_until_after_a_reboot_and_back(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    iommu_host.ssh(f"sudo rm {HOSTS_OWN_RULE} && sudo udevadm control --reload")
    etc_before, drivers_before = iommu_host.etc(), iommu_host.drivers()
    assert vfs_of(drivers_before) == dict.fromkeys(VFS[:2], "igbvf")

    # The host's own set-up made two, which have to go first: the kernel takes no other number while there are any.
    made = quadruple(ansible, "sriov_vfs", {"pfs": [FOUR, TWO_CONTROLLERS]})
    assert made["pfs"][0]["before"] == {"count": 2, "drivers_autoprobe": True}
    assert [vf["address"] for vf in made["pfs"][0]["vfs"]] == VFS
    assert settings(iommu_host) == AS_ASKED
    assert vfs_of(iommu_host.drivers()) == dict.fromkeys(VFS, "")
    assert [vf["address"] for vf in made["pfs"][1]["vfs"]] == DRIVE_VFS
    assert controllers(iommu_host) == [(1, 2, 1), (1, 2, 1)]
    iommu_host.ssh(TRY_CONTROLLER.format(address=DRIVE_VFS[0]))

    # The drive has no more to give: it says so, and all is as before.
    failed = ansible.module(
        "sriov_vfs", {"pfs": [{**TWO_CONTROLLERS, "vfs": [{"vf": 1, "queues": 9, "interrupts": 1}]}]}
    )
    assert (failed.result["code"], failed.result["vf"]) == ("vf_setting_refused", 1), failed.result
    assert controllers(iommu_host) == [(1, 2, 1), (1, 2, 1)]

    change(ansible, "vfio_devices", TO_VFIO)
    given = {**dict.fromkeys(VFS[:2], "vfio-pci"), **dict.fromkeys(VFS[2:], "")}
    assert vfs_of(iommu_host.drivers()) == given

    # What igb cannot set is named, and everything is as before; what it cannot make is refused beforehand.
    asked = {**FOUR, "vfs": [{"vf": 2, "trust": True, "link_state": "disable"}]}
    failed = ansible.module("sriov_vfs", {"pfs": [asked]})
    assert failed.status == "failed"
    assert (failed.result["code"], failed.result["settings"]) == ("vf_setting_unsupported", ["link_state"])
    failed = ansible.module("sriov_vfs", {"pfs": [{"pf": PF, "count": 8}]})
    assert [problem["code"] for problem in failed.result["problems"]] == ["count_exceeds_totalvfs"]
    assert settings(iommu_host) == AS_ASKED

    # As long as a process has one of them open, the others cannot be removed either.
    group = iommu_host.ssh(f"basename $(readlink /sys/bus/pci/devices/{VFS[1]}/iommu_group)").stdout.strip()
    holder = iommu_host.ssh(f"sudo sh -c 'sleep 1000 3<>/dev/vfio/{group} >/dev/null 2>&1 & echo $!'").stdout.strip()
    failed = ansible.module("sriov_vfs", {"pfs": [{"pf": PF, "count": 2}]})
    assert failed.status == "failed"
    assert [(problem["code"], problem["device"]) for problem in failed.result["problems"]] == [
        ("in_use_by_domain", VFS[1])
    ]
    iommu_host.ssh(f"sudo kill {holder}")

    # One reboot for both: what comes back does, and with a kernel that was installed after all was set up.
    second_kernel = iommu_host.install_second_kernel()
    iommu_host.reboot()
    assert iommu_host.ssh("uname -r").stdout.strip() == second_kernel

    ready = monotonic(iommu_host, UNIT, "ActiveEnter")
    assert 0 < ready <= monotonic(iommu_host, "libvirtd.service", "InactiveExit")
    assert ready <= monotonic(iommu_host, "systemd-networkd.service", "InactiveExit")
    assert settings(iommu_host) == AS_ASKED
    assert vfs_of(iommu_host.drivers()) == given
    assert "igbvf 0000:" not in iommu_host.ssh("sudo journalctl -k -b --no-pager").stdout
    assert controllers(iommu_host) == [(1, 2, 1), (1, 2, 1)]
    for module, arguments in (("sriov_vfs", {"pfs": [FOUR, TWO_CONTROLLERS]}), ("vfio_devices", TO_VFIO)):
        again = ansible.module(module, arguments)
        assert (again.status, again.changed) == ("ok", False), again.result

    change(ansible, "vfio_devices", {**TO_VFIO, "state": "released"})
    change(ansible, "sriov_vfs", {"pfs": [{"pf": pf, "count": 0} for pf in (PF, DRIVE)]})
    assert vfs_of(iommu_host.drivers()) == {}
    assert controllers(iommu_host) == [(0, 0, 0), (0, 0, 0)]
    assert iommu_host.etc() == etc_before
    # Two as at first, and nothing is left to remember.
    change(ansible, "sriov_vfs", {"pfs": [{"pf": PF, "count": 2, "drivers_autoprobe": True}], "persistent": False})
    # The second kernel runs, which has drivers for those devices only that tests are about.
    assert vfs_of(iommu_host.drivers()) == vfs_of(drivers_before)
    # systemd remembers that the units ran in this boot.
    ours = "-name '*kvm-passthrough*' ! -name '*.lock' ! -path '/run/systemd/units/*'"
    assert iommu_host.ssh(f"sudo find /etc /var/lib /run -xdev {ours}").stdout == ""
