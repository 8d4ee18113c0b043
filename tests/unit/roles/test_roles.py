# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What describes a role in several places agrees: argument specification, defaults, README, and the modules."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT
from ansible_collections.kvm.passthrough.tests.unit.support.query import documented_options

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def load(role: str, name: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text(encoding="utf-8"))


def options(role: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_argument_specification(role: str) -> None:
    described = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert load(role, "defaults/main.yml") == described


@pytest.mark.parametrize("role", ROLES)
def test_variables_begin_with_the_name_of_the_role(role: str) -> None:
    assert [name for name in options(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("option", ["driver", "exclusive", "force", "group", "options", "persistent", "timeout"])
def test_vfio_host_means_the_same_as_vfio_devices(option: str) -> None:
    ours, theirs = options("vfio_host")[f"vfio_host_{option}"], documented_options("vfio_devices")[option]
    assert {key: ours.get(key) for key in ("type", "default")} == {key: theirs.get(key) for key in ("type", "default")}


def test_states_of_vfio_guest_are_those_of_domain_hostdevs() -> None:
    ours = options("vfio_guest")["vfio_guest_domains"]["options"]["state"]
    theirs = documented_options("domain_hostdevs")["state"]
    assert (ours["choices"], ours["default"]) == (theirs["choices"], theirs["default"])


def rendered(values: dict[str, Any], names: Collection[str], **variables: Any) -> dict[str, Any]:
    """Values of a role's file (templates, which may use each other), as Ansible makes them with these variables."""
    known = {name: trust_as_template(value) if isinstance(value, str) else value for name, value in values.items()}
    templar = Templar(loader=DataLoader(), variables={**known, **variables})
    return {name: templar.template(known[name]) for name in names}


@pytest.mark.parametrize(
    ("option", "module", "theirs"),
    [
        ("vfio_host_pfs", "sriov_vfs", ("pfs",)),
        ("vfio_guest_networks", "hostdev_network", ()),
    ],
)
def test_what_a_role_hands_on_as_a_whole_has_the_options_of_the_module(
    option: str, module: str, theirs: tuple[str, ...]
) -> None:
    known = documented_options(module)
    for name in theirs:
        known = known[name]["suboptions"]
    ours = options(option.rsplit("_", 1)[0])[option]["options"]
    assert set(ours) == {name for name in known if name != "revert"}
    for name, value in ours.items():
        assert value["type"] == known[name]["type"], name
        assert value.get("choices") == known[name].get("choices"), name


def test_the_network_of_an_item_is_handed_on_with_all_its_options() -> None:
    task = load("vfio_guest", "tasks/networks.yml")[0]
    assert set(task["kvm.passthrough.hostdev_network"]) == set(options("vfio_guest")["vfio_guest_networks"]["options"])


@pytest.mark.parametrize("parameters", [{}, {"present": None, "absent": None}, {"present": ["iommu=pt"]}])
def test_vfio_host_takes_parameters_that_are_null_for_none(parameters: dict[str, Any]) -> None:
    facts = next(
        task["ansible.builtin.set_fact"]
        for task in load("vfio_host", "tasks/inspect.yml")
        if "ansible.builtin.set_fact" in task
    )
    iommu = {
        "state": "inactive",
        "recommended_parameters": ["intel_iommu=on", "iommu=pt"],
        "parameters_to_remove": ["intel_iommu=off"],
        "blockers": [],
    }
    found = rendered(
        {**load("vfio_host", "vars/main.yml"), **facts},
        {"__vfio_host_present", "__vfio_host_absent"},
        __vfio_host_iommu=iommu,
        vfio_host_iommu_parameters=["auto"],
        vfio_host_kernel_parameters=parameters,
    )
    assert found["__vfio_host_present"] == ["intel_iommu=on", "iommu=pt"]
    assert found["__vfio_host_absent"] == ["intel_iommu=off"]


PFS = [
    {"address": "0000:01:00.0", "before": {"count": 0}, "after": {"count": 1}, "vfs": [{"address": "0000:01:10.0"}]},
    {"address": "0000:03:00.0", "before": {"count": 1}, "after": {"count": 1}, "vfs": [{"address": "0000:03:10.0"}]},
]
COMING = [{"pf": {"address": "0000:01:00.0"}, "vf": 0}, {"address": "0000:01:10.0"}, "0000:01:10.0"]
THERE = [{"address": "0000:02:00.0"}, "0000:03:10.0", "8086:10d3"]


@pytest.mark.parametrize(("pfs", "asked_about"), [(PFS, THERE), (PFS[1:], COMING + THERE), ([], COMING + THERE)])
def test_vfio_host_does_not_ask_about_virtual_functions_that_are_to_be_made(
    pfs: list[Any], asked_about: list[Any]
) -> None:
    names = {"__vfio_host_remade_pfs", "__vfio_host_devices_there", "__vfio_host_no_objection"}
    found = rendered(
        load("vfio_host", "vars/main.yml"),
        names,
        __vfio_host_vfs_answer={"pfs": pfs},
        vfio_host_devices=COMING + THERE,
    )
    assert found["__vfio_host_devices_there"] == asked_about
    assert ("no_match" in found["__vfio_host_no_objection"]) is (asked_about == THERE)


def test_vfio_guest_takes_names_for_devices() -> None:
    found = rendered(
        load("vfio_guest", "vars/main.yml"),
        {"__vfio_guest_hostdevs", "__vfio_guest_pf", "__vfio_guest_pool_devices"},
        vfio_host_devices=["0000:02:00.0", {"name": "vf", "address": "0000:01:10.0"}],
        vfio_host_pfs=[{"pf": {"name": "uplink", "interface": "enp1s0"}, "count": 4}, {"pf": "enp2s0", "count": 1}],
        item={
            "pf": "uplink",
            "devices": ["vf", "0000:01:10.2"],
            "hostdevs": [{"device": "vf", "managed": False}, {"device": "0000:02:00.0"}, {"device": {"name": "vf"}}],
        },
    )
    vf = {"name": "vf", "address": "0000:01:10.0"}
    assert found["__vfio_guest_hostdevs"] == [
        {"device": vf, "managed": False},
        {"device": "0000:02:00.0"},
        {"device": {"name": "vf"}},
    ]
    assert found["__vfio_guest_pf"] == {"name": "uplink", "interface": "enp1s0"}
    assert found["__vfio_guest_pool_devices"] == [vf, "0000:01:10.2"]


VIRSH = r"""#!/bin/sh
echo "$*" >>"$LOG"
case " $* " in
*" domstate "*) if [ -e "$OFF" ]; then echo "shut off"; else echo running; touch "$OFF"; fi;;
esac
"""


@pytest.mark.parametrize(("limit", "starts"), [("30", True), ("0", False)])
def test_vfio_guest_restarts_a_domain_by_one_command(tmp_path: Path, limit: str, starts: bool) -> None:
    virsh = tmp_path / "virsh"
    virsh.write_text(VIRSH)
    virsh.chmod(0o755)
    argv = load("vfio_guest", "tasks/power.yml")[0]["ansible.builtin.command"]["argv"]
    script = load("vfio_guest", "vars/main.yml")["__vfio_guest_restart"]
    words = [*argv[:2], script, argv[3], "qemu:///system", "5e8a0f66", limit]
    paths = {"LOG": str(tmp_path / "log"), "OFF": str(tmp_path / "off")}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **paths}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    calls = [line.split()[-2:] for line in (tmp_path / "log").read_text().splitlines()]
    assert calls[0] == ["shutdown", "5e8a0f66"]
    assert (["start", "5e8a0f66"] in calls) is starts
    assert (done.returncode == 0) is starts
    assert ("vfio_guest_shutdown_timeout" in done.stderr) is not starts


def test_vfio_guest_names_a_domain_to_virsh_by_what_is_no_id_of_another() -> None:
    """virsh looks for an id before it looks for a name, so the domain "2" would not be the one that is shut down."""
    restart, start = (task["ansible.builtin.command"]["argv"] for task in load("vfio_guest", "tasks/power.yml"))
    assert restart[5] == start[4] == "{{ item.domain.uuid }}"
    assert start[3] == "start"


def test_tags_of_the_playbooks_are_those_of_the_roles() -> None:
    tags = {tag for role in ("vfio_host", "vfio_guest") for tag in tags_of(role)} - {"always"}
    text = (ROOT / "playbooks/site.yml").read_text(encoding="utf-8")
    listed = re.search(r"^# Tags: (.*)\.$", text, re.MULTILINE)
    assert listed is not None
    assert set(listed[1].split(", ")) == tags | {"preflight"}


def tags_of(role: str) -> set[str]:
    found: set[str] = set()
    for path in sorted((ROOT / "roles" / role / "tasks").glob("*.yml")):
        for task in yaml.safe_load(path.read_text(encoding="utf-8")):
            found |= set(task.get("tags", []))
    return found


@pytest.mark.parametrize(
    ("failed", "reason"),
    [
        ({"failed": True, "msg": "The disk is mounted."}, "The disk is mounted."),
        (
            {
                "failed": True,
                "msg": "One or more items failed",
                "results": [
                    {"failed": False, "item": {"name": "web01"}},
                    {"failed": True, "item": {"name": "web02"}, "msg": "There is no domain."},
                    {"failed": True, "item": {"name": "web03"}, "msg": "It has the device."},
                ],
            },
            "web02: There is no domain.\nweb03: It has the device.",
        ),
        ({"failed": True}, "{'failed': True}"),
    ],
)
def test_preflight_says_why(failed: dict[str, Any], reason: str) -> None:
    (play,) = yaml.safe_load((ROOT / "playbooks/preflight.yml").read_text(encoding="utf-8"))
    found = rendered(play["vars"], {"__passthrough_reason"}, ansible_failed_result=failed)
    assert found["__passthrough_reason"].strip() == reason
