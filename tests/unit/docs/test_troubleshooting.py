# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/troubleshooting.md explains the codes that the code has, all of them, and no others."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml

from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.registry import GUARDS
from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT
from ansible_collections.kvm.passthrough.tools.docs import troubleshooting
from ansible_collections.kvm.passthrough.tools.docs.codes import GUARD, PROBLEM, Given, Plugins, Unreadable, all_codes

PAGE = (ROOT / troubleshooting.PAGE).read_text(encoding="utf-8")


def plugins_of(tmp_path: Path, **files: str) -> Plugins:
    for name, text in files.items():
        path = tmp_path / "module_utils" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Plugins(tmp_path)


ERRORS = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Problem:
    label: ClassVar[str]
    code: str
    message: str

@dataclass(frozen=True)
class Blocker:
    code: str
    severity: str

class PassthroughError(Exception):
    def __init__(self, code: str, message: str) -> None:
        super().__init__(code.upper())
"""


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise PassthroughError("not_here", "It is not here.")', ["not_here"]),
        ('yield Problem("not_here", "It is not here.")', ["not_here"]),
        ('Problem(message="It is not here.", code="not_here")', ["not_here"]),
        ('Problem("not_here" if gone else "not_there", "It is away.")', ["not_here", "not_there"]),
        ('WHERE = "not_here"\ndef look():\n    return Problem(WHERE, "It is not here.")', ["not_here"]),
        ("raise PassthroughError(error.code, str(error))", []),
        ('class A:\n    def wrong(self, where, code="not_here"):\n        Problem(code, where)', ["not_here"]),
        (
            'class A:\n    def wrong(self, where, code):\n        Problem(code, where)\nA().wrong("x", "not_here")',
            ["not_here"],
        ),
        ('def answer():\n    return {"code": "not_here", "msg": "It is not here."}', ["not_here"]),
        ('raise ValueError("not_a_code")', []),
    ],
)
def test_codes_are_found_where_problems_are_made(tmp_path: Path, source: str, codes: list[str]) -> None:
    plugins = plugins_of(
        tmp_path, errors=ERRORS, work=f"from .errors import Blocker, PassthroughError, Problem\n{source}"
    )
    assert [one.code for one in plugins.given()] == codes


@pytest.mark.parametrize(
    "source",
    [
        'Problem(f"{what}_missing", "It is missing.")',
        'Problem(CODES[what], "It is missing.")',
        'def make(name):\n    Problem(name, "It is missing.")',
        'def make():\n    code = name()\n    Problem(code, "It is missing.")',
        'Problem("Not a code", "It is missing.")',
        'Blocker("not_here", weight())',
    ],
)
def test_a_code_that_cannot_be_seen_is_an_error(tmp_path: Path, source: str) -> None:
    plugins = plugins_of(tmp_path, errors=ERRORS, work=f"from .errors import Blocker, Problem\n{source}")
    with pytest.raises(Unreadable, match=r"module_utils/work\.py:\d+"):
        plugins.given()


def test_severities_stand_beside_the_codes_of_blockers(tmp_path: Path) -> None:
    source = (
        'from .errors import Blocker\nBlocker("no_way", "error")\nBlocker("bad_way", "error" if x else "warning")\n'
    )
    found = plugins_of(tmp_path, errors=ERRORS, work=source).given()
    assert {one.code: one.severities for one in found} == {"no_way": {"error"}, "bad_way": {"error", "warning"}}


def test_the_codes_that_were_known_are_found() -> None:
    """The scan has not gone blind: codes made in each of the ways that there are."""
    found = {(one.code, one.path.rpartition("/")[0]) for one in all_codes(ROOT)}
    assert found >= {
        ("not_root", "module_utils/_core"),  # PassthroughError
        ("internal_error", "module_utils/_core"),  # a mapping
        ("too_many_matches", "module_utils/_pci"),  # a method, one of two
        ("selector_invalid", "module_utils/_pci"),  # a default
        ("no_kvm", "module_utils/_iommu/checks"),  # Blocker
        ("boot_disk", "module_utils/_vfio/guards"),  # Guard
        ("mac_in_use", "module_utils/_libvirt/rules"),  # unique()
        ("startup_policy_unsupported", "module_utils/_libvirt/rules"),  # a function of the file
        ("vlan_trunk", "module_utils/_libvirt/rules"),  # Subject.problem
        ("vfs_busy", "module_utils/_sriov"),  # a table
        ("device_moved", "plugin_utils/_audit"),  # Finding of the audit
    }


def test_code_and_explanations_agree() -> None:
    assert list(troubleshooting.mismatches(troubleshooting.read_sections(ROOT), all_codes(ROOT))) == []


def test_what_does_not_agree_is_named() -> None:
    sections = troubleshooting.read_sections(ROOT)
    codes = [one for one in all_codes(ROOT) if one.code != "vfs_busy"]
    codes += [
        Given("quite_new", PROBLEM, "module_utils/_sriov/ip.py", 7),
        Given("quite_new", PROBLEM, "module_utils/_other/new.py", 8),
        Given("a_guard", GUARD, "module_utils/_vfio/guards/new.py", 9),
    ]
    found = "\n".join(troubleshooting.mismatches(sections, codes))
    assert "vfs.yml explains vfs_busy, which nothing in module_utils/_sriov gives" in found
    assert "module_utils/_sriov/ip.py:7: quite_new is explained nowhere; say in docs/codes/vfs.yml" in found
    assert "module_utils/_other/new.py:8: no file in docs/codes is about the problem quite_new" in found
    assert "module_utils/_vfio/guards/new.py:9: a_guard is explained nowhere; say in docs/codes/guards.yml" in found
    assert len(found.splitlines()) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": {"a_code": {"cause": "Something is.", "remedy": ""}}}, "a_code has to have a cause and a remedy"),
        ({"codes": {"a_code": {"cause": "Something is."}}}, "a_code has to have a cause and a remedy"),
        ({"severity": "error"}, "has severity, which nobody reads"),
    ],
)
def test_an_explanation_that_is_not_whole_is_an_error(tmp_path: Path, change: dict[str, object], message: str) -> None:
    shutil.copytree(ROOT / "docs/codes", tmp_path / "docs/codes")
    path = tmp_path / "docs/codes/audit.yml"
    path.write_text(
        yaml.safe_dump({**yaml.safe_load(path.read_text(encoding="utf-8")), **change}, sort_keys=False),
        encoding="utf-8",
    )
    with pytest.raises(troubleshooting.Mismatch, match=message):
        troubleshooting.read_sections(tmp_path)


def test_the_committed_page_is_what_is_generated() -> None:
    assert troubleshooting.page(ROOT) == PAGE, 'run "make docs-generated"'


def test_every_line_of_the_page_has_an_address_of_its_own_and_every_link_leads_to_one() -> None:
    anchors = re.findall(r'<a id="([^"]+)">', PAGE)
    assert len(anchors) == len(set(anchors))
    assert {one.code for one in all_codes(ROOT)} <= set(anchors)
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= set(anchors)


def test_the_page_says_of_every_guard_whether_it_can_be_forced() -> None:
    section = PAGE.split("\n## What guards a device", 1)[1].split("\n## ", 1)[0]
    rows = dict(re.findall(r"^\| <a [^>]+></a>`([a-z_]+)` \| ([a-z]+) \|", section, re.MULTILINE))
    assert rows == {
        guard.code: "warning" if not guard.refuses else "yes" if guard.forcible else "no" for guard in GUARDS
    }


@pytest.mark.parametrize(
    ("role", "variable"),
    [
        ("vfio_host", "__vfio_host_no_objection"),
        ("vfio_host", "__vfio_host_vfs_force"),
        ("vfio_guest", "__vfio_guest_no_objection"),
    ],
)
def test_the_codes_that_roles_go_by_exist(role: str, variable: str) -> None:
    values = yaml.safe_load((ROOT / "roles" / role / "vars/main.yml").read_text(encoding="utf-8"))
    named = set(re.findall(r"'([a-z_]+)'", values[variable]))
    assert named
    assert named <= {one.code for one in all_codes(ROOT)}
