# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The variables in the READMEs of the roles are those of their argument specifications."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT
from ansible_collections.kvm.passthrough.tools.docs import variables

ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


@pytest.mark.parametrize("role", ROLES)
def test_the_committed_readme_is_what_is_generated(role: str) -> None:
    name = f"roles/{role}/README.md"
    text = (ROOT / name).read_text(encoding="utf-8")
    assert variables.readmes(ROOT)[name] == text, 'run "make docs-generated"'


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_has_every_variable_and_no_other_table_of_them(role: str) -> None:
    spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))
    text = (ROOT / f"roles/{role}/README.md").read_text(encoding="utf-8")
    rows = re.findall(rf"^\| `({role}_\w+)` \| .+ \| .+ \| .+ \|$", text, re.MULTILINE)
    assert rows == list(spec["argument_specs"]["main"]["options"])


def test_a_changed_specification_makes_another_readme(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "roles", tmp_path / "roles")
    path = tmp_path / "roles/vfio_audit/meta/argument_specs.yml"
    path.write_text(path.read_text(encoding="utf-8").replace("The libvirt connection.", "How to reach it."), "utf-8")
    found = variables.readmes(tmp_path)
    text = (ROOT / "roles/vfio_audit/README.md").read_text(encoding="utf-8")
    assert found["roles/vfio_audit/README.md"] == text.replace("The libvirt connection.", "How to reach it.")


def test_a_readme_without_a_place_for_the_variables_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "roles", tmp_path / "roles")
    (tmp_path / "roles/vfio_audit/README.md").write_text("# A role\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"roles/vfio_audit/README\.md has no place for the variables"):
        variables.readmes(tmp_path)


def test_a_table_has_types_defaults_and_suboptions() -> None:
    options = {
        "a_list": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "description": ["One.", "See O(a_text)."],
            "options": {"part": {"type": "int", "required": True, "description": "a|b."}},
        },
        "a_text": {"type": "str", "default": "0600", "description": ["V(on\\) or off)."]},
        "a_choice": {"type": "str", "choices": ["x", "y"], "description": ["M(kvm.passthrough.iommu_info)."]},
        "a_mapping": {"type": "dict", "default": {}, "description": "None."},
        "a_flag": {"type": "bool", "default": False, "description": "B(Not) this."},
    }
    assert variables.table(options).splitlines() == [
        "| variable | type | default | what it is |",
        "|---|---|---|---|",
        "| `a_list` | list of mappings | `[]` | One.<br>See `a_text`. |",
        "| `a_list[].part` | number | required | a\\|b. |",
        "| `a_text` | text | `'0600'` | `on) or off`. |",
        "| `a_choice` | `x`, `y` | none | `iommu_info`. |",
        "| `a_mapping` | mapping | `{}` | None. |",
        "| `a_flag` | true or false | `false` | **Not** this. |",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("O(kvm.passthrough.sriov_vfs#module:pfs[].pf)", "`pfs[].pf` of `sriov_vfs`"),
        ("O(kvm.passthrough.vfio_guest#role:main:vfio_guest_domains)", "`vfio_guest_domains`"),
        ("O(main:vfio_host_force)", "`vfio_host_force`"),
        ("P(kvm.passthrough.vfio_host#role)", "`vfio_host`"),
        ("SR-IOV (VFs) and C(x)", "SR-IOV (VFs) and `x`"),
    ],
)
def test_markup_is_translated(text: str, expected: str) -> None:
    assert variables.markdown(text) == expected


def test_markup_that_is_not_known_is_an_error() -> None:
    with pytest.raises(ValueError, match="markup that is not translated"):
        variables.markdown("See U(https://example.com).")
