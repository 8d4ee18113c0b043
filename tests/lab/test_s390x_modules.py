# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules on IBM Z: a function is known by its identifiers, bound and released."""

from __future__ import annotations

import pytest

from tests import lab

from .controller import Controller

pytestmark = pytest.mark.lab("s390x")

ADDRESS = "1234:00:00.0"


def test_functions_are_told_by_uid_and_fid(small_machine: lab.Machine) -> None:
    task = Controller(small_machine).module("pci_device_info")
    assert task.status == "ok", task.result
    # The uid is the PCI domain. QEMU says of all functions that they are in one place (pchid).
    identifiers = {device["address"]: device["zpci"] for device in task.result["devices"]}
    names = ("uid", "fid", "pchid", "uid_is_unique")
    assert {address: tuple(zpci[name] for name in names) for address, zpci in identifiers.items()} == {
        "0001:00:00.0": ("0x0001", "0x00000000", "0x0000", True),
        "0002:00:00.0": ("0x0002", "0x00000001", "0x0000", True),
        "1234:00:00.0": ("0x1234", "0x00abcdef", "0x0000", True),
    }


def test_a_function_is_bound_and_released(small_machine: lab.Machine) -> None:
    ansible = Controller(small_machine)
    # There is no initramfs tool and no udev on a small machine that could keep it for the next boot.
    request = {"devices": [{"address": ADDRESS}], "persistent": False}

    def driver() -> str:
        return small_machine.ssh(f"basename $(readlink /sys/bus/pci/devices/{ADDRESS}/driver)").stdout.strip()

    for state, expected in (("bound", "vfio-pci"), ("released", "virtio-pci")):
        for changed in (True, False):
            task = ansible.module("vfio_devices", {**request, "state": state})
            assert task.status == "ok", task.result["msg"]
            assert task.changed == changed
            assert driver() == expected


def test_a_function_that_carries_an_address_of_the_host_is_refused(small_machine: lab.Machine) -> None:
    used, free = "0001:00:00.0", ADDRESS
    interface = small_machine.ssh(f"ls /sys/bus/pci/devices/{used}/virtio*/net").stdout.strip()
    small_machine.ssh(f"sudo ip address add 192.0.2.9/24 dev {interface}")
    try:
        task = Controller(small_machine).module(
            "vfio_devices", {"devices": [{"uid": "0x0001"}, {"address": free}], "persistent": False}
        )
    finally:
        small_machine.ssh(f"sudo ip address del 192.0.2.9/24 dev {interface}")
    assert task.status == "failed"
    assert [(problem["code"], problem.get("device")) for problem in task.result["problems"]] == [
        ("management_network", used)
    ], task.result
    assert f"{interface} of {used} carries the host's address 192.0.2.9" in task.result["problems"][0]["message"]
