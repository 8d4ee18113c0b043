# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._selinux.policy import Policy
from ansible_collections.kvm.passthrough.tests.unit.support.selinux import POLICY_BOOLEANS, SelinuxHost


@pytest.mark.parametrize(
    ("enforce", "mode", "enabled"), [("1", "enforcing", True), ("0", "permissive", True), (None, "disabled", False)]
)
def test_mode_is_the_kernels(tmp_path: Path, enforce: str | None, mode: str, enabled: bool) -> None:
    policy = Policy.of(SelinuxHost(tmp_path, enforce).host)
    assert (policy.mode, policy.enabled, policy.name) == (mode, enabled, "targeted")
    assert policy.runtime == (POLICY_BOOLEANS if enabled else {})


def test_a_host_that_never_heard_of_selinux(tmp_path: Path) -> None:
    policy = Policy.of(Host(str(tmp_path)))
    assert (policy.mode, policy.name, policy.runtime) == ("disabled", "", {})


def test_a_pending_value_is_not_in_force(tmp_path: Path) -> None:
    on = SelinuxHost(tmp_path)
    on.write("/sys/fs/selinux/booleans/virt_use_nfs", "0 1")
    assert Policy.of(on.host).runtime["virt_use_nfs"] is False


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SELINUXTYPE=mls\n", "mls"),
        ("SELINUXTYPE = mls \n", "mls"),
        ("#SELINUXTYPE=mls\n", ""),
        ("SELINUXTYPE=targeted\nSELINUXTYPE=mls", "mls"),
        ("", ""),
    ],
)
def test_type_of_policy(tmp_path: Path, text: str, name: str) -> None:
    on = SelinuxHost(tmp_path)
    on.write("/etc/selinux/config", text)
    assert Policy.of(on.host).name == name


def test_former_names_are_ours_and_the_policys(tmp_path: Path) -> None:
    on = SelinuxHost(tmp_path)
    on.write(
        "/etc/selinux/targeted/booleans.subs_dist",
        "allow_execmem selinuxuser_execmod\n# allow_x y\n\nonly_one\nvirt_manage_sysfs virt_anything\n",
    )
    assert Policy.of(on.host).renamed == {
        "allow_execmem": "selinuxuser_execmod",
        "virt_manage_sysfs": "virt_anything",
    }
