# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The small machines are what the other tests take them for. Nothing of the collection runs here."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, field

import pytest

from tests import lab
from tests.lab import cache
from tests.lab.machine import find_machines
from tests.lab.run import LabError
from tests.lab.small import MACHINES

EDU, NVME, ROOT_PORT, IGB = "0000:00:03.0", "0000:00:04.0", "0000:00:05.0", "0000:01:00.0"
ENDPOINTS = {EDU: "1234:11e8", NVME: "1b36:0010", ROOT_PORT: "1b36:000c", IGB: "8086:10c9"}
DRIVERS = {NVME: "nvme", ROOT_PORT: "pcieport", IGB: "igb"}
ZPCI_1, ZPCI_2, ZPCI_3 = "0001:00:00.0", "0002:00:00.0", "1234:00:00.0"
ZPCI = {ZPCI_1: "1af4:1000", ZPCI_2: "1af4:1005", ZPCI_3: "1af4:1000"}
SOUTH_BRIDGE = ("0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3")


@dataclass(frozen=True)
class Expected:
    """What is to be seen on a machine; ``mates`` are groups of more than one, ``bound`` is what vfio-pci can have."""

    uname: str
    units: str = ""
    devices: dict[str, str] = field(default_factory=lambda: ENDPOINTS)
    drivers: dict[str, str] = field(default_factory=lambda: DRIVERS)
    mates: tuple[tuple[str, ...], ...] = ()
    groupless: tuple[str, ...] = ()
    bound: str | None = EDU
    kvm: bool = True


# Where the mirror lacks packages of Debian 13, the system is made from the next release.
DEBIAN13, DEBIAN12 = r"(?:6\.12\.\S+\+deb13|\d+\.\d+\.\S+\+deb14)-", r"6\.1\.0-\d+-"
ZPCI_UNITS = "s390-iommu.00000000 s390-iommu.00000001 s390-iommu.00abcdef"
NO_GROUPS = tuple(ENDPOINTS)

EXPECTED = {
    "amd": Expected(rf"x86_64 {DEBIAN13}amd64", "ivhd0", mates=(SOUTH_BRIDGE,)),
    "amd-off": Expected(rf"x86_64 {DEBIAN13}amd64", groupless=NO_GROUPS, bound=None),
    "intel-firmware-off": Expected(rf"x86_64 {DEBIAN13}amd64", groupless=NO_GROUPS, bound=None, kvm=False),
    # Binding works; it is opening the group that is refused without interrupt remapping.
    "intel-no-remapping": Expected(rf"x86_64 {DEBIAN13}amd64", "dmar0", mates=(SOUTH_BRIDGE,)),
    # With a device tree the kernel asks for ACS after it has set up the root port, so that what is behind it is in
    # its group; and a device without a driver is in no group.
    "arm64": Expected(
        rf"aarch64 {DEBIAN13}arm64", "smmu3.0x0000000009050000", mates=((ROOT_PORT, IGB),), groupless=(EDU,)
    ),
    "arm64-acpi": Expected(rf"aarch64 {DEBIAN13}arm64", "smmu3.0x0000000009050000", groupless=(EDU,)),
    "arm64-no-iommu": Expected(rf"aarch64 {DEBIAN13}arm64", groupless=NO_GROUPS, bound=None),
    "s390x": Expected(
        rf"s390x {DEBIAN13}s390x", ZPCI_UNITS, ZPCI, dict.fromkeys(ZPCI, "virtio-pci"), bound=ZPCI_3, kvm=False
    ),
    "s390x-debian12": Expected(
        rf"s390x {DEBIAN12}s390x", ZPCI_UNITS, ZPCI, dict.fromkeys(ZPCI, "virtio-pci"), bound=None, kvm=False
    ),
}

each_machine = pytest.mark.parametrize(
    "expected",
    [
        pytest.param(EXPECTED.get(name), id=name, marks=pytest.mark.lab(name))
        for name, machine in MACHINES.items()
        if machine.disk is None and not machine.drives  # else its own tests say what it shows
    ],
)

LOOK = """
cd /sys/bus/pci/devices
for device in *; do
    group=$(ls -m $device/iommu_group/devices 2>/dev/null | tr -d ' \\n')
    echo "$device $(cat $device/vendor):$(cat $device/device) $(basename "$(readlink $device/driver)") $group"
done
"""


def bind(address: str) -> str:
    """A script that gives a device to vfio-pci, tells its driver and the nodes of VFIO, and gives it back."""
    return f"""
    set -e
    cd /sys/bus/pci/devices/{address}
    modprobe vfio-pci
    before=$(basename "$(readlink driver)")
    echo vfio-pci >driver_override
    test ! -e driver || echo {address} >driver/unbind
    echo {address} >/sys/bus/pci/drivers_probe || true
    echo "driver $(basename "$(readlink driver)")"
    echo "group $(basename "$(readlink iommu_group)")"
    echo "node $(ls /dev/vfio | grep -v vfio)"
    test ! -e driver || echo {address} >driver/unbind
    echo >driver_override
    test -z "$before" || echo {address} >/sys/bus/pci/drivers_probe
    echo "again $(basename "$(readlink driver)")"
    echo "was $before"
    """


@each_machine
def test_machine_shows_what_it_was_made_of(small_machine: lab.Machine, expected: Expected | None) -> None:
    assert expected is not None, "this machine has no expectations in this file yet"
    assert re.fullmatch(expected.uname, small_machine.ssh('echo "$(uname -m) $(uname -r)"').stdout.strip())
    assert small_machine.ssh("ls /boot/config-$(uname -r) >/dev/null; id -un; sudo id -un").stdout == "ops\nroot\n"
    assert small_machine.ssh("ls /sys/class/iommu").stdout.split() == expected.units.split()

    seen = {}
    for line in small_machine.ssh(LOOK).stdout.splitlines():
        address, ids, driver, mates = line.split(" ")
        seen[address] = (ids.replace("0x", ""), driver, tuple(mates.split(",")) if mates else ())
    assert {address: seen[address][0] for address in expected.devices} == expected.devices
    assert {address: seen[address][1] for address in expected.drivers} == expected.drivers
    together = {address: group for group in expected.mates for address in group}
    alone = {address: () if address in expected.groupless else (address,) for address in expected.devices}
    groups = {**alone, **together}
    assert {address: seen[address][2] for address in groups} == groups
    has_kvm = small_machine.ssh("test -c /dev/kvm", check=False).returncode == 0
    assert has_kvm == expected.kvm


@each_machine
def test_vfio_takes_a_device_where_it_can_and_gives_it_back(small_machine: lab.Machine, expected: Expected) -> None:
    address = expected.bound or next(iter(expected.devices))
    result = small_machine.ssh("sudo sh -s", stdin=bind(address), check=False)
    told = dict(line.partition(" ")[::2] for line in result.stdout.splitlines())
    if small_machine.name.startswith("s390x-debian12"):
        assert "vfio-pci not found" in result.stderr
    elif expected.bound is None:
        assert told["driver"] == ""
    else:
        assert told["driver"] == "vfio-pci"
        assert told["node"] == told["group"] != ""
    assert told.get("again") == told.get("was")


@pytest.mark.lab("s390x")
def test_ibm_z_functions_have_their_identifiers(small_machine: lab.Machine) -> None:
    command = "cd /sys/bus/pci/devices; for d in *; do echo $d $(cat $d/uid $d/function_id $d/uid_is_unique); done"
    assert small_machine.ssh(command).stdout.splitlines() == [
        f"{ZPCI_1} 0x1 0x00000000 1",
        f"{ZPCI_2} 0x2 0x00000001 1",
        f"{ZPCI_3} 0x1234 0x00abcdef 1",
    ]
    assert small_machine.ssh("ls /sys/bus/pci/slots").stdout.split() == ["00000000", "00000001", "00abcdef"]


@pytest.mark.lab("arm64-acpi")
def test_arm_machine_with_firmware_has_acpi_and_one_without_a_device_tree(small_machine: lab.Machine) -> None:
    assert "IORT" in small_machine.ssh("ls /sys/firmware/acpi/tables").stdout.split()
    assert small_machine.ssh("ls /sys/firmware/devicetree/base/smmuv3*", check=False).returncode != 0


@pytest.mark.lab("arm64")
def test_arm_machine_without_firmware_has_a_device_tree(small_machine: lab.Machine) -> None:
    assert small_machine.ssh("ls /sys/firmware/acpi/tables", check=False).returncode != 0
    assert "iommu-map" in small_machine.ssh("ls /sys/firmware/devicetree/base/pcie@10000000").stdout.split()


@pytest.mark.lab("arm64")
def test_small_machine_ends_by_itself_at_its_limit() -> None:
    name = "arm64-short-lived"
    with pytest.raises(LabError, match=f"the emulator of '{name}' ended"):
        lab.small.start("arm64", name=name, limit=3)
    assert find_machines(name) == []
    shutil.rmtree(cache.run_directory() / name)  # the logs of what went wrong
