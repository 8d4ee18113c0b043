# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What taking back leaves alone, and the options that have no meaning beside it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import PassthroughError


@dataclass(frozen=True)
class Kept:
    """What is not taken back, because somebody else changed it after us."""

    target: str
    """What it is, in words: ``hostdev 0000:01:10.0 of the domain web01``."""
    left: Any
    """What our last change left there."""
    found: Any
    """What is there now."""

    def as_result(self) -> dict[str, Any]:
        """In a module's result."""
        return {"target": self.target, "left": self.left, "found": self.found}

    @property
    def warning(self) -> str:
        """What a person has to know."""
        return f"{self.target} was changed by somebody else after this collection changed it. It is left as it is."


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
