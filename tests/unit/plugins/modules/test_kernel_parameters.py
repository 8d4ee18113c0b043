# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it; what it does is tested beside the code that does it (``_boot``)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils import basic

from ansible_collections.kvm.passthrough.plugins.module_utils._core import module as glue
from ansible_collections.kvm.passthrough.plugins.modules import kernel_parameters
from ansible_collections.kvm.passthrough.tests.unit.support.arguments import called
from ansible_collections.kvm.passthrough.tests.unit.support.boot import DEBIAN_13, GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash


@pytest.fixture(name="on")
def host_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GrubHost:
    on = GrubHost(tmp_path / "host", DEBIAN_13)
    monkeypatch.setattr(glue, "Host", lambda: on.host)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return on


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    return called(kernel_parameters, capsys, arguments)


def test_check_run_check_run(on: GrubHost, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"present": ["intel_iommu=on", "iommu=pt"], "absent": ["quiet"]}
    before = tree_hash(on.root)
    expected = call(capsys, **arguments, _ansible_check_mode=True)
    assert tree_hash(on.root) == before
    assert call(capsys, **arguments) == expected
    assert (expected["changed"], expected["reboot_required"]) == (True, True)
    assert expected["configured"] == {
        "before": {
            "normal": "console=tty0 console=ttyS0,115200 quiet intel_iommu=off",
            "recovery": "console=tty0 console=ttyS0,115200",
        },
        "after": {
            "normal": "console=tty0 console=ttyS0,115200 intel_iommu=on iommu=pt",
            "recovery": "console=tty0 console=ttyS0,115200",
        },
    }
    after = tree_hash(on.root)
    for check in (True, False):
        again = call(capsys, **arguments, _ansible_check_mode=check)
        assert (again["changed"], again["reboot_required"]) == (False, True)
    assert tree_hash(on.root) == after
    on.reboot()
    assert call(capsys, **arguments)["reboot_required"] is False


@pytest.mark.parametrize(
    "arguments",
    [
        {"present": ["intel_iommu=on; reboot"]},
        {"present": ["intel_iommu=on\nquiet"]},
        {"absent": [""]},
        {"present": ["iommu=pt"], "absent": ["iommu"]},
        {"bootloader": "lilo"},
        {"present": ["iommu=pt"], "unknown": 1},
    ],
)
def test_bad_input_gets_one_clear_error(
    on: GrubHost, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any]
) -> None:
    before = tree_hash(on.root)
    result = call(capsys, **arguments)
    assert result["failed"]
    assert result["msg"]
    assert "Traceback" not in json.dumps(result)
    assert tree_hash(on.root) == before
    assert not on.commands


def test_an_entry_by_hand_that_contradicts_is_a_warning(
    on: GrubHost, capsys: pytest.CaptureFixture[str], warnings: list[str]
) -> None:
    """Through ``warn``: ansible-core calls it deprecated to hand warnings to ``exit_json``."""
    result = call(capsys, present=["intel_iommu=on"])
    assert "deprecations" not in result
    (text,) = warnings
    assert "'Rescue system' still has intel_iommu=off" in text
    assert "/etc/grub.d/40_custom" in text


def test_nothing_asked_for_only_reports(on: GrubHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree_hash(on.root)
    result = call(capsys)
    assert (result["changed"], result["reboot_required"], result["actions"]) == (False, False, [])
    assert tree_hash(on.root) == before


def test_revert_takes_back_all_runs(on: GrubHost, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree_hash(on.root, ("run", "var/lib/kvm-passthrough"))
    call(capsys, present=["intel_iommu=on"])
    call(capsys, present=["iommu=pt", "intel_iommu=on,sm_on"])
    expected = call(capsys, revert=True, _ansible_check_mode=True)
    result = call(capsys, revert=True)
    assert result == expected
    assert (result["changed"], result["kept"], result["diverged"]) == (True, [], [])
    assert tree_hash(on.root, ("run", "var/lib/kvm-passthrough")) == before
    for check in (True, False):
        again = call(capsys, revert=True, _ansible_check_mode=check)
        assert (again["changed"], again["kept"]) == (False, [])


@pytest.mark.parametrize(
    "more",
    [{"present": ["iommu=pt"]}, {"absent": ["quiet"]}, {"kernels": "default"}],
    ids=lambda more: next(iter(more)),
)
def test_revert_with_something_else(on: GrubHost, capsys: pytest.CaptureFixture[str], more: dict[str, Any]) -> None:
    result = call(capsys, revert=True, **more)
    assert result["failed"]
    assert result["code"] == "revert_excludes_options"


def test_documentation_and_argument_spec_and_result_agree(on: GrubHost, capsys: pytest.CaptureFixture[str]) -> None:
    options = yaml.safe_load(kernel_parameters.DOCUMENTATION)["options"]
    specs: list[dict[str, Any]] = []
    original = basic.AnsibleModule.__init__

    def remember(self: Any, argument_spec: dict[str, Any], **rest: Any) -> None:
        specs.append(argument_spec)
        original(self, argument_spec, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(basic.AnsibleModule, "__init__", remember)
        result = call(capsys, present=["iommu=pt"])
    described = {
        name: {key: value for key, value in option.items() if key != "description"} for name, option in options.items()
    }
    assert described == specs[0]
    documented = yaml.safe_load(kernel_parameters.RETURN)
    returned = {name: documented[name]["returned"] for name in documented}
    assert set(result) - {"changed", "diff"} == {name for name in returned if returned[name] == "success"}
    reverted = call(capsys, revert=True)
    assert set(reverted) - {"changed", "diff"} == {
        name for name in returned if not returned[name].startswith("failure")
    }
