# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine ``intel`` is what the other tests take it for. Nothing of the collection runs here."""

from __future__ import annotations

import socket
import time

import pytest

from tests import lab

pytestmark = pytest.mark.lab("intel")

VF = "0000:01:10.0"
FOUR_FUNCTIONS = [f"0000:02:00.{function}" for function in range(4)]
EHCI = "0000:00:1a.7"
NVME = "0000:03:00.0"


def ids(machine: lab.Machine, address: str) -> str:
    device = f"/sys/bus/pci/devices/{address}"
    words = machine.ssh(f"cat {device}/vendor {device}/device").stdout.split()
    return ":".join(word.removeprefix("0x") for word in words)


def group(machine: lab.Machine, address: str) -> list[str]:
    return machine.ssh(f"ls /sys/bus/pci/devices/{address}/iommu_group/devices").stdout.split()


def driver(machine: lab.Machine, address: str) -> str:
    link = machine.ssh(f"readlink /sys/bus/pci/devices/{address}/driver", check=False).stdout
    return link.strip().rsplit("/", 1)[-1]


@pytest.mark.parametrize("name", ["fresh", "iommu"])
def test_restored_machine_answers_within_ten_seconds(snapshots: str, name: str) -> None:
    before = time.monotonic()
    with lab.start("intel", snapshot=name) as machine:
        assert time.monotonic() - before <= 10
        assert machine.ssh("id -un; sudo id -un").stdout.split() == ["ops", "root"]
        assert abs(int(machine.ssh("date +%s").stdout) - time.time()) < 10
        directory = machine.directory
    assert not machine.running()
    assert not directory.exists()


def test_fresh_machine_has_its_iommu_off(fresh_host: lab.Machine) -> None:
    assert "intel_iommu=off" in fresh_host.ssh("cat /proc/cmdline").stdout.split()
    assert fresh_host.ssh("ls /sys/kernel/iommu_groups /sys/class/iommu").stdout.split() == [
        "/sys/class/iommu:",
        "/sys/kernel/iommu_groups:",
    ]
    assert ids(fresh_host, VF) == "8086:10ca"
    assert driver(fresh_host, VF) == "igbvf"
    assert fresh_host.ssh("systemctl is-system-running").stdout.strip() == "running"
    assert fresh_host.ssh("sudo virsh list --all --name").stdout.split() == ["guest1", "guest2"]
    for there in ("/sys/firmware/acpi/tables/DMAR", "/usr/share/libvirt/schemas/domain.rng", "/dev/kvm"):
        fresh_host.ssh(f"test -e {there}")


def test_iommu_machine_has_groups_and_the_documented_devices(iommu_host: lab.Machine) -> None:
    assert "intel_iommu=on" in iommu_host.ssh("cat /proc/cmdline").stdout.split()
    assert ids(iommu_host, VF) == "8086:10ca"
    assert group(iommu_host, VF) == [VF]
    assert [ids(iommu_host, address) for address in FOUR_FUNCTIONS] == [
        "1234:11e8",
        "1b36:0005",
        "1b36:0005",
        "1234:11e8",
    ]
    assert group(iommu_host, FOUR_FUNCTIONS[0]) == FOUR_FUNCTIONS
    assert driver(iommu_host, EHCI) == "ehci-pci"
    assert driver(iommu_host, NVME) == "nvme"
    assert iommu_host.ssh(f"cat /sys/bus/pci/devices/{NVME}/sriov_totalvfs").stdout.strip() == "2"
    # Bit 3 of the extended capabilities: interrupt remapping.
    assert int(iommu_host.ssh("cat /sys/class/iommu/dmar0/intel-iommu/ecap").stdout, 16) & 8


def test_two_machines_from_one_snapshot_do_not_meet(fresh_host: lab.Machine) -> None:
    with lab.start("intel", snapshot="fresh") as other:
        other.ssh("echo changed | sudo tee /etc/hostname && sync")
        assert fresh_host.ssh("cat /etc/hostname").stdout == "labhost\n"
        assert fresh_host.ssh_port != other.ssh_port


def test_machine_reaches_nothing_outside(fresh_host: lab.Machine) -> None:
    # Without the restriction 10.0.2.2 is this machine itself, its 127.0.0.1 included.
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"('10.0.2.2', {server.getsockname()[1]})"
        probe = f"import socket; socket.create_connection({address}, timeout=5)"
        # 1 is Python's for an exception, and not what ssh or a shell says of a failure of theirs.
        assert fresh_host.ssh(f'python3 -c "{probe}"', check=False).returncode == 1


@pytest.mark.full
def test_restored_machine_reboots_through_its_own_grub(fresh_host: lab.Machine) -> None:
    fresh_host.ssh("sudo sed -i 's/intel_iommu=off/& lab.proof=1/' /etc/default/grub && sudo update-grub")
    fresh_host.reboot()
    command_line = fresh_host.ssh("cat /proc/cmdline").stdout.split()
    assert command_line[0].startswith("BOOT_IMAGE=/boot/vmlinuz-")
    assert "lab.proof=1" in command_line
    assert ids(fresh_host, VF) == "8086:10ca"
    assert driver(fresh_host, NVME) == "nvme"


@pytest.mark.full
def test_machine_boots_without_its_saved_state(snapshots: str) -> None:
    with lab.start("intel", snapshot="iommu", boot=True) as machine:
        assert "intel_iommu=on" in machine.ssh("cat /proc/cmdline").stdout.split()
        assert driver(machine, NVME) == "nvme"


def hostdev(source: str, guest_address: str = "") -> str:
    bus, slot, function = source.replace(":", ".").split(".")[1:]
    return f"""
        <hostdev mode='subsystem' type='pci' managed='yes'>
          <source><address domain='0x0000' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source>
          {guest_address}
        </hostdev>"""


@pytest.mark.full
def test_nested_guest_sees_the_assigned_functions(iommu_host: lab.Machine) -> None:
    assigned = "<address type='pci' domain='0x0000' bus='0x02' slot='0x00' function='{}' multifunction='{}'/>"
    unassigned = "<address type='unassigned'/>"
    elements = [
        hostdev(VF),
        hostdev(FOUR_FUNCTIONS[0], assigned.format("0x0", "on")),
        hostdev(FOUR_FUNCTIONS[1], unassigned),
        hostdev(FOUR_FUNCTIONS[2], unassigned),
        hostdev(FOUR_FUNCTIONS[3], assigned.format("0x3", "off")),
    ]
    definition = iommu_host.ssh("sudo virsh dumpxml guest1 --inactive").stdout
    definition = definition.replace("</devices>", "".join(elements) + "</devices>")
    iommu_host.ssh("cat >guest1.xml && sudo virsh define --validate guest1.xml", stdin=definition)

    iommu_host.ssh("sudo virsh start guest1")
    assert {driver(iommu_host, address) for address in [VF, *FOUR_FUNCTIONS]} == {"vfio-pci"}
    listed = iommu_host.guest_pci_list("guest1")
    assert [function.ids for function in listed].count("8086:10ca") == 1
    assert {function.address: function.ids for function in listed if function.ids[:4] == "1234"} == {
        "0000:02:00.0": "1234:11e8",
        "0000:02:00.3": "1234:11e8",
    }
    assert not [function for function in listed if function.ids == "1b36:0005"]

    iommu_host.wait_guest_off("guest1")
    assert driver(iommu_host, VF) == "igbvf"


def test_second_guest_keeps_running_until_it_is_destroyed(iommu_host: lab.Machine) -> None:
    iommu_host.ssh("sudo virsh start guest2")
    assert iommu_host.guest_pci_list("guest2")
    assert iommu_host.ssh("sudo virsh domstate guest2").stdout.strip() == "running"
    iommu_host.ssh("sudo virsh destroy guest2")
