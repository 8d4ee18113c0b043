# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts for the tests of the report on the IOMMU, and the report, which must not change them."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host, Runner
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.report import iommu_report

from .sysfs import SysfsTree
from .tree import tree_hash

VFIO_KO = "kernel/drivers/vfio/pci/vfio-pci.ko.xz"
TYPE1_KO = "kernel/drivers/vfio/vfio_iommu_type1.ko.xz"
REMAPPED = "  0:  9  IR-IO-APIC    2-edge  timer\n 24:  1  IR-PCI-MSIX-0000:01:00.0  0-edge  enp1s0\n"
NOT_REMAPPED = "  0:  9  IO-APIC    2-edge  timer\n 24:  1  PCI-MSIX-0000:01:00.0  0-edge  IR-receiver\n"


def ready_host(root: Path) -> SysfsTree:
    """A host on which nothing stands against passthrough, but for the IOMMU, which each test adds."""
    tree = SysfsTree(root)
    tree.write("/proc/sys/kernel/arch", "x86_64\n").write("/dev/kvm", "").set_cpu()
    tree.write("/sys/firmware/acpi/tables/FACP", b"FACP").write("/sys/firmware/acpi/tables/APIC", b"APIC")
    tree.write("/proc/interrupts", NOT_REMAPPED)
    return tree.add_modules(available=["kernel/fs/ext4/ext4.ko", VFIO_KO, TYPE1_KO])


def active_vtd(tree: SysfsTree) -> SysfsTree:
    """VT-d at work: a unit, a group, remapped interrupts."""
    tree.add_vtd().write("/proc/interrupts", REMAPPED)
    return tree.add_device("01:00.0", ids="8086:10c9", pci_class=0x020000, driver="igb", group=1)


def report(tree: SysfsTree, host: Host | None = None, **arguments: Any) -> dict[str, Any]:
    """The report, which has to leave the tree as it was."""
    before = tree_hash(tree.root)
    result = iommu_report(tree.host() if host is None else host, **arguments)
    assert tree_hash(tree.root) == before
    return result


def codes(result: dict[str, Any]) -> list[str]:
    """The codes of the blockers, in their order."""
    return [blocker["code"] for blocker in result["blockers"]]


def blocker(result: dict[str, Any], code: str) -> dict[str, Any]:
    """The one blocker of this code."""
    (found,) = [each for each in result["blockers"] if each["code"] == code]
    return dict(found)


def answering(answers: Mapping[str, str | int | Exception]) -> Runner:
    """A runner of a host that has these programs, by name: what each prints, its exit status, or what happens."""

    def run(argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        name = argv[0].rpartition("/")[2]
        answer = answers.get(name, FileNotFoundError(name))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return Completed(tuple(argv), answer, "", "it failed")
        return Completed(tuple(argv), 0, answer, "")

    return run


HANGS = subprocess.TimeoutExpired(["any"], 1.0)
