# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What would hurt the host, and what makes no sense, is refused before anything is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests import lab

from .controller import Call, Controller, TaskResult

pytestmark = pytest.mark.lab("intel")

ROOT_DISK = "$(readlink -f /sys/class/block/$(lsblk -no pkname $(findmnt -no source /))/device/..)"
SSH_CARD = "$(readlink -f /sys/class/net/$(ip route get 10.0.2.2 | grep -oP 'dev \\K\\S+')/device/..)"

FUNCTIONS = tuple(f"0000:02:00.{function}" for function in range(4))

# Everything a module of this collection could change: settings, boot, its own record, drivers, definitions.
FINGERPRINT = """
sudo find /etc /boot /var/lib/kvm-passthrough -xdev -type f -printf '%p %m %s %T@\\n' 2>/dev/null | sort
for device in /sys/bus/pci/devices/*; do
    echo "$device $(readlink $device/driver) $(cat $device/driver_override)"
done
for domain in guest1 guest2; do sudo virsh dumpxml --inactive --security-info $domain; done
lsmod | grep -o '^vfio_pci ' || true
"""


@dataclass(frozen=True)
class Refused:
    """What is asked of a module, and the code and words of its refusal."""

    module: str
    arguments: Mapping[str, Any]
    code: str
    words: tuple[str, ...] = ()


@pytest.mark.full
def test_dangerous_and_senseless_requests_are_refused_untouched(iommu_host: lab.Machine) -> None:
    """One machine for all of them: what was not touched needs no reset, and that it was not is what is tested.

    Each request fails in check mode and in a run, with the same text, code and words in it.
    """
    before = iommu_host.ssh(FINGERPRINT).stdout
    root_disk = iommu_host.ssh(f"basename {ROOT_DISK}").stdout.strip()
    ssh_card = iommu_host.ssh(f"basename {SSH_CARD}").stdout.strip()
    vf = {"device": "01:10.0"}
    requests = [
        # What the host lives on.
        Refused("vfio_devices", {"devices": [root_disk]}, "boot_disk", (root_disk, "/")),
        Refused("vfio_devices", {"devices": [ssh_card]}, "management_network", (ssh_card,)),
        # One of four functions in one IOMMU group: the mates are named.
        Refused("vfio_devices", {"devices": ["02:00.0"]}, "group_not_viable", FUNCTIONS[1:]),
        # What is no endpoint: the root port above the network card.
        Refused("vfio_devices", {"devices": ["00:04.0"]}, "bridge", ("0000:00:04.0",)),
        # Two wrongs are reported together.
        Refused("vfio_devices", {"devices": [root_disk, ssh_card]}, "boot_disk", ("management_network",)),
        # Addresses that are none.
        Refused("vfio_devices", {"devices": ["01:20.0"]}, "address_out_of_range", ("01:20.0", "slot")),
        Refused("vfio_devices", {"devices": ["0000:01:10.9"]}, "address_out_of_range", ("0000:01:10.9", "function")),
        Refused("vfio_devices", {"devices": ["01:1f.7"]}, "no_match", ("0000:01:1f.7",)),
        # Parameters that are more than a parameter.
        *(
            Refused("kernel_parameters", {"present": [parameter]}, "invalid_parameter", (parameter.partition("\n")[0],))
            for parameter in ("intel_iommu=on; reboot", "intel_iommu=on\nquiet", "x=$(reboot)")
        ),
        # Domains and definitions.
        Refused("domain_hostdevs", {"domain": "nosuch", "hostdevs": [vf]}, "domain_not_found", ("nosuch", "guest1")),
        Refused("domain_hostdevs", {"domain": "<domain><name>x", "hostdevs": [vf]}, "domain_not_found"),
        *(
            Refused("domain_hostdevs", {"domain": "guest1", "hostdevs": [{"device": device}]}, code, (named,))
            for device, code, named in (
                ("02:00.0", "functions_undeclared", FUNCTIONS[1]),
                (root_disk, "boot_disk", root_disk),
                (ssh_card, "management_network", ssh_card),
                ("0000:00:04.0", "bridge", "0000:00:04.0"),
                ("0000:01:1f.7", "no_match", "0000:01:1f.7"),
            )
        ),
    ]
    # Ansible itself refuses what is no option; it has no codes.
    unknown = [
        Call("vfio_devices", {"devices": ["01:10.0"], "state": "attached"}),
        Call("vfio_devices", {"devices": ["01:10.0"], "force": ["yes"]}),
        Call("kernel_parameters", {"present": ["a"], "bootloader": "lilo"}),
        Call("domain_hostdevs", {"domain": "guest1", "hostdevs": [vf], "state": "gone"}),
    ]
    calls = [Call(request.module, request.arguments, check) for request in requests for check in (True, False)]
    tasks = Controller(iommu_host).modules([*calls, *unknown])
    by_modules, by_ansible = tasks[: len(calls)], tasks[len(calls) :]

    for request, checked, ran in zip(requests, by_modules[0::2], by_modules[1::2], strict=True):
        for task in (checked, ran):
            _assert_refusal(task, request)
        assert checked.result["msg"] == ran.result["msg"]
    for task in by_ansible:
        assert task.status == "failed"
        assert "value of" in task.result["msg"], task.result["msg"]
    assert iommu_host.ssh(FINGERPRINT).stdout == before


def _assert_refusal(task: TaskResult, request: Refused) -> None:
    assert task.status == "failed", task.result
    assert not task.changed
    problems = task.result.get("problems", [])
    assert request.code in [problem["code"] for problem in problems], task.result
    for word in request.words:
        assert word in task.result["msg"], (word, task.result["msg"])
    assert "Traceback" not in str(task.result)
