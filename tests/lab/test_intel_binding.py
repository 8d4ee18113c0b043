# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Binding on a real kernel where it is hard: a card of several functions, a device that hangs, one replaced."""

from __future__ import annotations

import pytest

from tests import lab

from . import intel
from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("intel")

VF0, VF1 = "0000:01:10.0", "0000:01:10.2"
SLOT = [f"0000:02:00.{function}" for function in range(4)]
CARD = [f"0000:04:00.{function}" for function in range(4)]

# What QEMU does for a guest, until it is stopped: ioctls VFIO_GROUP_SET_CONTAINER, VFIO_SET_IOMMU (type 1) and
# VFIO_GROUP_GET_DEVICE_FD of linux/vfio.h. The kernel does not let go of a device that is open.
HOLDER = f"""
import fcntl, os, signal, struct
container = os.open("/dev/vfio/vfio", os.O_RDWR)
group = os.open("/dev/vfio/" + os.path.basename(os.readlink("/sys/bus/pci/devices/{VF1}/iommu_group")), os.O_RDWR)
fcntl.ioctl(group, 0x3B68, struct.pack("i", container))
fcntl.ioctl(container, 0x3B66, 1)
assert fcntl.ioctl(group, 0x3B6A, bytearray(b"{VF1}\\0")) >= 0
open("/run/device-is-held", "w").close()
signal.pause()
"""


def drivers(machine: lab.Machine, addresses: list[str]) -> list[str]:
    """The driver of each device, empty for none."""
    found = machine.drivers()
    return [found[address] for address in addresses]


def test_a_card_of_four_functions_goes_as_a_whole_and_comes_back_as_it_was(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    with iommu_host.qmp() as qmp:
        for function in (1, 2, 3, 0):  # the kernel looks at the slot when function 0 comes
            card = {"driver": "e1000e", "id": f"card{function}", "bus": "port4", "addr": f"0x0.0x{function}"}
            qmp.execute_exactly("device_add", {**card, "multifunction": True, "mac": f"52:54:00:6b:76:4{function}"})
    iommu_host.wait_for(f"test -e /sys/bus/pci/devices/{CARD[3]}/driver")
    iommu_host.ssh(f"echo {CARD[2]} | sudo tee /sys/bus/pci/drivers/e1000e/unbind >/dev/null; sudo udevadm settle")
    assert drivers(iommu_host, CARD) == ["e1000e", "e1000e", "", "e1000e"]
    interfaces = iommu_host.ssh("ls /sys/class/net").stdout

    refused = ansible.module("vfio_devices", {"devices": [CARD[0]], "persistent": False})
    assert refused.status == "failed"
    assert refused.result["code"] == "group_not_viable"
    assert all(mate in refused.result["msg"] for mate in CARD[1:])

    request = {"devices": [CARD[0]], "group": "include", "persistent": False}
    bound = quadruple(ansible, "vfio_devices", request)
    assert [device["after"]["driver"] for device in bound["devices"]] == ["vfio-pci"] * 4
    assert drivers(iommu_host, CARD) == ["vfio-pci"] * 4

    quadruple(ansible, "vfio_devices", {**request, "state": "released"})
    assert drivers(iommu_host, CARD) == ["e1000e", "e1000e", "", "e1000e"]
    iommu_host.ssh("sudo udevadm settle")
    assert iommu_host.ssh("ls /sys/class/net").stdout == interfaces
    iommu_host.ssh("sudo test ! -e /var/lib/kvm-passthrough")


def test_a_device_that_the_kernel_does_not_let_go(iommu_host: lab.Machine) -> None:
    """The classic hang: unbinding from vfio-pci waits until the last file of the device is closed."""
    ansible = Controller(iommu_host)
    request = {"devices": [VF0, VF1], "persistent": False, "timeout": 5}
    quadruple(ansible, "vfio_devices", request)
    iommu_host.ssh("sudo modprobe vfio_iommu_type1 && cat >/tmp/holder.py", stdin=HOLDER)
    iommu_host.ssh("sudo systemd-run --quiet --unit=holder python3 /tmp/holder.py")
    iommu_host.wait_for("test -e /run/device-is-held")

    release = {**request, "state": "released"}
    refused = ansible.module("vfio_devices", release)
    assert refused.status == "failed"
    assert refused.result["code"] == "in_use_by_domain"
    assert "python3" in refused.result["msg"]

    # The other device of the request goes back to VFIO, and the run ends.
    hung = ansible.module("vfio_devices", {**release, "force": ["in_use_by_domain"]})
    assert hung.status == "failed"
    assert hung.result["code"] == "attribute_write_timeout", hung.result["msg"]
    assert hung.result["reboot_required"] is True
    assert hung.result["failed_action"] == f"detach {VF1} from vfio-pci"
    assert hung.result["undone"] == [f"detach {VF0} from vfio-pci"]
    assert [problem["target"] for problem in hung.result["not_undone"]] == [VF1]
    # The kernel takes the link to the driver away first, and then waits in the driver.
    assert drivers(iommu_host, [VF0, VF1]) == ["vfio-pci", ""]

    # Where the kernel shows driver_override under the lock of the device, whoever reads it now waits for ever; the
    # modules do not. Newer kernels have another lock for it, and do nothing when they are asked to bind the device:
    # then the process that hangs tells.
    again = ansible.module("vfio_devices", request)
    assert again.status == "failed"
    assert again.result["code"] == "device_hangs", again.result["msg"]
    assert again.result["reboot_required"] is True
    assert again.result["device"] == VF1
    assert ansible.module("pci_device_info", {"devices": [VF0, VF1]}).status == "ok"

    # When the other program ends, the kernel completes what hung, and the next run does the rest.
    iommu_host.ssh("sudo systemctl stop holder")
    iommu_host.wait_for("! grep -qs ^State:.D /proc/[0-9]*/status")
    quadruple(ansible, "vfio_devices", release)
    assert drivers(iommu_host, [VF0, VF1]) == ["igbvf", "igbvf"]
    iommu_host.ssh("sudo test ! -e /var/lib/kvm-passthrough")


@pytest.mark.full
def test_another_device_in_the_place_of_one_that_is_bound_at_every_boot(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    request = {"devices": [VF1, {"address": SLOT[0], "expect": {"vendor_id": "1234"}}], "group": "include"}
    bound = ansible.module("vfio_devices", request)
    assert bound.status == "ok", bound.result["msg"]
    # Of two identical devices only the one that was asked for.
    assert drivers(iommu_host, [VF0, VF1, *SLOT]) == ["igbvf", *["vfio-pci"] * 5]

    other = ("-device", "e1000e,bus=port2,mac=52:54:00:6b:76:20")
    iommu_host.restart(intel.MACHINE.hardware(intel.devices(other)), limit=lab.DEFAULT_LIMIT)

    # The rules are about devices and not about places.
    assert drivers(iommu_host, [VF0, VF1, SLOT[0]]) == ["igbvf", "vfio-pci", "e1000e"]
    for place in (SLOT[0], request["devices"][1]):
        task = ansible.module("vfio_devices", {**request, "devices": [VF1, place]})
        assert task.status == "failed"
        assert task.result["code"] == "identity_mismatch", task.result["msg"]
        assert task.result["device"] == SLOT[0]
        assert "1234" in task.result["msg"]
        assert "8086" in task.result["msg"]
    assert drivers(iommu_host, [SLOT[0]]) == ["e1000e"]

    # What is left of the old device is told, and ends with exclusive.
    rest = ansible.module("vfio_devices", {"devices": [VF1]})
    assert rest.status == "ok", rest.result["msg"]
    assert not rest.changed
    assert [(each["address"], each["found"]) for each in rest.result["stale"]] == [
        (SLOT[0], "8086:10d3"), (SLOT[1], None), (SLOT[2], None), (SLOT[3], None),
    ]  # fmt: skip
    exclusive = ansible.module("vfio_devices", {"devices": [VF1], "exclusive": True}, check=True)
    assert exclusive.status == "ok", exclusive.result["msg"]
    assert [action["target"] for action in exclusive.result["actions"]][:4] == SLOT
    assert "/etc/udev/rules.d/70-kvm-passthrough.rules" in [each["target"] for each in exclusive.result["actions"]]
