# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error type of this collection, and the problems it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, for a person and for a program.

    ``code`` is stable and machine-readable (``snake_case``). ``message`` says what is wrong, with which
    value, and why. ``remedy`` says what to do; it may be empty where the message already does.
    ``details`` holds further fields for the result (``device``, ``field``, ``value``, …), JSON values only.
    """

    code: str
    message: str
    remedy: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Message and remedy as one line of prose."""
        return f"{self.message} {self.remedy}" if self.remedy else self.message

    def as_result(self) -> dict[str, Any]:
        """The problem as a mapping for a module's result; ``details`` are merged in, and replace none of its fields."""
        result: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.remedy:
            result["remedy"] = self.remedy
        return {**result, **self.details, **result}


class PassthroughError(Exception):
    """What a module reports instead of doing its work, or after undoing it."""

    def __init__(self, code: str, message: str, remedy: str = "", **details: Any) -> None:
        """Make an error of one problem; ``details`` are JSON values that go into the result beside it."""
        self.problems: list[Problem] = [Problem(code, message, remedy, details)]
        self.extra: dict[str, Any] = {}
        super().__init__(self.problems[0].text)

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> PassthroughError:
        """Make one error of several problems, all of which are reported.

        :raises ValueError: when there is no problem at all
        """
        found = list(problems)
        if not found:
            raise ValueError("an error needs at least one problem")
        error = cls(found[0].code, found[0].message, found[0].remedy)
        error.problems = found
        return error

    def about(self, what: str) -> PassthroughError:
        """The same problems, each of which says what it is about (``domain web01``)."""
        return PassthroughError.of(replace(problem, message=f"{what}: {problem.message}") for problem in self.problems)

    @property
    def code(self) -> str:
        """The code of the first problem."""
        return self.problems[0].code

    def __str__(self) -> str:
        if len(self.problems) == 1:
            return self.problems[0].text
        lines = [f"{len(self.problems)} problems:"]
        lines += [f"{number}. [{problem.code}] {problem.text}" for number, problem in enumerate(self.problems, 1)]
        return "\n".join(lines)

    def as_result(self) -> dict[str, Any]:
        """The keyword arguments of ``fail_json``: ``msg``, the first problem's fields, ``problems``, extras."""
        first = self.problems[0].as_result()
        first.pop("message")
        return {**first, **self.extra, "msg": str(self), "problems": [problem.as_result() for problem in self.problems]}
