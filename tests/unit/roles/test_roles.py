# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What describes a role in several places agrees: argument specification, defaults, README, and the modules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

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
