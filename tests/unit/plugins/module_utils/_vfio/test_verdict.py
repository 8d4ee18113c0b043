# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the report calls assignable is what binding accepts, on any host."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.base import Finding, Severity
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.info import devices_report
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.verdict import is_assignable
from ansible_collections.kvm.passthrough.tests.unit.support.devices import run
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [
        ([], True),
        ([(Severity.ERROR, True)], False),
        ([(Severity.ERROR, False)], None),
        ([(Severity.WARNING, True)], True),
        ([(Severity.WARNING, False)], None),
        ([(Severity.WARNING, False), (Severity.ERROR, True)], False),
        ([(Severity.WARNING, True), (Severity.ERROR, False)], None),
    ],
)
def test_verdict(findings: list[tuple[Severity, bool]], verdict: Optional[bool]) -> None:
    made = [
        Finding("boot_disk", "0000:01:00.0", "No.", "", forcible=True, severity=severity, certain=certain)
        for severity, certain in findings
    ]
    assert is_assignable(made) is verdict


CLASSES = (0x020000, 0x010802, 0x030000, 0x0C0330, 0x0C0500, 0x050000, 0x060100)
DEVICE = st.fixed_dictionaries(
    {
        "pci_class": st.sampled_from(CLASSES),
        "driver": st.sampled_from([None, None, "e1000e", "e1000e", "vfio-pci", "mlx5_vfio_pci", "pci-stub"]),
        "group": st.sampled_from([None, None, 1, 1, 2, 3]),
        "bridge": st.sampled_from([False, False, False, False, True]),
        "boot_vga": st.booleans(),
        "reset_methods": st.sampled_from(["flr", None]),
    }
)
HOST = st.fixed_dictionaries(
    {
        "devices": st.lists(DEVICE, min_size=1, max_size=5),
        "direct": st.sets(st.integers(1, 3), max_size=1),
        "remapped": st.sampled_from([True, True, True, False]),
        "container": st.sampled_from([False, False, False, True]),
        "smmu": st.booleans(),
        "mounted": st.integers(0, 9),
        "address": st.integers(0, 9),
        "keyboards": st.sets(st.integers(0, 5), max_size=2),
        "held": st.sampled_from([None, 1, 2]),
    }
)


def host_of(folder: Path, made: dict[str, Any]) -> FakeKernel:
    """A machine with up to five functions on two buses, some of which it uses."""
    tree = SysfsTree(folder)
    tree.write("/proc/iomem", "").write("/proc/swaps", "Filename\n").write("/proc/self/mountinfo", "").link(
        "/proc/1/fd/0", "/dev/null"
    )
    tree.write("/proc/sys/kernel/arch", "aarch64\n" if made["smmu"] else "x86_64\n")
    if made["smmu"]:
        tree.write("/sys/class/iommu/smmu3.0x0/uevent", "")
    else:
        tree.add_vtd().write("/proc/interrupts", f" 24: 0 {'IR-' if made['remapped'] else ''}PCI-MSI 1-edge x\n")
    if made["container"]:
        tree.path("/proc/self/ns").mkdir()
        tree.path("/proc/self/ns/pid").symlink_to("pid:[4026532201]")
    for group in (1, 2, 3):
        tree.add_group(group, reserved=["0x0 0xfff direct"] if group in made["direct"] else [])
    for number, device in enumerate(made["devices"]):
        place = f"0000:{5 + number // 3:02x}:00.{number}"
        bridge = device["bridge"]
        values = {**device, "driver": "pcieport" if bridge else device["driver"], "ids": f"8086:{number:04x}"}
        if values["driver"] is not None and "vfio" in values["driver"]:
            values["override"] = values["driver"]
            values["group"] = device["group"] or 1
        on_host = values["driver"] == "e1000e"
        tree.add_device(
            place,
            **values,
            interfaces={f"eth{number}": "52:54:00:00:00:01"} if on_host and device["pci_class"] == 0x020000 else None,
            nvme=f"nvme{number}" if on_host and device["pci_class"] == 0x010802 else None,
        )
        if number == made["mounted"] and tree.path(f"/sys/class/block/nvme{number}n1").exists():
            tree.write("/proc/self/mountinfo", f"1 1 259:0 / / rw - ext4 /dev/nvme{number}n1 rw\n")
        if number in made["keyboards"]:
            tree.add_keyboard(number, f"{tree.device_path(place)}/usb1")
    if made["held"] is not None:
        tree.path("/proc/4711/fd").mkdir(parents=True)
        tree.path("/proc/4711/fd/30").symlink_to(f"/dev/vfio/{made['held']}")
    drivers: dict[str, list[str]] = {
        name: [] for name in ("e1000e", "vfio-pci", "mlx5_vfio_pci", "pci-stub", "pcieport")
    }
    address = {"ifname": f"eth{made['address']}", "addr_info": [{"local": "192.0.2.1", "scope": "global"}]}
    return FakeKernel(tree, drivers, addresses=[address])


@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
@given(HOST)
def test_assignable_is_what_binding_accepts(made: dict[str, Any]) -> None:
    """A device on its way from the host is accepted with its group exactly when nothing is known or feared to stand
    against it. One that VFIO has already is accepted anyway: there is nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        kernel = host_of(Path(folder), made)
        for device in devices_report(kernel, None)["devices"]:
            accepted = accepts(kernel, device["address"])
            errors = [found for found in device["obstacles"] if found["severity"] == "error"]
            event(f"assignable {device['assignable']}, accepted {accepted}")
            assert (device["assignable"] is False) == any(found["certain"] for found in errors)
            if device["assignable"] is True:
                assert accepted
            if device["driver"] != "vfio-pci":
                assert accepted == (not errors)
                shows_when_bound = any(not found["certain"] for found in device["obstacles"])
                assert not accepted or device["assignable"] is (None if shows_when_bound else True)


def accepts(kernel: FakeKernel, address: str) -> bool:
    """Whether vfio_devices would bind the device together with its group."""
    try:
        run(kernel, address, check=True, driver="vfio-pci", group="include", persistent=False)
    except PassthroughError:
        return False
    return True
