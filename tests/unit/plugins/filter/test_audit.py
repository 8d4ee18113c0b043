# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters audit_report and audit_page, as Ansible calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.passthrough.plugins.filter import audit_page, audit_report
from ansible_collections.kvm.passthrough.tests.unit.support import fleet
from ansible_collections.kvm.passthrough.tests.unit.support.jinja import rendered, rendered_by_ansible

TIME = "2026-11-26T03:30:00Z"


@pytest.mark.parametrize("module", [audit_page, audit_report])
def test_the_documentation_is_about_this_filter(module: Any) -> None:
    documentation, [name] = yaml.safe_load(module.DOCUMENTATION), module.FilterModule().filters()
    assert documentation["name"] == name
    assert f"kvm.passthrough.{name}" in module.EXAMPLES
    assert yaml.safe_load(module.EXAMPLES)


def test_in_expressions() -> None:
    results = {"kvm1": {"iommu_info": fleet.UNREACHABLE}}
    report = rendered("results | kvm.passthrough.audit_report(time)", results=results, time=TIME)
    assert (report["hosts"][0]["status"], report["generated"]) == ("unreachable", TIME)
    assert "No route to host" in rendered("report | kvm.passthrough.audit_page", report=report)


def test_by_ansible_with_names_that_look_like_templates(tmp_path: Path) -> None:
    name = "{{ undefined_variable }}<b>"
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"unreachable": True, "msg": name}), encoding="utf-8")
    results = "{'kvm1': {'iommu_info': lookup('ansible.builtin.file', answer) | from_json}}"
    report = f"{results} | kvm.passthrough.audit_report(time)"
    expressions = {"report": report, "page": f"{report} | kvm.passthrough.audit_page"}
    status, values, printed = rendered_by_ansible(expressions, tmp_path, answer=str(answer), time=TIME)
    assert status == 0, printed
    assert values["report"]["hosts"][0]["reason"] == name
    assert "&#123;&#123; undefined_variable &#125;&#125;&lt;b&gt;" in values["page"]


@pytest.mark.parametrize(
    ("call", "fragment"),
    [
        (lambda: audit_report.audit_report("text", TIME), "has to be a mapping of host names"),  # type: ignore[arg-type]
        (lambda: audit_page.audit_page("text"), "this is a str"),  # type: ignore[arg-type]
        (lambda: audit_page.audit_page({"schema": "x"}), "Make the report with this version of the collection"),
    ],
)
def test_what_is_no_report(call: Any, fragment: str) -> None:
    with pytest.raises(AnsibleFilterError, match=fragment):
        call()
