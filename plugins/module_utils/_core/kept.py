# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What taking back leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kept:
    """What is not taken back, because somebody else changed it after us."""

    target: str
    """What it is, in words that begin a sentence: ``The hostdev 0000:01:10.0 of the domain web01``."""
    left: Any
    """What our last change left there."""
    found: Any
    """What is there now."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """What ``target`` says, as further fields for the result."""

    def as_result(self) -> dict[str, Any]:
        """In a module's result."""
        return {"target": self.target, **self.details, "left": self.left, "found": self.found}

    @property
    def warning(self) -> str:
        """What a person has to know."""
        return f"{self.target} was changed by somebody else after this collection changed it. It is left as it is."
