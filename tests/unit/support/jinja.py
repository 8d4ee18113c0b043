# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of this collection in expressions: by Jinja alone, which is fast, and by Ansible itself."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from jinja2.nativetypes import NativeEnvironment

from ansible_collections.kvm.passthrough.plugins import filter as filters

from .places import COLLECTIONS, PROGRAMS


def rendered(expression: str, **variables: Any) -> Any:
    """The value of an expression, without the braces; it keeps its type."""
    environment = NativeEnvironment()
    for module in pkgutil.iter_modules(filters.__path__):
        plugin = importlib.import_module(f"{filters.__name__}.{module.name}")
        for name, function in plugin.FilterModule().filters().items():
            environment.filters[f"kvm.passthrough.{name}"] = function
    return environment.compile_expression(expression)(**variables)


def rendered_by_ansible(expressions: dict[str, str], folder: Path, **variables: Any) -> tuple[int, dict[str, Any], str]:
    """What ``ansible-playbook`` makes of named expressions: exit status, the values, everything it printed."""
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars": variables,
        "tasks": [
            {
                "ansible.builtin.copy": {
                    "content": "{{ {" + ", ".join(f"'{k}': {v}" for k, v in expressions.items()) + "} | to_json }}",
                    "dest": str(folder / "values.json"),
                    "mode": "0600",
                }
            }
        ],
    }
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps([play]), encoding="utf-8")
    done = subprocess.run(
        [PROGRAMS / "ansible-playbook", "-i", "localhost,", "-c", "local", str(playbook)],
        env={
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_LOCALHOST_WARNING": "false",
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    result = folder / "values.json"
    values = json.loads(result.read_text(encoding="utf-8")) if result.exists() else {}
    return done.returncode, values, done.stdout + done.stderr
