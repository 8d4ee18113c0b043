# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What describes a role in several places agrees: argument specification, defaults, README, and the modules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).resolve().parents[3]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def load(role: str, name: str) -> Any:
    return yaml.safe_load((ROOT / "roles" / role / name).read_text(encoding="utf-8"))


def options(role: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = load(role, "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return found


def module_options(name: str) -> dict[str, dict[str, Any]]:
    source = (ROOT / "plugins/modules" / f"{name}.py").read_text(encoding="utf-8")
    documentation = re.search(r'DOCUMENTATION = r?"""\n(.*?)"""', source, re.DOTALL)
    assert documentation is not None
    found: dict[str, dict[str, Any]] = yaml.safe_load(documentation[1])["options"]
    return found


@pytest.mark.parametrize("role", ROLES)
def test_defaults_are_those_of_the_argument_specification(role: str) -> None:
    described = {name: option["default"] for name, option in options(role).items() if "default" in option}
    assert load(role, "defaults/main.yml") == described


@pytest.mark.parametrize("role", ROLES)
def test_variables_begin_with_the_name_of_the_role(role: str) -> None:
    assert [name for name in options(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_has_every_variable(role: str) -> None:
    text = (ROOT / "roles" / role / "README.md").read_text(encoding="utf-8")
    assert re.findall(rf"^\| `({role}_[a-z_]+)` \| .+ \| .+ \|$", text, re.MULTILINE) == list(options(role))


@pytest.mark.parametrize(
    ("variable", "option"),
    [(name, name) for name in ("driver", "exclusive", "force", "group", "persistent", "timeout")],
)
def test_vfio_host_means_the_same_as_vfio_devices(variable: str, option: str) -> None:
    ours, theirs = options("vfio_host")[f"vfio_host_{variable}"], module_options("vfio_devices")[option]
    assert {key: ours.get(key) for key in ("type", "default")} == {key: theirs.get(key) for key in ("type", "default")}


def test_states_of_vfio_guest_are_those_of_domain_hostdevs() -> None:
    ours = options("vfio_guest")["vfio_guest_domains"]["options"]["state"]
    theirs = module_options("domain_hostdevs")["state"]
    assert (ours["choices"], ours["default"]) == (theirs["choices"], theirs["default"])


def rendered(values: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """Values of a role's file (templates, which may use each other), as Ansible makes them with these variables."""
    known = {name: trust_as_template(value) for name, value in values.items()}
    templar = Templar(loader=DataLoader(), variables={**known, **variables})
    return {name: templar.template(value) for name, value in known.items()}


@pytest.mark.parametrize("parameters", [{}, {"present": None, "absent": None}, {"present": ["iommu=pt"]}])
def test_vfio_host_takes_parameters_that_are_null_for_none(parameters: dict[str, Any]) -> None:
    facts = load("vfio_host", "tasks/parameters.yml")[0]["ansible.builtin.set_fact"]
    iommu = {
        "state": "inactive",
        "recommended_parameters": ["intel_iommu=on", "iommu=pt"],
        "parameters_to_remove": ["intel_iommu=off"],
        "blockers": [],
    }
    found = rendered(
        {**load("vfio_host", "vars/main.yml"), **facts},
        __vfio_host_iommu=iommu,
        vfio_host_iommu_parameters=["auto"],
        vfio_host_kernel_parameters=parameters,
    )
    assert found["__vfio_host_present"] == ["intel_iommu=on", "iommu=pt"]
    assert found["__vfio_host_absent"] == ["intel_iommu=off"]


def test_vfio_guest_names_a_domain_to_virsh_by_what_is_no_id_of_another() -> None:
    """virsh looks for an id before it looks for a name, so the domain "2" would not be the one that is shut down."""
    commands = [task["ansible.builtin.command"]["argv"] for task in load("vfio_guest", "tasks/power.yml")]
    assert [argv[3] for argv in commands] == ["shutdown", "domstate", "start"]
    assert {argv[4] for argv in commands} == {"{{ item.domain.uuid }}"}
