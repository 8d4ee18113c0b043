# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs of an NVMe drive: their controllers get queues and interrupts, go online, and give it all back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.tests.unit.support import virtual_functions
from ansible_collections.kvm.passthrough.tests.unit.support.nvme import DRIVE, NvmeKernel, nvme_host
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing

BOTH = [{"vf": "all", "queues": 2, "interrupts": 1}]
NOTHING = [(0, 0, 0), (0, 0, 0)]


@pytest.fixture(name="kernel")
def kernel_fixture(tmp_path: Path) -> NvmeKernel:
    return nvme_host(tmp_path)


def run(
    kernel: NvmeKernel, count: int, vfs: list[dict[str, Any]] | None = None, *, check: bool = False, pf: Any = DRIVE
) -> dict[str, Any]:
    return virtual_functions.run(kernel, {"pf": pf, "count": count, "vfs": vfs or []}, check=check)


def failure(
    kernel: NvmeKernel, count: int, vfs: list[dict[str, Any]] | None = None, **options: Any
) -> PassthroughError:
    """The error of a run that leaves the host as it was, however often it is tried."""
    before = tree_listing(kernel.root, ("run", "var"))
    with pytest.raises(PassthroughError) as caught:
        run(kernel, count, vfs, **options)
    assert tree_listing(kernel.root, ("run", "var")) == before
    return caught.value


def states(kernel: NvmeKernel) -> list[tuple[int, int, int]]:
    return [(entry["state"], *entry["resources"]) for entry in kernel.secondaries()]


def test_check_run_check_run_and_back(kernel: NvmeKernel) -> None:
    before = tree_hash(kernel.root, ("run",))
    predicted = run(kernel, 2, BOTH, check=True)
    assert tree_hash(kernel.root, ("run",)) == before
    assert run(kernel, 2, BOTH) == predicted
    assert states(kernel) == [(1, 2, 1), (1, 2, 1)]
    assert predicted["pfs"][0]["controller"] == "nvme3"
    assert [vf["address"] for vf in predicted["pfs"][0]["vfs"]] == ["0000:08:00.1", "0000:08:00.2"]
    assert predicted["pfs"][0]["vfs"][1]["settings"] == {"queues": 2, "interrupts": 1}
    for check in (True, False):
        assert not run(kernel, 2, BOTH, check=check)["changed"]

    # From one to the other: what one gives away first, the other can have.
    run(kernel, 2, [{"vf": 0, "queues": 0, "interrupts": 0}])
    assert states(kernel) == [(0, 0, 0), (1, 2, 1)]
    run(kernel, 2, [{"vf": 1, "queues": 4, "interrupts": 2}])
    assert states(kernel) == [(0, 0, 0), (1, 4, 2)]

    run(kernel, 0)
    assert states(kernel) == NOTHING
    assert kernel.attribute(STATE_PATH) is None


def test_what_one_gives_away_another_has_in_the_same_run(kernel: NvmeKernel) -> None:
    run(kernel, 2, BOTH)
    run(kernel, 2, [{"vf": 0, "queues": 4, "interrupts": 2}, {"vf": 1, "queues": 0, "interrupts": 0}])
    assert states(kernel) == [(1, 4, 2), (0, 0, 0)]


def test_what_those_had_that_are_gone_others_can_have(kernel: NvmeKernel) -> None:
    run(kernel, 2, BOTH)
    run(kernel, 1, [{"vf": 0, "queues": 4, "interrupts": 2}])
    assert states(kernel) == [(1, 4, 2), (0, 0, 0)]


def test_everything_is_taken_back(kernel: NvmeKernel) -> None:
    """Of VFs that somebody else had made, and of those that this collection made."""
    for vfs in (0, 2):
        if vfs:
            kernel.write_attribute(f"/sys/bus/pci/devices/{DRIVE}/sriov_numvfs", f"{vfs}\n")
        before = tree_listing(kernel.root, ("run", "var"))
        assert run(kernel, 2, BOTH)["changed"]
        predicted = virtual_functions.revert(kernel, check=True)
        assert virtual_functions.revert(kernel) == predicted
        assert predicted["changed"]
        assert states(kernel) == NOTHING
        assert tree_listing(kernel.root, ("run", "var")) == before
        assert kernel.attribute(STATE_PATH) is None


def test_controllers_that_are_made_anew_are_online_again(kernel: NvmeKernel) -> None:
    run(kernel, 2, BOTH)
    run(kernel, 1, BOTH)
    assert states(kernel)[0] == (1, 2, 1)


def test_more_than_the_drive_has_to_give(kernel: NvmeKernel) -> None:
    """What was given before it said so is taken back with the VFs."""
    error = failure_without_records(
        kernel, 2, [{"vf": 0, "queues": 3, "interrupts": 1}, {"vf": 1, "queues": 2, "interrupts": 1}]
    )
    assert error.code == "vf_setting_refused"
    assert error.problems[0].details["vf"] == 1
    assert "Invalid Number of Controller Resources" in str(error)
    assert "primary-ctrl-caps" in str(error.problems[0].remedy)


def failure_without_records(kernel: NvmeKernel, count: int, vfs: list[dict[str, Any]]) -> PassthroughError:
    """A failure after something was changed: all VFs are gone again, and no controller is online."""
    with pytest.raises(PassthroughError) as caught:
        run(kernel, count, vfs)
    assert states(kernel) == NOTHING
    assert kernel.attribute(f"/sys/bus/pci/devices/{DRIVE}/sriov_numvfs") == "0"
    assert kernel.attribute(STATE_PATH) is None
    return caught.value


def test_a_failure_leaves_controllers_as_they_were(kernel: NvmeKernel) -> None:
    run(kernel, 2, BOTH)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, 2, [{"vf": 1, "queues": 3, "interrupts": 1}])
    assert caught.value.code == "vf_setting_refused"
    assert states(kernel) == [(1, 2, 1), (1, 2, 1)]


def test_controllers_that_vanished_in_a_run_that_failed_are_online_again(kernel: NvmeKernel) -> None:
    run(kernel, 2, BOTH)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, 1, [{"vf": 0, "queues": 9, "interrupts": 1}])
    assert caught.value.code == "vf_setting_refused"
    assert caught.value.extra["not_undone"] == []
    assert states(kernel) == [(1, 2, 1), (1, 2, 1)]


def test_drives_whose_functions_work_as_they_are(kernel: NvmeKernel) -> None:
    kernel.knows_secondaries = False
    assert failure_without_records(kernel, 2, BOTH).code == "vf_setting_unsupported"
    assert run(kernel, 2)["changed"]
    assert failure(kernel, 2, BOTH).code == "vf_setting_unsupported"


def test_without_the_program(kernel: NvmeKernel) -> None:
    kernel.tree.path("/usr/sbin/nvme").unlink()
    error = failure(kernel, 2, BOTH)
    assert error.code == "command_missing"
    assert "nvme-cli" in error.problems[0].remedy
    assert run(kernel, 2)["changed"]
    assert run(kernel, 0)["changed"]


def test_settings_of_another_kind_of_device(kernel: NvmeKernel) -> None:
    error = failure(kernel, 2, [{"vf": 0, "mac": "52:54:00:00:00:01"}])
    assert error.code == "vf_settings_impossible"
    assert "no network interface" in str(error)
    error = failure(kernel, 2, BOTH, pf="0000:01:00.0")
    assert error.code == "vf_settings_impossible"
    assert "no NVMe controller" in str(error)


def test_an_answer_that_is_none(kernel: NvmeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    run(kernel, 1)
    monkeypatch.setattr(NvmeKernel, "_listed", lambda self: {"secondary-controllers": [{"virtual-function-number": 1}]})
    assert failure(kernel, 1, [{"vf": 0, "queues": 2, "interrupts": 1}]).code == "vf_settings_unreadable"
