# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", ["tests/unit"]),
        ("-k nodedev", ["tests/unit", "-k", "nodedev"]),
        ("tests/unit/plugins -x", ["tests/unit/plugins", "-x"]),
    ],
)
def test_a_path_in_place_of_all_unit_tests(arguments: str, expected: list[str]) -> None:
    # A make that runs these tests would tell its own options and variables to this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(
        ["make", "-n", "unit", f"ARGS={arguments}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split("pytest -n auto", 1)[1].split() == expected
