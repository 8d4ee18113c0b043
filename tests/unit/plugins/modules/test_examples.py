# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the examples of the modules read of a result is what the modules document to return."""

from __future__ import annotations

import importlib
import re
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.query import MODULES, documented


def keys_of(documentation: dict[str, Any]) -> set[str]:
    """The names of all fields, at any depth."""
    found = set(documentation)
    for entry in documentation.values():
        found |= keys_of(entry.get("contains", {}))
    return found


@pytest.mark.parametrize("name", MODULES)
def test_examples_read_documented_fields(name: str) -> None:
    module = importlib.import_module(f"ansible_collections.kvm.passthrough.plugins.modules.{name}")
    registered = set(re.findall(r"register: (\w+)", module.EXAMPLES))
    read = {key for variable in registered for key in re.findall(rf"\b{variable}\.(\w+)", module.EXAMPLES)}
    assert read <= {*documented(name), "changed", "failed"}
    assert bool(read) == bool(registered)
    filtered = re.findall(r"(?:(?:select|reject)attr\(|attribute=)'(\w+)'", module.EXAMPLES)
    assert set(filtered) <= keys_of(documented(name))
