# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What scenarios there are, and which packages they want."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DIRECTORY = Path(__file__).resolve().parents[2] / "extensions" / "molecule"
LAB = "lab"
"""The scenario on an emulated machine; all others are in containers."""


def names() -> list[str]:
    """Every scenario."""
    return sorted(path.parent.name for path in DIRECTORY.glob("*/molecule.yml"))


def in_containers() -> list[str]:
    """Every scenario but the one of the lab."""
    return [name for name in names() if name != LAB]


def packages() -> list[str]:
    """What the containers of all scenarios need, so that one image does for them all."""
    wanted: set[str] = set()
    for name in in_containers():
        scenario: dict[str, Any] = yaml.safe_load((DIRECTORY / name / "molecule.yml").read_text(encoding="utf-8"))
        wanted.update(scenario["provisioner"]["inventory"]["group_vars"]["all"]["packages"])
    return sorted(wanted)
