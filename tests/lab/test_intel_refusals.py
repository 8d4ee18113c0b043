# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would hurt the host, and what makes no sense, is refused before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests import lab

from .controller import Controller, TaskResult

pytestmark = pytest.mark.lab("intel")

ROOT_DISK = "$(readlink -f /sys/class/block/$(lsblk -no pkname $(findmnt -no source /))/device/..)"
SSH_CARD = "$(readlink -f /sys/class/net/$(ip route get 10.0.2.2 | grep -oP 'dev \\K\\S+')/device/..)"

# Everything a module of this collection could change: settings, boot, its own record, drivers, definitions.
FINGERPRINT = """
sudo find /etc /boot /var/lib/kvm-passthrough -xdev -type f -printf '%p %m %s %T@\\n' 2>/dev/null | sort
for device in /sys/bus/pci/devices/*; do
    echo "$device $(readlink $device/driver) $(cat $device/driver_override)"
done
for domain in guest1 guest2; do sudo virsh dumpxml --inactive --security-info $domain; done
lsmod | grep -o '^vfio_pci ' || true
"""


def test_dangerous_and_senseless_requests_are_refused_untouched(iommu_host: lab.Machine) -> None:
    """One machine for all of them: what was not touched needs no reset, and that it was not is what is tested."""
    ansible = Controller(iommu_host)
    before = iommu_host.ssh(FINGERPRINT).stdout
    root_disk = iommu_host.ssh(f"basename {ROOT_DISK}").stdout.strip()
    ssh_card = iommu_host.ssh(f"basename {SSH_CARD}").stdout.strip()

    def refused(module: str, arguments: Mapping[str, Any], code: str, *words: str) -> None:
        """The request fails in check mode and in a run, with the same text, code and words in it."""
        checked = ansible.module(module, arguments, check=True)
        ran = ansible.module(module, arguments)
        for task in (checked, ran):
            _assert_refusal(task, code, words)
        assert checked.result["msg"] == ran.result["msg"]

    # What the host lives on.
    refused("vfio_devices", {"devices": [root_disk]}, "boot_disk", root_disk, "/")
    refused("vfio_devices", {"devices": [ssh_card]}, "management_network", ssh_card)
    # One of four functions in one IOMMU group: the mates are named.
    refused(
        "vfio_devices", {"devices": ["02:00.0"]}, "group_not_viable", "0000:02:00.1", "0000:02:00.2", "0000:02:00.3"
    )
    # What is no endpoint: the root port above the network card.
    refused("vfio_devices", {"devices": ["00:04.0"]}, "bridge", "0000:00:04.0")
    # Two wrongs are reported together.
    refused("vfio_devices", {"devices": [root_disk, ssh_card]}, "boot_disk", "management_network")

    # Addresses that are none.
    refused("vfio_devices", {"devices": ["01:20.0"]}, "address_out_of_range", "01:20.0", "slot")
    refused("vfio_devices", {"devices": ["0000:01:10.9"]}, "address_out_of_range", "0000:01:10.9", "function")
    refused("vfio_devices", {"devices": ["01:1f.7"]}, "no_match", "0000:01:1f.7")

    # Parameters that are more than a parameter.
    refused("kernel_parameters", {"present": ["intel_iommu=on; reboot"]}, "invalid_parameter", "intel_iommu=on; reboot")
    refused("kernel_parameters", {"present": ["intel_iommu=on\nquiet"]}, "invalid_parameter")
    refused("kernel_parameters", {"present": ["x=$(reboot)"]}, "invalid_parameter")

    # Domains and definitions.
    vf = {"device": "01:10.0"}
    refused("domain_hostdevs", {"domain": "nosuch", "hostdevs": [vf]}, "domain_not_found", "nosuch", "guest1")
    refused(
        "domain_hostdevs",
        {"domain": "guest1", "hostdevs": [{"device": "02:00.0"}]},
        "functions_undeclared",
        "0000:02:00.1",
    )
    for device, code in (
        (root_disk, "boot_disk"),
        (ssh_card, "management_network"),
        ("0000:00:04.0", "bridge"),
        ("0000:01:1f.7", "no_match"),
    ):
        refused("domain_hostdevs", {"domain": "guest1", "hostdevs": [{"device": device}]}, code, device)
    malformed = ansible.module("domain_hostdevs", {"domain": "<domain><name>x", "hostdevs": [vf]})
    _assert_refusal(malformed, "domain_not_found", ())

    # Ansible itself refuses what is no option; it has no codes.
    for module, arguments in (
        ("vfio_devices", {"devices": ["01:10.0"], "state": "attached"}),
        ("vfio_devices", {"devices": ["01:10.0"], "force": ["yes"]}),
        ("kernel_parameters", {"present": ["a"], "bootloader": "lilo"}),
        ("domain_hostdevs", {"domain": "guest1", "hostdevs": [vf], "state": "gone"}),
    ):
        task = ansible.module(module, arguments)
        assert task.status == "failed"
        assert "value of" in task.result["msg"], task.result["msg"]

    assert iommu_host.ssh(FINGERPRINT).stdout == before


def _assert_refusal(task: TaskResult, code: str, words: tuple[str, ...]) -> None:
    assert task.status == "failed", task.result
    assert not task.changed
    problems = task.result.get("problems", [])
    assert code in [problem["code"] for problem in problems], task.result
    for word in words:
        assert word in task.result["msg"], (word, task.result["msg"])
    assert "Traceback" not in str(task.result)
