# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module promises, held against what it does."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_info import argument_spec
from ansible_collections.kvm.passthrough.plugins.modules.hostdev_info import EXAMPLES
from ansible_collections.kvm.passthrough.tests.unit.support.domains import DOMAIN, hostdev_xml
from ansible_collections.kvm.passthrough.tests.unit.support.query import documented_options, documented_spec, run_module
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


def test_every_option_is_documented_as_it_is() -> None:
    assert documented_spec(documented_options("hostdev_info")) == argument_spec()


def test_examples_have_options_that_are_there() -> None:
    tasks = [task for task in yaml.safe_load(EXAMPLES) if "kvm.passthrough.hostdev_info" in task]
    assert len(tasks) == 2
    assert all(set(task["kvm.passthrough.hostdev_info"] or {}) <= set(argument_spec()) for task in tasks)


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_run_over_files(tmp_path: Path, check_mode: bool) -> None:
    pytest.importorskip("lxml.etree")
    tree = SysfsTree(tmp_path)
    text = DOMAIN.format(devices=hostdev_xml("0000:01:00.0") * 2, boot="", arch="x86_64")
    tree.write("/domains/a.xml", text)
    found = run_module("hostdev_info", tree, check=check_mode, path=["/domains"])
    assert found["changed"] is False
    assert {problem["code"] for problem in found["problems"]} == {"duplicate_device"}
    assert run_module("hostdev_info", tree, check=check_mode, path=["/gone"])["code"] == "path_not_found"
