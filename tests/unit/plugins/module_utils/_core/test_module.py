# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What Ansible gets from a module: a small module script is run as Ansible runs one, arguments on standard input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.common.parameters import PASS_VARS

from ansible_collections.kvm.passthrough.plugins.module_utils._core import module as glue
from ansible_collections.kvm.passthrough.tests.unit.support.places import COLLECTIONS

TOLD_ABOUT_TRACEBACKS = "tracebacks_for" in PASS_VARS
"""Whether modules drop tracebacks that nobody wants, as since ansible-core 2.19. Before, the controller hides them."""
TRACEBACKS: dict[str, Any] = {"_ansible_tracebacks_for": ["error"]} if TOLD_ABOUT_TRACEBACKS else {}
"""What ANSIBLE_DISPLAY_TRACEBACK=error makes of the arguments."""

MODULE = """
import os, sys
from ansible.module_utils import basic
from ansible_collections.kvm.passthrough.plugins.module_utils._core import module as glue
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError, Problem
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import FilesProcedure, Step, StepsProcedure, own

basic._ANSIBLE_PROFILE = "legacy"  # Ansible's own wrapper sets it beside the arguments
module = basic.AnsibleModule(
    {"act": {}, "root": {}, "user": {"type": "int"}, "content": {"default": "new"}}, supports_check_mode=True
)
act, root = module.params["act"], module.params["root"]
if module.params["user"] is not None:
    os.geteuid = lambda: module.params["user"]  # a real nobody cannot always read the Python this runs under
else:
    glue._require_root = lambda name: None  # these cases are about the rest, and anybody may run the tests
glue.Host = lambda: Host(root)

def build(host):
    if act == "bad":
        raise PassthroughError.of([
            Problem("bad_address", "01:20.0 is no PCI address.", "Devices end at 1f.", {"device": "01:20.0"}),
            Problem("other", "Another."),
        ])
    if act == "defect":
        return {}["nothing"]
    if act == "broken":
        return StepsProcedure(host, [Step("a"), Step("b", fails=ValueError("odd"))])
    return FilesProcedure(host, {"/file": own(module.params["content"].encode("latin-1"))})

if act == "query":
    glue.run_query(module, lambda host: {"names": host.list_dir("/"), "odd": "caf\\udce9"})
elif act == "python":
    glue.require_python(module, "json, no_such_binding", "python3-no-such-binding")
else:
    glue.run_procedure(module, build, name="tiny")
"""


def _module(tmp_path: Path, act: str, *, check: bool = False, **more: Any) -> dict[str, Any]:
    """The result of one run, which is one JSON object on standard output and nothing else anywhere."""
    (tmp_path / "tiny.py").write_text(MODULE)
    (tmp_path / "root").mkdir(exist_ok=True)
    arguments = {
        "act": act,
        "root": str(tmp_path / "root"),
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        "_ansible_remote_tmp": str(tmp_path),
        **more,
    }
    done = subprocess.run(
        [sys.executable, str(tmp_path / "tiny.py")],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([COLLECTIONS, *filter(None, sys.path)])},
    )
    assert done.stderr == "" or act == "python"  # where the interpreters that are tried complain
    result = json.loads(done.stdout)
    assert isinstance(result, dict)
    assert done.returncode == (1 if result.get("failed") else 0)
    return result


def test_bad_input_is_a_failure_with_all_problems_and_no_traceback(tmp_path: Path) -> None:
    result = _module(tmp_path, "bad")
    assert result["failed"] is True
    assert (result["code"], result["device"]) == ("bad_address", "01:20.0")
    assert [problem["code"] for problem in result["problems"]] == ["bad_address", "other"]
    assert result["msg"].startswith("2 problems:\n1. [bad_address] 01:20.0 is no PCI address. Devices end at 1f.\n2.")
    assert "Traceback" not in json.dumps(result)
    assert "exception" not in result


def test_a_defect_says_that_it_is_one(tmp_path: Path) -> None:
    assert ("exception" in _module(tmp_path, "defect")) is not TOLD_ABOUT_TRACEBACKS
    result = _module(tmp_path, "defect", **TRACEBACKS)
    assert (result["failed"], result["code"]) == (True, "internal_error")
    assert "unexpected KeyError: 'nothing'" in result["msg"]
    assert "please report it" in result["msg"]
    assert "Traceback" in str(result["exception"])
    assert "in build" in str(result["exception"])


def test_a_defect_in_an_action_says_also_what_was_undone(tmp_path: Path) -> None:
    result = _module(tmp_path, "broken", **TRACEBACKS)
    assert (result["code"], result["undone"], result["failed_action"]) == ("internal_error", ["step a"], "step b")
    assert "ValueError: odd" in result["msg"]
    assert "ValueError: odd" in str(result["exception"])
    assert (tmp_path / "root/log").read_text() == "a\nundo a\n"


def test_check_run_check_run(tmp_path: Path) -> None:
    predicted = _module(tmp_path, "write", check=True)
    assert os.listdir(tmp_path / "root") == []
    done = _module(tmp_path, "write")
    assert done == predicted
    assert (done["changed"], done["diff"][0]["after"]) == (True, "new")
    assert (tmp_path / "root/file").read_text() == "new"
    for check in (True, False):
        assert _module(tmp_path, "write", check=check)["changed"] is False


def test_content_that_is_no_text_does_not_disturb_ansible(tmp_path: Path) -> None:
    result = _module(tmp_path, "write", content="caf\xe9")
    assert result["diff"][0]["after"] == "caf\N{REPLACEMENT CHARACTER}"
    assert (tmp_path / "root/file").read_bytes() == b"caf\xe9"


def test_a_query_changes_nothing_and_needs_no_rights(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/a").touch()
    result = _module(tmp_path, "query")
    assert (result["changed"], result["names"], result["odd"]) == (False, ["a"], "caf?")


def test_without_root_it_says_what_to_set(tmp_path: Path) -> None:
    nobody = 65534
    result = _module(tmp_path, "write", user=nobody)
    assert (result["failed"], result["code"]) == (True, "not_root")
    assert f"tiny has to run as root, but runs as user id {nobody}." in result["msg"]
    assert "become: true" in result["msg"]
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.skipif(not os.access("/usr/bin/python3", os.X_OK), reason="no system Python to look at")
def test_a_missing_binding_says_what_to_install(tmp_path: Path) -> None:
    result = _module(tmp_path, "python")
    assert (result["failed"], result["code"], result["missing"]) == (True, "python_module_missing", ["no_such_binding"])
    assert "The Python module no_such_binding cannot be imported by" in result["msg"]
    assert "/usr/bin/python3" in result["msg"]
    assert "Install python3-no-such-binding on this host." in result["msg"]


@pytest.mark.parametrize(
    ("value", "printable"),
    [
        ("a", "a"),
        ("caf\udce9", "caf?"),
        ({"k\udce9": ["\udcff", ("x",), 1, None, True]}, {"k?": ["?", ["x"], 1, None, True]}),
    ],
)
def test_results_can_be_printed(value: object, printable: object) -> None:
    assert glue._printable(value) == printable
