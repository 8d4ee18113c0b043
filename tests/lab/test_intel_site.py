# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole way by playbook: from a host with its IOMMU off to a guest that sees its devices."""

from __future__ import annotations

from typing import Any

import pytest

from tests import lab
from tests.demo.story import INVENTORY, Story

from .controller import Controller, Run, told

pytestmark = pytest.mark.lab("intel")


def test_the_demonstration(fresh_host: lab.Machine) -> None:
    """``make demo``, with a reboot by consent in it: everything is in the end as it was asked for."""
    story = Story(fresh_host)
    story.tell()
    assert story.problems == []


@pytest.mark.full
def test_check_mode_of_site_predicts_each_stage_and_revert_takes_all_back(fresh_host: lab.Machine) -> None:
    """Without consent to a reboot there are two stages; a check before each says exactly what the run then does.

    Afterwards everything is taken back, and the host is as it was before the first run.
    """
    ansible = Controller(fresh_host, inventories=(INVENTORY,))
    before = _picture(fresh_host)
    no_reboot = ("-e", '{"vfio_host_reboot": false}')

    predicted = _good(ansible.playbook("site", *no_reboot, check=True))
    happened = _good(ansible.playbook("site", *no_reboot))
    assert _story(predicted) == _story(happened)
    assert [task.changed for task in happened.of("kernel_parameters")] == [False, True]  # asked, and then done
    assert happened.of("domain_hostdevs") == []
    assert "has to be rebooted" in happened.output

    fresh_host.reboot()

    predicted = _good(ansible.playbook("site", *no_reboot, check=True))
    happened = _good(ansible.playbook("site", *no_reboot))
    assert _story(predicted) == _story(happened)
    assert any(task.changed for task in happened.of("vfio_devices"))
    assert any(task.changed for task in happened.of("domain_hostdevs"))
    assert fresh_host.guest_pci_list("guest2")

    # The guest runs now, and what it has is not taken away from under it.
    taken = ansible.module("vfio_devices", {"devices": ["0000:01:10.0"], "state": "released"})
    assert taken.status == "failed"
    assert [problem["code"] for problem in taken.result["problems"]] == ["in_use_by_domain"]
    assert "guest2" in taken.result["msg"]

    for check in (True, False):
        again = _good(ansible.playbook("site", *no_reboot, check=check))
        assert [task.task for task in again.tasks if task.changed] == []

    _taken_back(fresh_host, ansible, before)


def _taken_back(host: lab.Machine, ansible: Controller, before: dict[str, Any]) -> None:
    """Not while the guest runs; then all of it, with the reboot that the inventory consents to."""
    refused = ansible.playbook("revert")
    assert refused.rc != 0
    assert "1 of 1 hosts would be refused" in refused.output
    assert "guest2" in refused.output
    assert [task.task for task in refused.tasks if task.changed] == []
    host.ssh("sudo virsh --quiet destroy guest2")

    boot = host.wait_ssh()
    done = _good(ansible.playbook("revert"))
    assert {task.action.split(".")[-1] for task in done.tasks if task.changed} == {
        "domain_hostdevs",
        "vfio_devices",
        "kernel_parameters",
        "reboot",
    }
    assert host.wait_ssh() != boot
    host.settle()
    after = _picture(host)
    for name, value in before.items():
        assert after[name] == value, name
    again = _good(ansible.playbook("revert"))
    assert [task.task for task in again.tasks if task.changed] == []


def _picture(host: lab.Machine) -> dict[str, Any]:
    """What the collection changes: the settings of the host, what its kernel was told, bindings, the definition."""
    return {
        "etc": host.etc(),
        "command line": host.ssh("cat /proc/cmdline").stdout,
        "drivers": host.drivers(),
        "domain": host.ssh("sudo virsh --quiet dumpxml --inactive guest2").stdout,
        "record": host.ssh("sudo ls /var/lib/kvm-passthrough 2>&1 || true").stdout,
    }


def _good(run: Run) -> Run:
    assert run.rc == 0, run.output
    return run


def _story(run: Run) -> list[tuple[str, bool, Any]]:
    """Of each task that changes something, and of each module of this collection: what it said."""
    return [
        (task.task, task.changed, told(task.result) if task.action.startswith("kvm.passthrough.") else None)
        for task in run.tasks
        if task.status == "ok" and (task.changed or task.action.startswith("kvm.passthrough."))
    ]
