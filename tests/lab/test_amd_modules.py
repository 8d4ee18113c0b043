# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules on AMD: of four virtual functions, two are bound and released."""

from __future__ import annotations

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("amd")

PF = "0000:01:00.0"
VFS = [f"0000:01:10.{function}" for function in (0, 2, 4, 6)]


def drivers(machine: lab.Machine) -> list[str]:
    """The driver of each virtual function."""
    command = "cd /sys/bus/pci/devices; for d in 0000:01:10.*; do basename $(readlink $d/driver); done"
    return machine.ssh(command).stdout.split()


def test_two_of_four_virtual_functions_are_bound_and_released(small_machine: lab.Machine) -> None:
    ansible = Controller(small_machine)
    small_machine.ssh(
        f"sudo sh -ec 'modprobe igbvf; echo 4 >/sys/bus/pci/devices/{PF}/sriov_numvfs; cd /sys/bus/pci/devices; "
        f'timeout 60 sh -c "until test -e {VFS[3]}/driver; do sleep 0.2; done"\''
    )
    assert drivers(small_machine) == ["igbvf"] * 4
    # There is no initramfs tool and no udev on a small machine that could keep them for the next boot.
    request = {"devices": [{"pf": {"address": PF}, "vf": [0, 2]}], "persistent": False}

    bound = quadruple(ansible, "vfio_devices", request)
    assert [(device["address"], device["before"]["driver"]) for device in bound["devices"]] == [
        (VFS[0], "igbvf"), (VFS[2], "igbvf"),
    ]  # fmt: skip
    assert drivers(small_machine) == ["vfio-pci", "igbvf", "vfio-pci", "igbvf"]

    quadruple(ansible, "vfio_devices", {**request, "state": "released"})
    assert drivers(small_machine) == ["igbvf"] * 4
    small_machine.ssh(f"echo 0 | sudo tee /sys/bus/pci/devices/{PF}/sriov_numvfs >/dev/null")
