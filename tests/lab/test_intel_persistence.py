# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bindings outlast a reboot and a new kernel, with the host's drivers in the initramfs; and all of it is taken back."""

from __future__ import annotations

import re

import pytest

from tests import lab

from .controller import Controller, quadruple

pytestmark = pytest.mark.lab("intel")

NETWORK_CARD = "0000:04:00.0"
NVME = "0000:03:00.0"
VF = "0000:01:10.0"
OTHER_VF = "0000:01:10.2"
SLOT = [f"0000:02:00.{function}" for function in range(4)]
BOUND = [NETWORK_CARD, NVME, VF, *SLOT]

E1000E: dict[str, str | int] = {
    "driver": "e1000e",
    "id": "e1000e",
    "bus": "port4",
    "mac": "52:54:00:6b:10:d3",
    "romfile": "",
}

# The drivers are loaded by name before anything else in the initramfs looks at devices.
EARLY = """
set -eu
printf 'e1000e\\nnvme\\n' | sudo tee -a /etc/initramfs-tools/modules >/dev/null
sudo update-initramfs -u -k all >/dev/null 2>&1
"""

SETTINGS = """
cd /etc && sudo find . -xdev -type f -print0 | sort -z | sudo xargs -0 sha256sum
sudo find . -xdev ! -type f -printf '%y %m %U %p %l\\n' | sort
"""

IMAGES = """
for image in /boot/initrd.img-*; do
  echo "$image"
  sudo lsinitramfs "$image" | sort
done
"""


def test_an_early_driver_does_not_win_and_all_is_taken_back(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    with iommu_host.qmp() as qmp:
        qmp.execute_exactly("device_add", E1000E)
    iommu_host.ssh(EARLY, timeout=400)
    iommu_host.settle()
    drivers = iommu_host.drivers()
    assert (drivers[NETWORK_CARD], drivers[NVME]) == ("e1000e", "nvme")
    settings = iommu_host.ssh(SETTINGS).stdout
    images = iommu_host.ssh(IMAGES).stdout
    assert re.search(r"/e1000e\.ko", images)

    request = {"devices": BOUND}
    quadruple(ansible, "vfio_devices", {**request, "options": {"disable_idle_d3": True}})
    assert {iommu_host.drivers()[address] for address in BOUND} == {"vfio-pci"}
    assert _option(iommu_host, "disable_idle_d3") == "Y"

    # The next kernel finds out by itself.
    second = iommu_host.install_second_kernel()
    iommu_host.reboot()
    assert iommu_host.ssh("uname -r").stdout.strip() == second
    after = iommu_host.drivers()
    assert {after[address] for address in BOUND} == {"vfio-pci"}
    assert after[OTHER_VF] == "igbvf"
    assert _option(iommu_host, "disable_idle_d3") == "Y"
    # Both drivers were loaded, and neither ever said a word about its device.
    log = iommu_host.ssh("sudo journalctl --boot --dmesg --output=cat").stdout
    modules = iommu_host.ssh("lsmod").stdout
    for driver, address in (("e1000e", NETWORK_CARD), ("nvme", NVME), ("igbvf", VF)):
        assert re.search(rf"^{driver}\b", modules, re.MULTILINE)
        assert [line for line in log.splitlines() if address in line and driver in line] == []
    again = ansible.module("vfio_devices", request)
    assert again.status == "ok", again.result
    assert not again.changed

    # And back: what the second kernel's package brought is all that is new.
    quadruple(ansible, "vfio_devices", {**request, "state": "released"})
    now = iommu_host.drivers()
    assert {address: now[address] for address in BOUND} == {address: drivers[address] for address in BOUND}
    assert _option(iommu_host, "disable_idle_d3") in ("", "N")
    assert iommu_host.ssh(SETTINGS).stdout == settings
    assert iommu_host.ssh("sudo find /var/lib/kvm-passthrough").stdout == ""
    listed = iommu_host.ssh(IMAGES).stdout
    assert images in listed
    assert "kvm-passthrough" not in listed


def _option(machine: lab.Machine, name: str) -> str:
    """The value of an option of the loaded module; empty when it is not loaded."""
    return machine.ssh(f"cat /sys/module/vfio_pci/parameters/{name} 2>/dev/null || true").stdout.strip()
