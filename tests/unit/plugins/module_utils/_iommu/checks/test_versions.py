# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.iommu import (
    HANGS,
    active_vtd,
    answering,
    codes,
    report,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

LIBVIRTD = "libvirtd (libvirt) 9.0.0\n"
QEMU = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright (c) 2003-2022 Fabrice Bellard\n"


def install(tree: SysfsTree, *paths: str) -> SysfsTree:
    for path in paths:
        tree.write(path, "").path(path).chmod(0o755)
    return tree


def test_the_programs_say_their_versions(tree: SysfsTree) -> None:
    install(active_vtd(tree), "/usr/sbin/libvirtd", "/usr/bin/virsh", "/usr/bin/qemu-system-x86_64")
    runner = answering({"libvirtd": LIBVIRTD, "virsh": "1.2.3\n", "qemu-system-x86_64": QEMU})
    result = report(tree, tree.host(runner=runner))
    assert result["versions"] == {"kernel": "6.1.0", "libvirt": "9.0.0", "qemu": "7.2.22"}
    assert result["blockers"] == []


def test_red_hats_qemu_is_outside_of_the_path(tree: SysfsTree) -> None:
    install(tree, "/usr/libexec/qemu-kvm", "/usr/sbin/virtqemud", "/usr/sbin/libvirtd")
    runner = answering({"qemu-kvm": "QEMU emulator version 9.1.0\n", "virtqemud": "virtqemud (libvirt) 10.10.0\n"})
    assert report(tree, tree.host(runner=runner))["versions"] == {
        "kernel": "6.1.0",
        "libvirt": "10.10.0",
        "qemu": "9.1.0",
    }


@pytest.mark.parametrize(
    "answer", ["no number\n", "9" * 5000 + ".1\n", 1, HANGS, PermissionError(13, "Permission denied")]
)
def test_what_does_not_say_its_version(tree: SysfsTree, answer: str | int | Exception) -> None:
    install(active_vtd(tree), "/usr/bin/virsh", "/usr/bin/qemu-system-x86_64")
    result = report(tree, tree.host(runner=answering({"virsh": answer, "qemu-system-x86_64": answer})))
    assert result["versions"] == {"kernel": "6.1.0", "libvirt": None, "qemu": None}


def test_what_is_not_installed_is_no_blocker(tree: SysfsTree) -> None:
    result = report(active_vtd(tree), tree.host(runner=answering({})))
    assert result["versions"] == {"kernel": "6.1.0", "libvirt": None, "qemu": None}
    assert result["blockers"] == []


def on_z(tree: SysfsTree, kernel: str, libvirt: str, qemu: str) -> list[dict[str, Any]]:
    tree.write("/proc/sys/kernel/arch", "s390x\n").write("/proc/sys/kernel/osrelease", f"{kernel}\n")
    install(tree, "/usr/bin/virsh", "/usr/bin/qemu-system-s390x")
    runner = answering({"virsh": f"{libvirt}\n", "qemu-system-s390x": f"QEMU emulator version {qemu}\n"})
    result = report(tree, tree.host(runner=runner))
    versions = ("version_too_old", "zpci_addresses_unreliable")
    return [each for each in result["blockers"] if each["code"] in versions]


@pytest.mark.parametrize(
    ("kernel", "libvirt", "qemu", "expected"),
    [
        ("4.14.0", "6.5.0", "2.11.0", []),
        ("4.13.16-200", "6.5.0", "2.11.0", ["the running kernel to be at least 4.14; it is 4.13.16"]),
        ("6.1.0", "4.9.0", "2.11.0", ["libvirt to be at least 4.10; it is 4.9.0"]),
        ("6.1.0", "12.0.0", "2.10.1", ["QEMU to be at least 2.11; it is 2.10.1"]),
        ("3.10.0", "4.5.0", "1.5.3", ["the running kernel", "libvirt", "QEMU"]),
        ("6.1.0", "4.10.0", "2.11.0", ["libvirt 4.10.0 makes up wrong uid and fid"]),
        ("6.1.0", "6.4.0", "5.0.0", ["libvirt 6.4.0 makes up wrong uid and fid"]),
    ],
)
def test_the_minimum_of_ibm_z(tree: SysfsTree, kernel: str, libvirt: str, qemu: str, expected: list[str]) -> None:
    found = on_z(tree, kernel, libvirt, qemu)
    assert len(found) == len(expected)
    for each, text in zip(found, expected):
        assert text in each["message"]
        assert each["severity"] == ("warning" if "uid" in text else "error")


def test_old_versions_matter_on_ibm_z_only(tree: SysfsTree) -> None:
    install(active_vtd(tree), "/usr/bin/virsh")
    result = report(tree, tree.host(runner=answering({"virsh": "4.5.0\n"})))
    assert result["versions"]["libvirt"] == "4.5.0"
    assert codes(result) == []
