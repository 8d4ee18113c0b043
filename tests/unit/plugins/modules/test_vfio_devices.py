# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it; what it does is tested beside the code that does it (``_vfio``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.kvm.passthrough.plugins.module_utils._core import module as glue
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.registry import FORCIBLE_CODES
from ansible_collections.kvm.passthrough.plugins.modules import vfio_devices
from ansible_collections.kvm.passthrough.tests.unit.support.arguments import called
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel, Fault
from ansible_collections.kvm.passthrough.tests.unit.support.machine import MANAGEMENT, NVME, TWINS, VF0, VF1, hypervisor
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash


@pytest.fixture(name="kernel")
def kernel_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    kernel = hypervisor(tmp_path)
    monkeypatch.setattr(glue, "Host", lambda: kernel)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return kernel


def call(capsys: pytest.CaptureFixture[str], **arguments: Any) -> dict[str, Any]:
    return called(vfio_devices, capsys, arguments)


def test_check_run_check_run(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = {"devices": [VF0, {"address": VF1, "expect": {"vendor_id": "8086"}}]}
    before = tree_hash(kernel.root)
    expected = call(capsys, **arguments, _ansible_check_mode=True)
    assert tree_hash(kernel.root) == before
    assert call(capsys, **arguments) == expected
    assert expected["changed"]
    assert [device["after"]["driver"] for device in expected["devices"]] == ["vfio-pci", "vfio-pci"]
    after = tree_hash(kernel.root)
    for check in (True, False):
        assert not call(capsys, **arguments, _ansible_check_mode=check)["changed"]
    assert tree_hash(kernel.root) == after


def test_what_is_returned_is_documented(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    documented = yaml.safe_load(vfio_devices.RETURN)
    result = call(capsys, devices=[VF0])
    assert set(result) - {"changed", "diff"} <= set(documented)
    assert set(result["devices"][0]) == set(documented["devices"]["contains"])
    assert set(result["devices"][0]["after"]) == set(documented["devices"]["contains"]["after"]["contains"])


def test_the_codes_that_can_be_forced_are_documented() -> None:
    options = yaml.safe_load(vfio_devices.DOCUMENTATION)["options"]
    assert tuple(options["force"]["choices"]) == FORCIBLE_CODES


def test_refusals(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    result = call(capsys, devices=[NVME, MANAGEMENT])
    assert result["failed"]
    assert [(one["code"], one["device"], one["forcible"]) for one in result["problems"]] == [
        ("boot_disk", NVME, True),
        ("management_network", MANAGEMENT, True),
    ]
    assert "exception" not in result
    assert kernel.writes == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"devices": ["01:20.0"]}, "01:20.0"),
        ({"devices": [VF0], "state": "stolen"}, "stolen"),
        ({"devices": [VF0], "force": ["everything"]}, "everything"),
        ({"devices": [VF0], "driver": "igb"}, "igb"),
        ({}, "devices"),
    ],
)
def test_bad_input(
    kernel: FakeKernel, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], text: str
) -> None:
    result = call(capsys, **arguments)
    assert result["failed"]
    assert text in result["msg"]
    assert kernel.writes == []


def test_what_is_to_be_known_is_a_warning_of_ansible(
    kernel: FakeKernel, capsys: pytest.CaptureFixture[str], warnings: list[str]
) -> None:
    """Through ``warn``: ansible-core calls it deprecated to hand warnings to ``exit_json``."""
    kernel.tree.path(f"{kernel.tree.device_path(TWINS[0])}/reset_method").unlink()
    result = call(capsys, devices=[TWINS[0]], _ansible_check_mode=True)
    assert not result.get("failed")
    assert ["no way to reset 0000:05:00.0" in warning for warning in warnings] == [True]
    assert "deprecations" not in result


def test_a_hang_asks_for_a_reboot(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    kernel.faults.by_number = {2: Fault.HANG}
    result = call(capsys, devices=[VF0])
    assert result["failed"]
    assert result["reboot_required"] is True
    assert result["failed_action"] == f"detach {VF0} from igbvf"


def test_only_for_root(kernel: FakeKernel, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert call(capsys, devices=[VF0])["code"] == "not_root"
