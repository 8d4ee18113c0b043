# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table of what was seen under each ansible-core."""

from __future__ import annotations

import re

import pytest
import yaml

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT
from ansible_collections.kvm.passthrough.tools import versions
from ansible_collections.kvm.passthrough.tools.versions import Row, table


def test_the_table_has_what_was_seen_and_what_was_skipped() -> None:
    rows = [Row("2.18.6", "3.11", "passed (80 s)", "FAILED (9 s)"), Row("2.22", skipped="no python3.13 on PATH")]
    assert table(rows).splitlines() == [
        "ansible-core  Python  sanity         units",
        "2.18.6        3.11    passed (80 s)  FAILED (9 s)",
        "2.22          SKIPPED: no python3.13 on PATH",
    ]


@pytest.mark.parametrize(
    ("row", "failed"),
    [
        (Row("2.18", "3.11", "passed (1 s)", "passed (1 s)"), False),
        (Row("2.18", "3.11", "FAILED (1 s)", "passed (1 s)"), True),
        (Row("2.18", "3.11", "passed (1 s)", "FAILED (1 s)"), True),
        (Row("2.18", skipped="no Python"), False),
    ],
)
def test_what_fails(row: Row, failed: bool) -> None:
    assert row.failed is failed


def test_a_series_is_left_out_where_it_does_not_run_or_its_python_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versions, "CORES", {"1.1": ("3.1",), "1.2": ("3.1", "3.2"), "1.3": ("3.2", "3.3")})
    monkeypatch.setattr(versions, "interpreters", lambda: {"3.1": "/one", "3.2": "/two"})
    monkeypatch.setattr(versions, "try_series", lambda core, python, interpreter: Row(core, python, interpreter, "-"))

    def seen(*words: str) -> list[list[str]]:
        monkeypatch.setattr("sys.argv", ["versions", *words])
        versions.main()
        return [line.split(maxsplit=2) for line in capsys.readouterr().out.strip().splitlines()[1:]]

    assert seen() == [["1.1", "3.1", "/one    -"], ["1.2", "3.1", "/one    -"], ["1.3", "3.2", "/two    -"]]
    assert seen("--python", "3.2") == [
        *(["1.2", "3.2", "/two    -"], ["1.3", "3.2", "/two    -"]),
        ["1.1", "SKIPPED:", "it does not run on Python 3.2"],
    ]
    assert seen("--python", "3.3", "--core", "1.3") == [
        ["1.3", "SKIPPED:", "no python3.3 with its venv module on PATH"]
    ]


def test_the_first_series_is_the_one_that_the_collection_asks_for() -> None:
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))
    (oldest,) = re.findall(r">=(\d+\.\d+)\.0", runtime["requires_ansible"])
    assert next(iter(versions.CORES)) == oldest


def test_the_folders_of_unit_tests_are_there() -> None:
    assert [name for name in versions.UNITS if not (ROOT / name).is_dir()] == []


def test_the_workflow_has_every_series() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["versions"]["strategy"]["matrix"]["include"]
    assert matrix == [{"core": core, "python": pythons[0]} for core, pythons in versions.CORES.items()]
