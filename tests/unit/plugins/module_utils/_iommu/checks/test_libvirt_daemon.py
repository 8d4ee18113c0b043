# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.iommu import (
    HANGS,
    active_vtd,
    answering,
    blocker,
    codes,
    report,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

# systemctl show -p Id -p LoadState … libvirtd.service, systemd 252 on Debian 12
SHOWN = {
    "Id": "libvirtd.service",
    "LoadState": "loaded",
    "LimitMEMLOCK": "67108864",
    "CapabilityBoundingSet": "cap_chown cap_dac_override cap_sys_admin cap_sys_resource",
    "PrivateDevices": "no",
    "ProtectKernelModules": "no",
    "ProtectKernelTunables": "no",
}
NOT_FOUND = "Id=virtqemud.service\nLoadState=not-found\n"


def shown(**properties: str) -> str:
    return "".join(f"{name}={value}\n" for name, value in {**SHOWN, **properties}.items())


def answer(tree: SysfsTree, systemctl: str | int | Exception, libvirt: str = "10.0.0") -> dict[str, Any]:
    """The report of a host that systemd runs, and on which systemctl prints this."""
    active_vtd(tree).path("/run/systemd/system").mkdir(parents=True)
    tree.write("/usr/bin/virsh", "").path("/usr/bin/virsh").chmod(0o755)
    return report(tree, tree.host(runner=answering({"systemctl": systemctl, "virsh": f"{libvirt}\n"})))


def test_a_daemon_as_distributions_ship_it(tree: SysfsTree) -> None:
    result = answer(tree, f"{NOT_FOUND}\n{shown()}")
    assert result["libvirt"]["daemons"] == [
        {
            "unit": "libvirtd.service",
            "hides_modules": False,
            "hides_devices": False,
            "sysfs_is_read_only": False,
            "may_raise_limits": True,
            "memlock_limit": 67108864,
        }
    ]
    assert result["blockers"] == []


@pytest.mark.parametrize(
    ("properties", "code", "severity"),
    [
        ({"PrivateDevices": "yes"}, "daemon_hides_devices", "error"),
        ({"ProtectKernelModules": "yes"}, "daemon_hides_modules", "warning"),
        ({"ProtectKernelTunables": "yes"}, "daemon_cannot_bind", "warning"),
        ({"CapabilityBoundingSet": "cap_chown cap_sys_admin"}, "daemon_cannot_raise_memlock", "error"),
        ({"CapabilityBoundingSet": ""}, "daemon_cannot_raise_memlock", "error"),
        ({"CapabilityBoundingSet": "cap_chown", "LimitMEMLOCK": "1073741824"}, "daemon_cannot_raise_memlock", "error"),
        ({"CapabilityBoundingSet": "cap_chown", "LimitMEMLOCK": "1073741825"}, None, ""),
        ({"CapabilityBoundingSet": "cap_chown", "LimitMEMLOCK": "infinity"}, None, ""),
        ({"CapabilityBoundingSet": "cap_chown", "LimitMEMLOCK": str(2**64 - 1)}, None, ""),
        ({"CapabilityBoundingSet": "cap_chown", "LimitMEMLOCK": "\u00b2"}, None, ""),
        ({"LoadState": "masked", "PrivateDevices": "yes"}, None, ""),
        ({"Id": "something.service", "PrivateDevices": "yes"}, None, ""),
    ],
)
def test_hardening(tree: SysfsTree, properties: dict[str, str], code: str | None, severity: str) -> None:
    result = answer(tree, f"{NOT_FOUND}\n{shown(**properties)}")
    assert codes(result) == ([] if code is None else [code])
    if code is not None:
        found = blocker(result, code)
        assert found["severity"] == severity
        assert "systemctl edit libvirtd.service" in found["remedy"]


@pytest.mark.parametrize(
    ("first", "second", "severities"),
    [
        ({}, {"PrivateDevices": "yes"}, ["warning"]),
        ({"CapabilityBoundingSet": "cap_chown"}, {"ProtectKernelModules": "yes"}, ["warning", "warning"]),
        ({"CapabilityBoundingSet": "cap_chown"}, {"PrivateDevices": "yes"}, ["error", "error"]),
    ],
)
def test_one_daemon_that_can_start_guests_is_enough(
    tree: SysfsTree, first: dict[str, str], second: dict[str, str], severities: list[str]
) -> None:
    result = answer(tree, f"{shown(Id='virtqemud.service', **first)}\n{shown(**second)}")
    assert [found["severity"] for found in result["blockers"]] == severities


def test_every_unit_is_looked_at(tree: SysfsTree) -> None:
    result = answer(tree, f"{shown(Id='virtqemud.service', PrivateDevices='yes')}\n{shown()}")
    assert [daemon["unit"] for daemon in result["libvirt"]["daemons"]] == ["virtqemud.service", "libvirtd.service"]
    assert "virtqemud.service" in blocker(result, "daemon_hides_devices")["message"]


@pytest.mark.parametrize(("libvirt", "stands"), [("9.10.0", False), ("10.0.0", True), ("", True)])
def test_hidden_modules_matter_since_libvirt_looks_for_variants(tree: SysfsTree, libvirt: str, stands: bool) -> None:
    result = answer(tree, shown(ProtectKernelModules="yes"), libvirt)
    assert codes(result) == (["daemon_hides_modules"] if stands else [])


@pytest.mark.parametrize("systemctl", ["", 1, HANGS, FileNotFoundError("systemctl")])
def test_a_systemd_that_does_not_answer(tree: SysfsTree, systemctl: str | int | Exception) -> None:
    result = answer(tree, systemctl)
    assert not result["libvirt"]["daemons"]
    assert result["blockers"] == []


def test_an_older_systemd_that_knows_fewer_properties(tree: SysfsTree) -> None:
    result = answer(tree, "Id=libvirtd.service\nLoadState=loaded\n")
    assert result["libvirt"]["daemons"][0]["may_raise_limits"] is True
    assert result["blockers"] == []


def test_without_systemd_nobody_is_asked(tree: SysfsTree) -> None:
    result = report(active_vtd(tree), tree.host(runner=answering({"systemctl": AssertionError("asked")})))
    assert result["libvirt"] == {"daemons": None, "qemu_conf": None}


def conf(tree: SysfsTree, text: str) -> dict[str, Any]:
    return report(active_vtd(tree).write("/etc/libvirt/qemu.conf", text), tree.host(runner=answering({})))


def test_a_file_that_sets_nothing(tree: SysfsTree) -> None:
    result = conf(tree, '# cgroup_device_acl = [ "/dev/null" ]\n#dynamic_ownership = 0\n')
    assert set(result["libvirt"]["qemu_conf"].values()) == {None}
    assert result["blockers"] == []


COMPLETE = '"/dev/null", "/dev/full", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/ptmx"'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'cgroup_device_acl = [ {COMPLETE},\n "/dev/kvm" ]\n', None),
        (f'cgroup_device_acl = [ {COMPLETE}, "/dev/kvm", "/dev/vfio/vfio" ]', None),
        (f"cgroup_device_acl = [ {COMPLETE} ]", "lacks /dev/kvm. The list replaces libvirt's own, so no guest"),
        ('cgroup_device_acl = [ "/dev/kvm", "/dev/vfio/vfio" ]', "lacks /dev/null, /dev/full, /dev/zero, /dev/random"),
        ("cgroup_device_acl = [ ]", "lacks /dev/null"),
        ('cgroup_device_acl = [ ]\ncgroup_controllers = [ "cpu" ]\nnamespaces = [ ]', None),
        ('cgroup_device_acl = [ ]\ncgroup_controllers = [ "cpu" ]\nnamespaces = [ "mount" ]', "lacks /dev/null"),
        ('cgroup_device_acl = [ ]\ncgroup_controllers = [ "cpu", "devices" ]\nnamespaces = [ ]', "lacks /dev/null"),
    ],
)
def test_the_list_of_devices_has_to_be_whole(tree: SysfsTree, text: str, told: str | None) -> None:
    result = conf(tree, text)
    assert codes(result) == ([] if told is None else ["device_acl_incomplete"])
    if told is not None:
        assert told in result["blockers"][0]["message"]


@pytest.mark.parametrize(
    ("text", "stands"),
    [
        ("dynamic_ownership = 0", True),
        ('dynamic_ownership = 0\nuser = "qemu"', True),
        ('dynamic_ownership = 0\nuser = "root"', False),
        ('dynamic_ownership = 0\nuser = "+0"', False),
        ("dynamic_ownership = 1", False),
    ],
)
def test_files_that_stay_with_root(tree: SysfsTree, text: str, stands: bool) -> None:
    assert codes(conf(tree, text)) == (["dynamic_ownership_off"] if stands else [])


@pytest.mark.parametrize("text", ['user = "qemu', "cgroup_device_acl = [", "\x00"])
def test_a_file_that_libvirt_refuses_is_not_guessed_at(tree: SysfsTree, text: str) -> None:
    result = conf(tree, text)
    assert result["libvirt"]["qemu_conf"] is None
    assert result["unreadable"] == ["/etc/libvirt/qemu.conf"]
