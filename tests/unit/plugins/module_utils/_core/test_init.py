# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is said by a Python that is too old."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.places import COLLECTIONS

PROGRAM = """
import sys
sys.path.insert(0, {collections!r})
sys.version_info = {version!r}
import ansible_collections.kvm.passthrough.plugins.module_utils._core
print("goes on")
"""


@pytest.mark.parametrize("version", [(3, 8, 20), (3, 6, 15), (2, 7, 18)])
def test_an_old_python_is_told_in_the_way_of_a_module(version: tuple[int, ...]) -> None:
    done = _start(version)
    assert (done.returncode, done.stderr) == (1, "")
    result = json.loads(done.stdout)
    assert (result["failed"], result["code"]) == (True, "python_too_old")
    assert "3.9 or newer" in result["msg"]
    assert ".".join(map(str, version)) in result["msg"]
    assert "ansible_python_interpreter" in result["msg"]


def test_the_oldest_one_that_will_do_goes_on() -> None:
    assert _start((3, 9, 0)).stdout == "goes on\n"


def _start(version: tuple[int, ...]) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(collections=COLLECTIONS, version=version)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
