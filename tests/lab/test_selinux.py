# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``selinux_booleans`` on a host that enforces Debian's policy, and on the same host before that."""

from __future__ import annotations

import pytest

from tests import lab

from .controller import Controller, quadruple

BOOLEANS = {"virt_manage_sysfs": True, "virt_use_nfs": True, "virt_use_fusefs": True, "virt_use_usb": False}
# A file made while SELinux was off has no label, and nobody may read it once it is on. EXTLINUX's own is immutable.
LABEL = "sudo setfiles -F -e /boot/extlinux /etc/selinux/default/contexts/files/file_contexts / && sync"
# Every commit builds the policy anew, and the one that the package built when it was installed has other bytes.
SETTINGS = "sudo find /etc/selinux -type f ! -name 'policy.*' -exec sha256sum {} + | sort -k2; sudo ls -Z /etc/selinux"


@pytest.mark.full
@pytest.mark.lab("extlinux")
def test_booleans_now_and_at_every_boot(large_machine: lab.Machine) -> None:
    machine, ansible = large_machine, Controller(large_machine)

    # Off: there is nothing to set now, and a store for later.
    off = ansible.module("selinux_booleans", {"booleans": BOOLEANS}, check=True)
    assert off.result["selinux"] == {"mode": "disabled", "policy": "default", "through": "libsemanage"}
    assert [action["target"] for action in off.result["actions"]] == ["SELinux policy store"]

    switched_on = ansible.module("kernel_parameters", {"present": ["security=selinux", "enforcing=1"]})
    assert switched_on.result["reboot_required"], switched_on.result
    machine.ssh(LABEL, timeout=300)
    machine.reboot()
    assert machine.ssh("sudo getenforce").stdout == "Enforcing\n"
    before = booleans(machine)
    settings = machine.ssh(SETTINGS).stdout
    assert not {name for name in ("virt_use_sysfs", "virt_use_nfs", "virt_use_fusefs") if before[name]}

    unknown = ansible.module("selinux_booleans", {"booleans": {**BOOLEANS, "virt_use_sysf": True}})
    assert unknown.status == "failed"
    assert unknown.result["problems"][0]["similar"][0] == "virt_use_sysfs"
    assert booleans(machine) == before

    # Now and later; only later; only now.
    result = quadruple(ansible, "selinux_booleans", {"booleans": BOOLEANS})
    assert result["selinux"] == {"mode": "enforcing", "policy": "default", "through": "libsemanage"}
    assert result["booleans"][0]["boolean"] == "virt_use_sysfs"
    now = {**before, "virt_use_sysfs": True, "virt_use_nfs": True, "virt_use_fusefs": True, "virt_use_usb": False}
    assert booleans(machine) == now
    quadruple(ansible, "selinux_booleans", {"booleans": {"virt_use_comm": True}, "runtime": False})
    assert booleans(machine) == now
    quadruple(ansible, "selinux_booleans", {"booleans": {"virt_use_samba": True}, "persistent": False})
    assert booleans(machine) == {**now, "virt_use_samba": True}

    machine.reboot()
    assert machine.ssh("sudo getenforce").stdout == "Enforcing\n"
    assert booleans(machine) == {**now, "virt_use_comm": True}
    assert not ansible.module("selinux_booleans", {"booleans": {**BOOLEANS, "virt_use_comm": True}}).changed

    # Back: what was set here is taken out of the store, now and for every boot.
    quadruple(ansible, "selinux_booleans", {"booleans": {}, "exclusive": True})
    assert machine.ssh(SETTINGS).stdout == settings
    assert '"selinux_boolean' not in machine.ssh("sudo cat /var/lib/kvm-passthrough/state.json").stdout
    values = ansible.module("selinux_booleans", {"booleans": dict.fromkeys(before, False)}, check=True).result
    assert {entry["boolean"]: entry["persistent"]["before"] for entry in values["booleans"]} == before
    assert "=" not in machine.ssh("sudo cat /var/lib/selinux/default/active/booleans.local || true").stdout
    assert "avc:" not in machine.ssh("sudo dmesg | grep -E 'avc: *denied.*(setsebool|python3|semodule)' || true").stdout


def booleans(machine: lab.Machine) -> dict[str, bool]:
    """Every boolean of the loaded policy."""
    pairs = [line.split(" --> ") for line in machine.ssh("sudo getsebool -a").stdout.splitlines()]
    return {name: value == "on" for name, value in pairs}
