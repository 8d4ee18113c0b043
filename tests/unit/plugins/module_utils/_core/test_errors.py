# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts and results of errors."""

from __future__ import annotations

import json

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError, Problem


def test_one_problem_reads_as_one_sentence_with_its_remedy() -> None:
    error = PassthroughError("no_such_device", "0000:01:20.0 is not there.", "List devices with lspci.", device="x")
    assert str(error) == "0000:01:20.0 is not there. List devices with lspci."
    assert error.code == "no_such_device"
    assert error.as_result() == {
        "msg": "0000:01:20.0 is not there. List devices with lspci.",
        "code": "no_such_device",
        "remedy": "List devices with lspci.",
        "device": "x",
        "problems": [
            {
                "code": "no_such_device",
                "message": "0000:01:20.0 is not there.",
                "remedy": "List devices with lspci.",
                "device": "x",
            }
        ],
    }


def test_without_remedy_there_is_no_such_field_and_no_trailing_space() -> None:
    error = PassthroughError("a", "Something.")
    assert str(error) == "Something."
    assert "remedy" not in error.as_result()


def test_several_problems_are_all_told_and_numbered() -> None:
    error = PassthroughError.of([Problem("a", "One.", "Do this.", {"field": "x"}), Problem("b", "Two.")])
    assert str(error) == "2 problems:\n1. [a] One. Do this.\n2. [b] Two."
    result = error.as_result()
    assert (result["code"], result["field"]) == ("a", "x")
    assert [problem["code"] for problem in result["problems"]] == ["a", "b"]
    assert json.loads(json.dumps(result)) == result


def test_an_error_needs_a_problem() -> None:
    with pytest.raises(ValueError, match="at least one problem"):
        PassthroughError.of([])


def test_extras_stand_beside_the_problem_and_never_replace_the_message() -> None:
    error = PassthroughError("a", "One.")
    error.extra = {"undone": ["x"], "msg": "no"}
    assert error.as_result()["undone"] == ["x"]
    assert error.as_result()["msg"] == "One."


@pytest.mark.parametrize("name", ["code", "message", "remedy"])
def test_details_with_a_taken_name_neither_fail_nor_replace_it(name: str) -> None:
    problem = Problem("a", "One.", "Do.", {name: "other"})
    assert problem.as_result() == {"code": "a", "message": "One.", "remedy": "Do."}
    assert PassthroughError.of([problem]).as_result()["problems"] == [problem.as_result()]
