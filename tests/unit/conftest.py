# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``ansible_collections.kvm.passthrough`` importable, whoever runs pytest and from where."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# Tests share two slow cores with others on CI; how long one example takes says nothing about what it tests.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

COLLECTION = "ansible_collections.kvm.passthrough"
ROOT = Path(__file__).resolve().parents[2]

_links: list[tempfile.TemporaryDirectory[str]] = []  # kept until pytest ends


def _is_importable() -> bool:
    """``make unit`` and ``ansible-test units`` see to it themselves."""
    try:
        spec = importlib.util.find_spec(COLLECTION)
    except ModuleNotFoundError:
        return False
    return spec is not None and any(Path(place).resolve() == ROOT for place in spec.submodule_search_locations or [])


if not _is_importable():
    _links.append(tempfile.TemporaryDirectory(prefix="kvm-passthrough-"))
    _link = Path(_links[0].name, *COLLECTION.split("."))
    _link.parent.mkdir(parents=True)
    _link.symlink_to(ROOT)
    sys.path.insert(0, _links[0].name)
    importlib.invalidate_caches()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How often runs were killed by the harness of support/kill.py, and to what end."""
    moments: Counter[str] = Counter()
    bad = 0
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == "killed":  # COUNTED of support/kill.py, which cannot be imported from here
                        moments[value[0]] += value[1]
                        bad += value[2]
    if moments:
        terminalreporter.section("runs of kernel_parameters that were killed, or failed, at every moment in turn")
        for kind, number in sorted(moments.items()):
            terminalreporter.line(f"{kind}: {number} moments")
        terminalreporter.line(f"together: {moments.total()} moments, {bad} bad outcomes")
