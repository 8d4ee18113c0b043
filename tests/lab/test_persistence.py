# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bindings outlast a reboot and a new kernel, with the host's drivers in the initramfs; and all of it is taken back."""

from __future__ import annotations

import re

import pytest

from tests import lab

from .controller import Controller, quadruple

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

IMAGES = """
for image in /boot/initrd.img-*; do
  echo "$image"
  sudo lsinitramfs "$image" | sort
done
"""


@pytest.mark.lab("intel")
def test_an_early_driver_does_not_win_and_all_is_taken_back(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    with iommu_host.qmp() as qmp:
        qmp.execute_exactly("device_add", E1000E)
    iommu_host.ssh(EARLY, timeout=400)
    iommu_host.settle()
    drivers = iommu_host.drivers()
    assert (drivers[NETWORK_CARD], drivers[NVME]) == ("e1000e", "nvme")
    settings = iommu_host.etc()
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
    never_taken(iommu_host, {"e1000e": NETWORK_CARD, "nvme": NVME, "igbvf": VF})
    again = ansible.module("vfio_devices", request)
    assert again.status == "ok", again.result
    assert not again.changed

    # And back: what the second kernel's package brought is all that is new.
    quadruple(ansible, "vfio_devices", {**request, "state": "released"})
    now = iommu_host.drivers()
    assert {address: now[address] for address in BOUND} == {address: drivers[address] for address in BOUND}
    assert _option(iommu_host, "disable_idle_d3") in ("", "N")
    assert iommu_host.etc() == settings
    iommu_host.ssh("sudo test ! -e /var/lib/kvm-passthrough")
    listed = iommu_host.ssh(IMAGES).stdout
    assert images in listed
    assert "kvm-passthrough" not in listed


# dracut loads these by name as early as it can, too.
EARLY_WITH_DRACUT = "echo 'force_drivers+=\" e1000e nvme \"' | sudo tee /etc/dracut.conf.d/early.conf >/dev/null"

IMAGES_OF_DRACUT = """
for image in $(sudo find /boot -name 'initrd*' -type f); do
  echo "$image"
  sudo lsinitrd "$image"
done
"""


@pytest.mark.full
@pytest.mark.lab("systemd-boot")
def test_the_same_with_dracut_and_images_on_the_boot_partition(large_machine: lab.Machine) -> None:
    machine, ansible = large_machine, Controller(large_machine)
    network_card, nvme = "0000:01:00.0", "0000:03:00.0"
    machine.ssh(EARLY_WITH_DRACUT)
    quadruple(ansible, "kernel_parameters", {"present": ["intel_iommu=on"]})
    machine.reboot()
    settings = machine.etc()
    drivers = machine.drivers()
    assert (drivers[network_card], drivers[nvme]) == ("e1000e", "nvme")

    request = {"devices": [network_card, nvme]}
    quadruple(ansible, "vfio_devices", request)
    listed = machine.ssh(IMAGES_OF_DRACUT, timeout=300).stdout
    images = len(re.findall("^/", listed, re.MULTILINE))
    assert images == 2  # where dracut makes it, and where systemd-boot takes it from
    assert len(re.findall(r"/udev/rules\.d/\S*kvm-passthrough", listed)) == images

    second = machine.install_second_kernel()
    machine.reboot()
    assert machine.ssh("uname -r").stdout.strip() == second
    after = machine.drivers()
    assert (after[network_card], after[nvme]) == ("vfio-pci", "vfio-pci")
    never_taken(machine, {"e1000e": network_card, "nvme": nvme})
    again = ansible.module("vfio_devices", request)
    assert again.status == "ok", again.result
    assert not again.changed

    quadruple(ansible, "vfio_devices", {**request, "state": "released"})
    now = machine.drivers()
    assert (now[network_card], now[nvme]) == ("e1000e", "nvme")
    assert machine.etc() == settings
    assert "kvm-passthrough" not in machine.ssh(IMAGES_OF_DRACUT, timeout=300).stdout


def never_taken(machine: lab.Machine, drivers: dict[str, str]) -> None:
    """The drivers of the host were loaded, and never said a word about these devices, one for each."""
    log = machine.ssh("sudo journalctl --boot --dmesg --output=cat").stdout
    modules = machine.ssh("lsmod").stdout
    for driver, address in drivers.items():
        assert re.search(rf"^{driver}\b", modules, re.MULTILINE)
        assert [line for line in log.splitlines() if address in line and driver in line] == []


def _option(machine: lab.Machine, name: str) -> str:
    """The value of an option of the loaded module; empty when it is not loaded."""
    return machine.ssh(f"cat /sys/module/vfio_pci/parameters/{name} 2>/dev/null || true").stdout.strip()
