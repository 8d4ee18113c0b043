# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The codes that docs/troubleshooting.md explains are those that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.guards.registry import GUARDS

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
SOURCES = {
    path: path.read_text(encoding="utf-8")
    for folder in ("module_utils", "plugin_utils")
    for path in (ROOT / "plugins" / folder).rglob("*.py")
}


def explained(heading: str) -> dict[str, list[str]]:
    """The codes in the first column of the table below a heading, each with the other columns of its line."""
    section = TEXT.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:3] == "| `"]
    return {code: row[1:] for row in rows for code in re.findall(r"`([a-z_0-9]+)`", row[0])}


HEADINGS = [line[3:] for line in TEXT.splitlines() if line.startswith("## ")]


@pytest.mark.parametrize("heading", HEADINGS)
def test_every_explained_code_exists(heading: str) -> None:
    codes = explained(heading)
    assert codes
    assert [code for code in codes if not any(f'"{code}"' in source for source in SOURCES.values())] == []


def test_every_guard_is_explained_with_whether_it_can_be_forced() -> None:
    rows = explained("What guards a device")
    assert {guard.code: rows[guard.code][0] for guard in GUARDS} == {
        guard.code: "warning" if not guard.refuses else "yes" if guard.forcible else "no" for guard in GUARDS
    }


def test_every_blocker_is_explained_with_its_severity() -> None:
    found: dict[str, str] = {}
    for path, source in SOURCES.items():
        if "_iommu" in path.parts:
            found.update(re.findall(r'Blocker\(\s*"([a-z0-9_]+)",\s*"([a-z]+)"', source))
    rows = explained("The IOMMU")
    assert len(found) > 10
    assert {code: row[0] for code, row in rows.items()} == found
