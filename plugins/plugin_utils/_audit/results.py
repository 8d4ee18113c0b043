# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a task registered, read with suspicion: it may have been skipped, have failed, or not have reached its host."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

ANSWERED = "answered"
FAILED = "failed"
UNREACHABLE = "unreachable"
SKIPPED = "skipped"


@dataclass(frozen=True)
class Answer:
    """The outcome of one task on one host."""

    outcome: str
    """:data:`ANSWERED`, :data:`FAILED`, :data:`UNREACHABLE`, or :data:`SKIPPED` (never asked, too)."""
    result: Mapping[str, Any]
    """The module's result; empty unless it answered or failed."""
    about: str | None = None
    """The name of what it was asked about, of a task that asks in a loop."""

    @property
    def answered(self) -> bool:
        """Whether there is a result to go by."""
        return self.outcome == ANSWERED

    @property
    def code(self) -> str | None:
        """The code of a failure, when it has one."""
        return text_of(self.result.get("code"))

    @property
    def reason(self) -> str:
        """Why there is no answer, in words.

        A module that does not even start leaves what its interpreter printed beside a message that says nothing. Of a
        traceback it is the last line that tells, of everything else the first.
        """
        message = text_of(self.result.get("msg")) or "no reason was given"
        for name in ("module_stderr", "module_stdout"):
            printed = text_of(self.result.get(name)) or ""
            lines = [line.strip() for line in printed.splitlines() if line.strip()]
            if lines:
                telling = lines[-1 if "Traceback" in printed else 0]
                return message if telling in message else f"{message} ({telling})"
        return message


def read_answer(registered: Any, field: str) -> Answer:
    """What a task registered, or None where it did not run.

    Roles tell Ansible that a failure is none (``failed_when: false``), and Ansible then says so in the result. So it is
    not ``failed`` that tells, but whether there is what the module always returns.

    :param field: a field of every result of the module that is no failure
    """
    if not isinstance(registered, Mapping):
        return Answer(SKIPPED, {})
    if registered.get("unreachable"):
        return Answer(UNREACHABLE, registered)
    if field in registered and not registered.get("failed"):
        return Answer(ANSWERED, registered)
    if registered.get("skipped") or not registered:
        return Answer(SKIPPED, {})
    return Answer(FAILED, registered)


def read_answers(registered: Any, field: str) -> list[Answer]:
    """The same of a task that asks in a loop over mappings with a name: what it registered for each of them."""
    if not isinstance(registered, Mapping) or "results" not in registered:
        return [read_answer(registered, field)]
    return [
        replace(read_answer(one, field), about=text_of(mapping(one.get("item")).get("name")))
        for one in mappings(registered["results"])
    ]


def read_records(registered: Any) -> list[Mapping[str, Any]] | None:
    """The records in ``state.json`` as ``ansible.builtin.slurp`` returns it; None where it cannot be read.

    Where the file is not there, nothing was ever changed, and the list is empty.
    """
    answer = read_answer(registered, "content")
    if answer.outcome == FAILED and answer.reason.startswith("file not found"):  # slurp's words
        return []
    if not answer.answered:
        return None
    try:
        found = json.loads(base64.b64decode(str(answer.result["content"])))["records"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    return mappings(found)


# -- values of any shape ------------------------------------------------------------------------------------


def text_of(value: Any) -> str | None:
    """A text, a number as text, or None for everything else. What cannot be encoded is replaced."""
    if value is None or isinstance(value, (Mapping, list, tuple, bool)):
        return None
    return str(value).encode("utf-8", "replace").decode("utf-8")


def flag(value: Any) -> bool | None:
    """A truth value, or None where it is not known."""
    return value if isinstance(value, bool) else None


def integer(value: Any) -> int | None:
    """A number, or None."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None


def texts(value: Any) -> list[str]:
    """The texts of a list."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return []
    return [text for text in map(text_of, value) if text is not None]


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, empty where there is none."""
    return value if isinstance(value, Mapping) else {}


def mappings(value: Any) -> list[Mapping[str, Any]]:
    """The mappings of a list."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        return []
    return [item for item in value if isinstance(item, Mapping)]
