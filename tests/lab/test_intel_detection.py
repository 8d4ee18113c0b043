# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an operator reads when asking a booted host about its IOMMU and its devices."""

from __future__ import annotations

import pytest

from tests import lab

from .controller import Controller

pytestmark = pytest.mark.lab("intel")


def test_a_host_with_its_iommu_switched_off_says_so_and_what_to_do(fresh_host: lab.Machine) -> None:
    ansible = Controller(fresh_host)

    run = ansible.run("ansible", "kvm_hosts", "-b", "-m", "kvm.passthrough.iommu_info")

    assert run.rc == 0, run.output
    result = run.only.result
    assert result["state"] == "disabled_by_parameter"
    assert result["platform"] == "intel_vtd"
    assert result["recommended_parameters"] == ["intel_iommu=on"]
    blocker = next(each for each in result["blockers"] if each["code"] == "iommu_disabled_by_parameter")
    assert blocker["severity"] == "error"
    assert "intel_iommu=off" in blocker["message"]
    assert "kernel_parameters" in blocker["remedy"]
    assert "intel_iommu=on" in run.output  # a person who reads the terminal sees it, too

    assert result["bootloader"]["name"] == "grub"
    assert "intel_iommu=off" in result["configured_parameters"]

    # Once the boot loader is set, what is left to do is another thing.
    ansible.module("kernel_parameters", {"present": ["intel_iommu=on"]})
    configured = ansible.module("iommu_info").result
    assert configured["state"] == "disabled_by_parameter"
    assert "intel_iommu=on" in configured["configured_parameters"]
    remedies = {each["code"]: each["remedy"] for each in configured["blockers"]}
    assert remedies["iommu_disabled_by_parameter"].startswith("Reboot the host")
    assert "reboot_pending" in remedies

    # Without root the answer has gaps, says where, and is the same as far as it goes.
    unprivileged = ansible.module("iommu_info", become=False)
    assert unprivileged.status == "ok", unprivileged.result
    assert unprivileged.result["state"] == "disabled_by_parameter"
    assert unprivileged.result["unreadable"]

    # The virtual functions, ad hoc, as typed.
    words = ["-b", "-m", "kvm.passthrough.pci_device_info", "-a", "devices=8086:10ca count=all"]
    run = ansible.run("ansible", "kvm_hosts", *words)
    assert run.rc == 0, run.output
    found = {device["address"]: device for device in run.only.result["devices"]}
    assert len(found) >= 2
    vf = found["0000:01:10.0"]
    assert vf["ids"] == "8086:10ca"
    assert vf["pf"] == "0000:01:00.0"
    assert not vf["assignable"]
    assert "no_iommu" in [obstacle["code"] for obstacle in vf["obstacles"]]
    assert "0000:01:10.0" in run.output


def test_a_host_with_an_active_iommu_says_which_devices_can_be_given_away(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)

    iommu = ansible.module("iommu_info").result
    assert iommu["state"] == "active"
    assert iommu["recommended_parameters"] == []
    assert [blocker for blocker in iommu["blockers"] if blocker["severity"] == "error"] == []

    devices = {device["address"]: device for device in ansible.module("pci_device_info").result["devices"]}
    group = iommu_host.ssh("basename $(readlink /sys/bus/pci/devices/0000:01:10.0/iommu_group)").stdout.strip()
    assert devices["0000:01:10.0"]["assignable"]
    assert str(devices["0000:01:10.0"]["iommu_group"]["number"]) == group

    root_disk = _controller_of(iommu_host, "/dev/$(lsblk --noheadings --output pkname $(findmnt -no source /))")
    obstacles = [obstacle["code"] for obstacle in devices[root_disk]["obstacles"]]
    assert "boot_disk" in obstacles
    management = iommu_host.ssh("ip -json route get 10.0.2.2").stdout
    interface = management.split('"dev":"')[1].split('"')[0]
    (card,) = (device for device in devices.values() if interface in [each["name"] for each in device["interfaces"]])
    assert "management_network" in [obstacle["code"] for obstacle in card["obstacles"]]


CARD = "0000:04:00.0"
"""A card with a serial number, which is made of its MAC address; the other devices of the machine have none."""


def test_what_the_kernel_shows_of_devices_is_told(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    with iommu_host.qmp() as qmp:
        card = {"driver": "e1000e", "id": "card", "bus": "port4", "mac": "52:54:00:6b:76:40"}
        qmp.execute_exactly("device_add", card)
    iommu_host.wait_for(f"test -e /sys/bus/pci/devices/{CARD}/driver")

    told = ansible.module("pci_device_info", {"tree": True, "obstacles": False}).result

    devices = {device["address"]: device for device in told["devices"]}
    assert list(devices) == iommu_host.ssh("ls /sys/bus/pci/devices").stdout.split()
    serial = devices[CARD]["serial"]
    assert f"Device Serial Number {serial}" in iommu_host.ssh(f"sudo lspci -vv -s {CARD}").stdout
    assert devices["0000:01:00.0"]["serial"] is None
    assert devices[CARD]["link"]["speed"] is not None
    assert devices[CARD]["modules"] == ["e1000e"]
    assert devices["0000:01:10.0"]["variant_drivers"] == []
    assert devices["0000:01:10.2"]["vf"] == 1
    assert devices[CARD]["device_name"] in iommu_host.ssh(f"lspci -mm -s {CARD}").stdout
    (line,) = (line for line in told["tree_lines"] if "0000:01:10.0" in line)
    (port,) = (line for line in told["tree_lines"] if "0000:00:04.0" in line)
    assert line.index("0000:01:10.0") > port.index("0000:00:04.0")
    assert f"group {devices['0000:01:10.0']['iommu_group']['number']}" in line

    # The extended configuration space is for root; the rest is the same.
    unprivileged = ansible.module("pci_device_info", {"devices": [CARD]}, become=False)
    assert unprivileged.status == "ok", unprivileged.result
    assert unprivileged.result["devices"][0]["serial"] is None
    assert any("serial" in gap for gap in unprivileged.result["unreadable"])

    found = ansible.module("pci_device_info", {"devices": [{"serial": serial}], "obstacles": False}).result["devices"]
    assert [device["address"] for device in found] == [CARD]
    other = {"address": CARD, "expect": {"serial": "52-54-00-ff-ff-6b-76-41"}}
    refused = ansible.module("pci_device_info", {"devices": [other]})
    assert refused.status == "failed"
    assert refused.result["code"] == "identity_mismatch"


def test_a_daemon_that_cannot_do_its_work_is_named(iommu_host: lab.Machine) -> None:
    ansible = Controller(iommu_host)
    before = ansible.module("iommu_info").result
    assert before["versions"]["libvirt"] in iommu_host.ssh("/usr/sbin/libvirtd --version").stdout
    assert before["versions"]["qemu"] in iommu_host.ssh("qemu-system-x86_64 --version").stdout
    daemons = {daemon["unit"]: daemon for daemon in before["libvirt"]["daemons"]}
    assert not daemons["libvirtd.service"]["hides_modules"]
    assert daemons["libvirtd.service"]["may_raise_limits"]

    for unit in daemons:
        iommu_host.ssh(
            f"sudo mkdir -p /etc/systemd/system/{unit}.d && "
            f"printf '[Service]\\nProtectKernelModules=yes\\nPrivateDevices=yes\\n' | "
            f"sudo tee /etc/systemd/system/{unit}.d/hardening.conf >/dev/null && sudo systemctl daemon-reload"
        )
    iommu_host.ssh("echo 'cgroup_device_acl = [ \"/dev/null\" ]' | sudo tee -a /etc/libvirt/qemu.conf >/dev/null")
    iommu_host.ssh("echo 'blacklist vfio_pci' | sudo tee /etc/modprobe.d/blacklist.conf >/dev/null")

    found = {blocker["code"]: blocker for blocker in ansible.module("iommu_info").result["blockers"]}
    assert found["daemon_hides_devices"]["severity"] == "error"
    assert {"daemon_hides_modules", "device_acl_incomplete", "vfio_pci_blacklisted"} <= set(found)
    assert "/dev/kvm" in found["device_acl_incomplete"]["message"]


def _controller_of(machine: lab.Machine, block_device: str) -> str:
    """The PCI address behind a block device, as the kernel's own path names it."""
    path = machine.ssh(f"readlink -f /sys/class/block/$(basename {block_device})/device").stdout.strip()
    return [name for name in path.split("/") if name.count(":") == 2][-1]
