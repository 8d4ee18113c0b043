# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a read-only module as Ansible does, on a file tree, and hold its result against its documentation."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ansible_collections.kvm.passthrough.plugins import modules

from .places import COLLECTIONS
from .sysfs import SysfsTree

COLLECTION = "kvm.passthrough"
MODULES = tuple(sorted(module.name for module in pkgutil.iter_modules(modules.__path__)))

SCRIPT = """
import importlib, sys
import json
collections, root, name, answers = sys.argv[1:]
answers = json.loads(answers)
del sys.argv[1:]  # an AnsibleModule takes them for its own
sys.path.insert(0, collections)
from ansible.module_utils import basic
from ansible_collections.kvm.passthrough.plugins.module_utils._core import module as glue
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host

basic._ANSIBLE_PROFILE = "legacy"  # Ansible's own wrapper sets it beside the arguments

def runner(argv, timeout, stdin):
    if argv[0] not in answers:
        raise FileNotFoundError(argv[0])
    return Completed(tuple(argv), 0, answers[argv[0]], "")

glue.Host = lambda: Host(root, runner=runner)
importlib.import_module("ansible_collections.kvm.passthrough.plugins.modules." + name).main()
"""


def run_module(
    name: str, machine: SysfsTree, check: bool = False, answers: Mapping[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """The result of the module ``name`` on ``machine``, without addresses and routes.

    :param answers: what further programs print, by the name they are called by

    It has to be one JSON object on standard output, and nothing else anywhere.
    """
    root = str(machine.root)
    arguments = {**options, "_ansible_check_mode": check, "_ansible_remote_tmp": root}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, COLLECTIONS, root, name, json.dumps({"ip": "[]", **(answers or {})})],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not done.stderr, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    result.pop("invocation", None)
    assert (done.returncode != 0) == result.get("failed", False)
    return result


def documented(name: str) -> dict[str, Any]:
    """The RETURN documentation of a module."""
    found: dict[str, Any] = yaml.safe_load(_module(name).RETURN)
    return found


def _module(name: str) -> Any:
    return importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.modules.{name}")


def undocumented(result: dict[str, Any], documentation: dict[str, Any], where: str = "") -> list[str]:
    """The fields of a result that its documentation does not have, or has with another type."""
    names = {str: "str", int: "int", bool: "bool", list: "list", dict: "dict"}
    problems = []
    for name, value in result.items():
        entry = documentation.get(name)
        if entry is None:
            problems.append(f"{where}{name}")
            continue
        if value is not None and entry["type"] not in (names[type(value)], "raw"):
            problems.append(f"{where}{name}: {type(value).__name__}")
        if "contains" in entry:
            for item in value if isinstance(value, list) else [value] if isinstance(value, dict) else []:
                problems += undocumented(item, entry["contains"], f"{where}{name}.")
    return problems


def unreturned(documentation: dict[str, Any], results: Iterable[dict[str, Any]], where: str = "") -> list[str]:
    """The documented fields, at any depth, that none of some results has."""
    found = list(results)
    problems = []
    for name, entry in documentation.items():
        values = [result[name] for result in found if name in result]
        if not values:
            problems.append(f"{where}{name}")
        elif "contains" in entry:
            items = [item for value in values for item in (value if isinstance(value, list) else [value])]
            problems += unreturned(entry["contains"], [item for item in items if item is not None], f"{where}{name}.")
    return problems


def documented_options(name: str) -> dict[str, Any]:
    """The options in the documentation of a module, those included that it has from fragments of this collection."""
    documentation = yaml.safe_load(_module(name).DOCUMENTATION)
    options: dict[str, Any] = {}
    for fragment in documentation["extends_documentation_fragment"]:
        file, _dot, variable = fragment.removeprefix(f"{COLLECTION}.").partition(".")
        plugin = importlib.import_module(f"ansible_collections.{COLLECTION}.plugins.doc_fragments.{file}")
        text = getattr(plugin.ModuleDocFragment, variable.upper() or "DOCUMENTATION")
        options.update(yaml.safe_load(text)["options"])
    for option, own in documentation["options"].items():
        options[option] = {**options.get(option, {}), **own}
    return options


def documented_spec(options: dict[str, Any]) -> dict[str, Any]:
    """The argument spec that the documentation of a module's options describes."""
    spec = {}
    for name, option in options.items():
        spec[name] = {key: value for key, value in option.items() if key not in ("description", "suboptions")}
        if "suboptions" in option:
            spec[name]["options"] = documented_spec(option["suboptions"])
    return spec
