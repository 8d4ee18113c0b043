# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What only VT-d has: reserved memory behind bridges, integrated GPUs that are left out, a firmware that opts in."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.intel import IntelVtd
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.machine import Machine
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.platform import Assessment
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

INTGPU_OFF = "CONFIG_INTEL_IOMMU=y\nCONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF=y\n"
DEFAULT_OFF = "CONFIG_INTEL_IOMMU=y\n# CONFIG_INTEL_IOMMU_DEFAULT_ON is not set\n"


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    return SysfsTree(tmp_path).write("/proc/sys/kernel/arch", "x86_64\n").set_cpu()


def assess(tree: SysfsTree) -> Assessment:
    return IntelVtd().assess(Machine(tree.host()))


def test_reserved_memory_of_a_device_behind_a_bridge(tree: SysfsTree) -> None:
    scope = bytes((1, 10, 0, 0, 0, 0, 0x1C, 0, 0, 1))
    rmrr = bytes((1, 0, 34, 0)) + bytes(4) + (0x1000).to_bytes(8, "little") + (0x1FFF).to_bytes(8, "little") + scope
    tree.add_vtd(structures=rmrr).add_device("00:1c.0", bridge=True)
    assert assess(tree).firmware["reserved_memory"][0]["devices"] == ["0000:00:1c.0/00.1"]
    tree.set_attribute("00:1c.0", "secondary_bus_number", "5")
    assert assess(tree).firmware["reserved_memory"] == [
        {"start": "0x1000", "end": "0x1fff", "devices": ["0000:05:00.1"]}
    ]


@pytest.mark.parametrize(
    ("cmdline", "config", "why", "remedy"),
    [
        ("quiet", INTGPU_OFF, "CONFIG_INTEL_IOMMU_DEFAULT_ON_INTGPU_OFF", "set intel_iommu=on with"),
        ("intel_iommu=on,igfx_off,sm_on", INTGPU_OFF, "intel_iommu=on,igfx_off,sm_on", "set intel_iommu=on,sm_on with"),
        ("intel_iommu=intgpu_off", DEFAULT_OFF, "started with intel_iommu=intgpu_off", "set intel_iommu=on with"),
        ("intel_iommu=on", DEFAULT_OFF, "dmesg says why", "set intel_iommu=on with"),
    ],
)
def test_an_integrated_gpu_that_is_left_out(tree: SysfsTree, cmdline: str, config: str, why: str, remedy: str) -> None:
    tree.add_vtd().set_cmdline(cmdline).write(f"/boot/config-{tree.kernel}", config)
    tree.add_device("00:02.0", ids="8086:3e98", pci_class=0x030000, driver="i915")
    (blocker,) = assess(tree).blockers
    assert (blocker.code, blocker.severity, blocker.devices) == (
        "integrated_gpu_excluded",
        "warning",
        ("0000:00:02.0",),
    )
    assert why in blocker.message
    assert remedy in blocker.remedy


@pytest.mark.parametrize(
    ("address", "ids", "pci_class", "group"),
    [
        ("00:02.0", "8086:3e98", 0x030000, 1),
        ("03:00.0", "8086:56a0", 0x030000, None),
        ("00:02.0", "1234:1111", 0x030000, None),
        ("00:1f.3", "8086:a348", 0x040300, None),
    ],
)
def test_other_devices_and_a_gpu_with_a_group(
    tree: SysfsTree, address: str, ids: str, pci_class: int, group: int | None
) -> None:
    tree.add_vtd().add_device(address, ids=ids, pci_class=pci_class, group=group)
    assert assess(tree).blockers == ()


@pytest.mark.parametrize(
    ("flags", "cmdline", "config", "told"),
    [
        (0x05, "quiet", DEFAULT_OFF, True),
        (0x01, "quiet", DEFAULT_OFF, False),
        (0x05, "intel_iommu=on", DEFAULT_OFF, False),
        (0x05, "quiet", INTGPU_OFF, False),
    ],
)
def test_an_iommu_that_nobody_switched_on(tree: SysfsTree, flags: int, cmdline: str, config: str, told: bool) -> None:
    tree.add_vtd(flags=flags).set_cmdline(cmdline).write(f"/boot/config-{tree.kernel}", config)
    assessment = assess(tree)
    assert any("nobody switched it on" in text for text in assessment.evidence) is told
    assert assessment.firmware["dma_protection"] is (flags == 0x05)
