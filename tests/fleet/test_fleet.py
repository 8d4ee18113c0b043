# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks on a fleet of many kinds: nobody is changed before all were asked, and the answer is one message."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from tests.lab.controller import Run
from tests.unit.support import machine
from tests.unit.support.tree import LOCK, tree_listing

from . import tree
from .conftest import MakeFleet, controller
from .hosts import Fleet

# What Ansible itself leaves, and the mount points of whoever enters a tree.
_NOISE = (LOCK, "tmp", ".machine")


def listings(fleet: Fleet) -> dict[str, dict[str, str]]:
    """What is in the trees of all hosts."""
    return {host: tree_listing(fleet.root(host), exclude=_NOISE) for host in fleet.kinds if fleet.root(host).is_dir()}


def report(run: Run, action: str) -> str:
    """The message about the hosts that would be refused; there is one."""
    (message,) = [
        str(task.result["msg"])
        for task in run.tasks
        if task.action == f"ansible.builtin.{action}" and "hosts would be refused" in str(task.result.get("msg"))
    ]
    return message


def reasons(message: str) -> dict[str, str]:
    """Of each host in the report, why it is refused."""
    found = re.findall(r"^- (\S+): (.*(?:\n  .*)*)", message, re.MULTILINE)
    return dict(found)


def test_a_check_of_the_fleet_is_right_about_every_host(
    make_fleet: MakeFleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = make_fleet()
    assert len(fleet.kinds) >= 30
    before = listings(fleet)
    started = time.monotonic()
    run = controller(fleet).playbook("site", check=True)
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\nsite --check on {len(fleet.kinds)} hosts: {seconds:.0f} s")

    assert run.rc != 0
    found = reasons(report(run, "debug"))
    assert set(found) == set(fleet.refused())
    for host, why in fleet.refused().items():
        assert why in found[host], found[host]

    states = {task.host: task.result["state"] for task in run.of("iommu_info")}
    assert set(states) >= set(fleet.kinds) - set(fleet.refused())
    for host, kind in fleet.kinds.items():
        if host in states:
            assert states[host] == kind.state, host
        changed = {task.action.split(".")[-1] for task in run.tasks if task.host == host and task.changed}
        assert changed == set(kind.changes), host
    assert listings(fleet) == before


def test_an_audit_of_the_fleet_is_right_about_every_host(
    make_fleet: MakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet = make_fleet()
    before = listings(fleet)
    started = time.monotonic()
    run = controller(fleet).playbook("audit", "-e", f"vfio_audit_folder={tmp_path}")
    seconds = time.monotonic() - started
    with capsys.disabled():
        print(f"\naudit of {len(fleet.kinds)} hosts: {seconds:.0f} s")
    assert run.rc == 0, run.output
    assert listings(fleet) == before

    page = (tmp_path / "kvm-passthrough-audit.html").read_text(encoding="utf-8")
    report = json.loads((tmp_path / "kvm-passthrough-audit.json").read_text(encoding="utf-8"))
    assert [host["name"] for host in report["hosts"]] == sorted(fleet.kinds)
    for host in report["hosts"]:
        name, kind = host["name"], fleet.kinds[host["name"]]
        assert name in page
        if not fleet.root(name).is_dir():
            assert (host["status"], host["verdict"]) == ("unreachable", "unknown")
            continue
        assert host["iommu"]["state"] == kind.state, name
        expected = "blocked" if kind.state != "active" else "attention" if kind.finding else "ready"
        assert host["verdict"] == expected, name
        assert [finding["code"] for finding in host["findings"]][:1] == [kind.finding] * bool(kind.finding), name
        assert kind.finding is None or kind.finding in page
    assert report["summary"]["hosts"] == len(fleet.kinds)


def test_an_audit_goes_on_where_variables_of_the_inventory_are_none(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """The host is in the report with all that could be found out, and with what could not be compared, and why."""
    nonsense = {"vfio_host_devices": 7, "vfio_guest_domains": [{"name": "web01"}]}
    fleet = make_fleet(["guest"], nonsense)
    run = controller(fleet).playbook("audit", "-e", f"vfio_audit_folder={tmp_path}")
    assert run.rc == 0, run.output
    (host,) = json.loads((tmp_path / "kvm-passthrough-audit.json").read_text(encoding="utf-8"))["hosts"]
    assert (host["status"], host["verdict"]) == ("partial", "attention")
    assert [domain["name"] for domain in host["domains"]] == ["web01"]
    reasons_by_module = {failure["module"]: failure["message"] for failure in host["failures"]}
    assert set(reasons_by_module) == {"vfio_devices", "domain_hostdevs"}
    assert "hostdevs" in reasons_by_module["domain_hostdevs"]


def test_nobody_is_changed_while_one_would_be_refused(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(["intel-off", "amd-off", "bad-disk", "bad-cable"])
    before = listings(fleet)
    run = controller(fleet).playbook("site")
    assert run.rc != 0
    message = report(run, "fail")
    assert set(reasons(message)) == {"bad-disk-01", "bad-cable-01"}
    assert message.startswith("2 of 4 hosts would be refused:\n")
    assert "No host was changed." in message
    assert [task.task for task in run.tasks if task.changed] == []
    assert listings(fleet) == before


def test_the_others_go_on_when_told_so(make_fleet: MakeFleet) -> None:
    """In batches of which none may fail; and a second run has nothing left to do."""
    fleet = make_fleet(["intel-off", "intel-suse", "intel-arch", "amd-off", "bad-disk", "bad-cable"])
    before = listings(fleet)
    ansible = controller(fleet)
    words = ("-e", "kvm_passthrough_refused=skip", "-e", '{"kvm_passthrough_serial": [1, 2]}')
    run = ansible.playbook("site", *words)
    good = {"intel-off-01", "intel-suse-01", "intel-arch-01", "amd-off-01"}
    assert {task.host for task in run.tasks if task.changed} == good, run.output
    assert {task.host for task in run.tasks if task.status == "failed" and "left out" in task.result["msg"]} == {
        "bad-disk-01"
    }
    assert run.rc != 0
    after = listings(fleet)
    assert {host for host in before if before[host] != after[host]} == good
    assert "has to be rebooted" in run.output

    again = ansible.playbook("site", *words)
    assert [(task.host, task.task) for task in again.tasks if task.changed] == []
    assert listings(fleet) == after

    # And back. A device that would be refused is none that anything was done to.
    predicted = ansible.playbook("revert", *words, check=True)
    assert {task.host for task in predicted.tasks if task.changed} == good
    assert listings(fleet) == after
    back = ansible.playbook("revert", *words)
    assert {task.host for task in back.tasks if task.changed} == good
    assert set(reasons(report(back, "debug"))) == {"bad-cable-01"}
    assert listings(fleet) == before
    once_more = ansible.playbook("revert", *words)
    assert [(task.host, task.task) for task in once_more.tasks if task.changed] == []
    assert listings(fleet) == before


def test_a_failure_ends_the_roll_out_and_the_next_run_resumes_it(make_fleet: MakeFleet) -> None:
    """In batches of one; what fails is not what preflight could know."""
    fleet = make_fleet(["amd-off", "intel-off"])
    before = listings(fleet)
    generator = fleet.root("amd-off-01") / "usr/sbin/grub-mkconfig"
    works = generator.read_text(encoding="utf-8")
    generator.write_text("#!/bin/sh\nexit 3\n", encoding="utf-8")
    ansible = controller(fleet)
    run = ansible.playbook("site", "-e", "kvm_passthrough_serial=1")
    assert run.rc != 0
    assert {task.host for task in run.tasks if task.status == "failed"} == {"amd-off-01"}
    assert [(task.host, task.task) for task in run.tasks if task.changed] == []

    generator.write_text(works, encoding="utf-8")
    assert listings(fleet) == before  # also what had been changed of the one that failed
    run = ansible.playbook("site", "-e", "kvm_passthrough_serial=1")
    assert run.rc == 0, run.output
    assert {task.host for task in run.tasks if task.changed} == set(fleet.kinds)


def test_options_of_vfio_pci_that_wait_for_a_reboot_are_told(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(["intel-bound"], {"vfio_host_persistent": True, "vfio_host_options": {"disable_idle_d3": True}})
    run = controller(fleet).playbook("host", check=True)
    assert run.rc == 0, run.output
    assert "vfio-pci is loaded with other options than are set." in run.output
    assert run.of("reboot") == []


@pytest.mark.parametrize("consent", [False, True])
def test_a_host_is_not_rebooted_while_domains_run(make_fleet: MakeFleet, consent: bool) -> None:
    variables = {"vfio_host_reboot": True, "vfio_host_reboot_with_domains": consent}
    fleet = make_fleet(["intel-off"], variables)
    (fleet.root("intel-off-01") / "run/libvirt/qemu").mkdir(parents=True)
    for name in ("web01.xml", "web01.pid", "driver.pid"):
        (fleet.root("intel-off-01") / "run/libvirt/qemu" / name).write_text("")
    run = controller(fleet).playbook("host", check=True)
    assert run.rc == 0, run.output
    assert [task.changed for task in run.of("reboot")] == ([True] if consent else [])
    assert ("web01 runs there, and vfio_host_reboot_with_domains is false" in run.output) is not consent


def test_a_converged_host_costs_six_module_runs_at_most(make_fleet: MakeFleet) -> None:
    """With everything the role vfio_host can do, on a host that has it all."""
    variables = {
        "vfio_host_pfs": [{"pf": {"address": machine.PF}, "count": 2, "drivers_autoprobe": True}],
        "vfio_host_selinux_booleans": {"virt_use_sysfs": True},
        "vfio_host_packages": ["auto"],
        "vfio_host_kernel_parameters": {"absent": ["nomodeset"]},
        "vfio_host_reboot": True,
    }
    fleet = make_fleet(["intel-bound"], variables)
    for name in ("virsh", "qemu-system-x86_64"):
        tree.add_program(fleet.root("intel-bound-01"), f"/usr/bin/{name}", "")
    tree.add_python_modules(fleet.root("intel-bound-01"), "libvirt", "lxml", "lxml.etree")
    run = controller(fleet).playbook("host", "--skip-tags", "preflight")
    assert run.rc == 0, run.output
    assert [task.task for task in run.tasks if task.changed] == []
    modules = [task.action for task in run.tasks if task.status == "ok" and runs_on_the_host(task.action)]
    assert len(modules) <= 6, modules
    assert {name.split(".")[-1] for name in modules} == {
        "command",
        "iommu_info",
        "kernel_parameters",
        "selinux_booleans",
        "sriov_vfs",
        "vfio_devices",
    }


def runs_on_the_host(action: str) -> bool:
    """Whether a task has a module run on the host; the others are decided by the controller."""
    return action.split(".")[-1] not in (
        "assert",
        "debug",
        "fail",
        "include_tasks",
        "set_fact",
        "validate_argument_spec",
    )


@pytest.mark.parametrize(
    ("kind", "tags", "modules"),
    [
        ("intel-bound", "parameters", {"kernel_parameters"}),
        ("intel-bound", "devices", set()),
        ("intel-off", "selinux", {"selinux_booleans"}),
        ("intel-off", "reboot", {"kernel_parameters", "find", "reboot"}),
    ],
)
def test_tags_choose_what_is_done(make_fleet: MakeFleet, kind: str, tags: str, modules: set[str]) -> None:
    variables = {"vfio_host_selinux_booleans": {"virt_use_sysfs": True}, "vfio_host_reboot": True}
    fleet = make_fleet([kind], variables)
    run = controller(fleet).playbook("host", "--tags", tags, "--skip-tags", "preflight", check=True)
    assert run.rc == 0, run.output
    done = {task.action.split(".")[-1] for task in run.tasks if task.status == "ok" and runs_on_the_host(task.action)}
    assert done == modules | {"vfio_devices", "iommu_info"}
