# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it; what it does is tested beside the code that does it (``_selinux``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core import module as glue
from ansible_collections.kvm.passthrough.plugins.module_utils._selinux import libsemanage
from ansible_collections.kvm.passthrough.plugins.modules import selinux_booleans
from ansible_collections.kvm.passthrough.tests.unit.support.arguments import called
from ansible_collections.kvm.passthrough.tests.unit.support.query import documented, undocumented, unreturned
from ansible_collections.kvm.passthrough.tests.unit.support.selinux import SelinuxHost
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

OF_EVERY_MODULE = ("changed", "diff", "invocation", "warnings")


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SelinuxHost:
    on = SelinuxHost(tmp_path / "host", bindings=False)
    monkeypatch.setattr(glue, "Host", lambda: on.host)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    # Neither the store of this machine, nor another Python that reaches it.
    monkeypatch.setattr(libsemanage, "semanage", None)
    monkeypatch.setattr(selinux_booleans, "prefer_python", lambda imports: [imports])
    return on


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    return called(selinux_booleans, capsys, arguments)


def test_check_run_check_run(on: SelinuxHost, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"booleans": {"virt_manage_sysfs": "yes", "virt_use_usb": False}}
    before = tree_hash(on.root)
    expected = call(capsys, **arguments, _ansible_check_mode=True)
    assert tree_hash(on.root) == before
    assert call(capsys, **arguments) == expected
    assert expected["changed"]
    after = tree_hash(on.root)
    for check in (True, False):
        assert not call(capsys, **arguments, _ansible_check_mode=check)["changed"]
    assert tree_hash(on.root) == after
    documentation = documented("selinux_booleans")
    own = {name: value for name, value in expected.items() if name not in OF_EVERY_MODULE}
    assert not undocumented(own, documentation)
    assert set(unreturned(documentation, [own])) == {"problems", "failed_action", "undone", "not_undone"}


def test_missing_booleans_are_warned_of(
    on: SelinuxHost, capsys: pytest.CaptureFixture[str], warnings: list[str]
) -> None:
    call(capsys, booleans={"virt_use_ubs": True}, missing="ignore")
    assert warnings == ["booleans: the SELinux policy 'targeted' has no boolean virt_use_ubs."]


def test_a_failure_has_fields(on: SelinuxHost, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, booleans={"virt_use_ubs": True})
    assert result["failed"]
    assert result["code"] == "boolean_unknown"
    assert result["problems"][0]["similar"][0] == "virt_use_usb"


@pytest.mark.parametrize("booleans", [["virt_use_usb"], None])
def test_options_of_the_wrong_type(on: SelinuxHost, capsys: pytest.CaptureFixture[str], booleans: Any) -> None:
    before = tree_hash(on.root)
    assert call(capsys, booleans=booleans)["failed"]
    assert tree_hash(on.root) == before
