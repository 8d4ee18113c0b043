# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT

OWN_OPTIONS = {"-n", "auto", "--durations", "20", "--durations-min", "10", "--full"}
"""Those of the targets, beside ARGS."""


@pytest.mark.parametrize("target", ["unit", "fleet", "browser", "lab", "lab-full"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("", ["{folder}"]),
        ("-k nodedev", ["{folder}", "-k", "nodedev"]),
        ("{folder}/test_one.py -x", ["{folder}/test_one.py", "-x"]),
    ],
)
def test_a_path_in_place_of_all_tests_of_a_target(target: str, arguments: str, expected: list[str]) -> None:
    folder = f"tests/{target.removesuffix('-full')}"
    # A make that runs these tests would tell its own options and variables to this one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    shown = subprocess.run(
        ["make", "-n", target, f"ARGS={arguments.format(folder=folder)}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    words = shown.stdout.split("pytest ", 1)[1].split()
    asked = [word for word in words if word not in OWN_OPTIONS]
    assert asked == [word.format(folder=folder) for word in expected]
