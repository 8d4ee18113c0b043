# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever one file of a host has in it, or without it, there is a report."""

from __future__ import annotations

from typing import Callable

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.report import iommu_report
from ansible_collections.kvm.passthrough.tests.unit.support.iommu import active_vtd, answering
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tables import Q35_DMAR, Q35_IVRS, VIRT_IORT, VIRT_MADT

ANSWERS = {
    "systemctl": "Id=libvirtd.service\nLoadState=loaded\nCapabilityBoundingSet=\nLimitMEMLOCK=67108864\n",
    "virsh": "10.0.0\n",
}
GARBAGE = (
    b"",
    b"\xff\xfe \xe2\x80\xa8\n\n=\n:",
    "²٣ = ²\n".encode(),
    b"x = " + b"9" * 5000,
    b"x = " + b"[" * 5000,
    b"-1\n",
)


def intel(tree: SysfsTree) -> None:
    active_vtd(tree).write("/sys/firmware/acpi/tables/DMAR", Q35_DMAR).write("/proc/config.gz", b"\x1f\x8b")


def intel_off(tree: SysfsTree) -> None:
    tree.add_vtd(active=False).set_cmdline("intel_iommu=sm_on")


def amd(tree: SysfsTree) -> None:
    tree.add_amdvi(blocks=Q35_IVRS[48:]).add_device("01:00.0", group=1)


def arm(tree: SysfsTree) -> None:
    tree.write("/proc/sys/kernel/arch", "aarch64\n").add_smmu().add_device("01:00.0", group=1)
    tree.write("/sys/firmware/acpi/tables/IORT", VIRT_IORT).write("/sys/firmware/acpi/tables/APIC", VIRT_MADT)


def ibm_z(tree: SysfsTree) -> None:
    tree.write("/proc/sys/kernel/arch", "s390x\n").add_zpci("0001:00:00.0", 1, group=0)
    tree.write("/proc/sysinfo", "VM00 Control Program: z/VM\n").write("/sys/firmware/ipl/secure", "1\n")


@pytest.mark.parametrize("make", [intel, intel_off, amd, arm, ibm_z])
def test_any_content_of_any_file(tree: SysfsTree, make: Callable[[SysfsTree], None]) -> None:
    make(tree)
    tree.write("/etc/libvirt/qemu.conf", 'user = "qemu"\ncgroup_device_acl = ["/dev/null"]\n')
    tree.write("/etc/modprobe.d/a.conf", "options vfio-pci ids=1\ninstall vfio /bin/false\n")
    tree.write("/usr/bin/virsh", "").path("/usr/bin/virsh").chmod(0o755)
    tree.path("/run/systemd/system").mkdir(parents=True)
    # The name of the release is part of paths; the kernel keeps it short and without zero bytes.
    files = [path for path in tree.root.rglob("*") if path.is_file() and path.name != "osrelease"]
    assert len(files) > 12
    for file in files:
        content = file.read_bytes()
        for garbage in (*GARBAGE, content[: len(content) // 2]):
            file.write_bytes(garbage)
            result = iommu_report(tree.host(runner=answering(ANSWERS)), with_groups=True)
            assert result["msg"], (file, garbage[:20])
        file.write_bytes(content)
