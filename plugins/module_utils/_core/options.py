# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules for options that several modules have."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from .errors import PassthroughError, Problem


def refuse_options_beside_revert(parameters: Mapping[str, Any], allowed: Collection[str]) -> None:
    """Refuse options that say what is wanted, in a run that takes back everything.

    :param allowed: the options that have a meaning all the same, and those whose default says nothing
    :raises PassthroughError: ``revert_excludes_options``
    """
    given = sorted(name for name, value in parameters.items() if name not in allowed and value not in (None, []))
    if given:
        raise PassthroughError(
            "revert_excludes_options",
            f"revert takes back all that this module did on the host, so that {', '.join(given)} "
            f"{'has' if len(given) == 1 else 'have'} no meaning beside it.",
            "Leave them out, or revert in a task of its own before this one.",
            field="revert",
            value=True,
            options=given,
        )


def time_limit_problems(seconds: int) -> Iterator[Problem]:
    """What is wrong with the option ``timeout``: one problem (``timeout_invalid``), or none."""
    if seconds <= 0:
        yield Problem(
            "timeout_invalid",
            f"timeout: {seconds} is no time limit; it has to be 1 second or more.",
            details={"field": "timeout", "value": seconds},
        )
