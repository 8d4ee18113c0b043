# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import shutil

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.iommu import active_vtd, report
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SETUP_MODE = "SetupMode-8be4df61-93ca-11d2-aa0d-00e098032b8c"
SHIM_OFF = "MokSBStateRT-605dab50-e046-4300-abb6-3dd810dd8b23"
ON, OFF = b"\x06\0\0\0\x01", b"\x06\0\0\0\x00"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({SECURE_BOOT: ON, SETUP_MODE: OFF}, True),
        ({SECURE_BOOT: ON}, True),
        ({SECURE_BOOT: ON, SETUP_MODE: OFF, SHIM_OFF: ON}, False),
        ({SECURE_BOOT: ON, SETUP_MODE: ON}, False),
        ({SECURE_BOOT: OFF, SETUP_MODE: OFF}, False),
        ({"BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c": ON}, False),  # firmware that knows no Secure Boot
        ({SECURE_BOOT: b"\x06"}, None),
        ({}, None),  # the variables are not mounted
    ],
)
def test_secure_boot(tree: SysfsTree, variables: dict[str, bytes], expected: bool | None) -> None:
    tree.path("/sys/firmware/efi/efivars").mkdir(parents=True)
    for name, content in variables.items():
        tree.write(f"/sys/firmware/efi/efivars/{name}", content)
    result = report(active_vtd(tree))
    assert result["secure_boot"] is expected
    assert result["blockers"] == []


def test_a_variable_that_cannot_be_read(tree: SysfsTree) -> None:
    path = f"/sys/firmware/efi/efivars/{SECURE_BOOT}"
    tree.path(path).mkdir(parents=True)
    result = report(tree)
    assert result["secure_boot"] is None
    assert path in result["unreadable"]


def test_without_efi_there_is_none(tree: SysfsTree) -> None:
    assert report(tree)["secure_boot"] is False
    shutil.rmtree(tree.path("/sys/firmware"))
    assert report(tree)["secure_boot"] is None


@pytest.mark.parametrize(("secure", "expected"), [("1\n", True), ("0\n", False)])
def test_ibm_z(tree: SysfsTree, secure: str, expected: bool) -> None:
    tree.write("/sys/firmware/ipl/secure", secure)
    assert report(tree)["secure_boot"] is expected


def test_lockdown_is_no_blocker(tree: SysfsTree) -> None:
    active_vtd(tree).write("/sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    result = report(tree)
    assert result["lockdown"] == "integrity"
    assert result["blockers"] == []
