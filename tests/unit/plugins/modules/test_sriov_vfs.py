# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it; what it does is tested beside the code that does it (``_sriov``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.kvm.passthrough.plugins.module_utils._core import module as glue
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.settings import VfSettings
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.virtual_functions import FORCIBLE_CODES
from ansible_collections.kvm.passthrough.plugins.modules import sriov_vfs
from ansible_collections.kvm.passthrough.tests.unit.support.arguments import called
from ansible_collections.kvm.passthrough.tests.unit.support.machine import PF
from ansible_collections.kvm.passthrough.tests.unit.support.sriov import SECOND_PF, SriovKernel, sriov_host
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

OPTIONS = yaml.safe_load(sriov_vfs.DOCUMENTATION)["options"]


@pytest.fixture(name="kernel")
def kernel_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SriovKernel:
    kernel = sriov_host(tmp_path)
    monkeypatch.setattr(glue, "Host", lambda: kernel)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return kernel


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    return called(sriov_vfs, capsys, arguments)


def test_check_run_check_run(kernel: SriovKernel, capsys: pytest.CaptureFixture[str]) -> None:
    vfs = [{"vf": "all", "trust": True}, {"vf": 0, "mac": "52:54:00:00:00:01", "vlan": 7}]
    arguments = {"pfs": [{"pf": {"address": PF}, "count": 4, "vfs": vfs}, {"pf": SECOND_PF, "count": 2}]}
    before = tree_hash(kernel.root)
    expected = call(capsys, **arguments, _ansible_check_mode=True)
    assert tree_hash(kernel.root) == before
    assert call(capsys, **arguments) == expected
    assert expected["changed"]
    after = tree_hash(kernel.root)
    for check in (True, False):
        assert not call(capsys, **arguments, _ansible_check_mode=check)["changed"]
    assert tree_hash(kernel.root) == after


def test_what_is_returned_is_documented(kernel: SriovKernel, capsys: pytest.CaptureFixture[str]) -> None:
    documented = yaml.safe_load(sriov_vfs.RETURN)
    result = call(capsys, pfs=[{"pf": PF, "count": 1}])
    assert set(result) - {"changed", "diff"} <= set(documented)
    contained = documented["pfs"]["contains"]
    assert set(result["pfs"][0]) == set(contained)
    assert set(result["pfs"][0]["after"]) == set(contained["after"]["contains"])
    assert set(result["pfs"][0]["vfs"][0]) == set(contained["vfs"]["contains"])


def test_the_codes_that_can_be_forced_are_documented() -> None:
    assert tuple(OPTIONS["force"]["choices"]) == FORCIBLE_CODES


def test_every_setting_is_an_option() -> None:
    documented = OPTIONS["pfs"]["suboptions"]["vfs"]["suboptions"]
    assert set(documented) == {"vf", *VfSettings.__dataclass_fields__}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"pfs": [{"pf": "01:20.0", "count": 1}]}, "01:20.0"),
        ({"pfs": [{"pf": PF}]}, "count"),
        ({"pfs": [{"pf": PF, "count": 1, "vfs": [{"vf": 0, "mac": "ff:ff:ff:ff:ff:ff"}]}]}, "ff:ff:ff:ff:ff:ff"),
        ({"pfs": [{"pf": PF, "count": 1, "vfs": [{"trust": True}]}]}, "vf"),
        ({"pfs": [{"pf": PF, "count": 1}], "force": ["everything"]}, "everything"),
        ({}, "pfs"),
    ],
)
def test_bad_input(
    kernel: SriovKernel, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], text: str
) -> None:
    result = call(capsys, **arguments)
    assert result["failed"]
    assert text in result["msg"]
    assert "exception" not in result
    assert kernel.writes == []


def test_only_for_root(
    kernel: SriovKernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert call(capsys, pfs=[])["code"] == "not_root"
