# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules return is described in the same words. (Options share them by fragments, which RETURN cannot.)"""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.query import MODULES, documented

CHANGING = [name for name in MODULES if not name.endswith("_info")]
# What every module that changes something returns, from one place (_core/runner.py).
COMMON = ("actions", "problems", "failed_action", "undone", "not_undone")
# Fields of these that mean the same in all modules; what is before and after is theirs.
FIELDS = ("code", "message", "remedy", "device", "forcible", "description")


@pytest.mark.parametrize("name", CHANGING)
def test_what_every_change_returns_is_documented(name: str) -> None:
    assert [field for field in COMMON if field not in documented(name)] == []


@pytest.mark.parametrize("field", [*COMMON, "kept"])
def test_a_returned_value_of_several_modules_has_one_description(field: str) -> None:
    found = {name: documented(name)[field] for name in CHANGING if field in documented(name)}
    assert len(found) > 1
    assert len({str({key: entry[key] for key in ("description", "returned", "type")}) for entry in found.values()}) == 1
    inner: dict[str, dict[str, Any]] = {}
    for name, entry in found.items():
        for key, value in entry.get("contains", {}).items():
            if key in FIELDS:
                inner.setdefault(key, {})[name] = value["description"]
    assert {key: texts for key, texts in inner.items() if len(set(map(str, texts.values()))) > 1} == {}
