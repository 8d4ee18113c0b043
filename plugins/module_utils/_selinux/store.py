# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the values live that SELinux booleans have from the next boot on: the policy store of libsemanage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional, Protocol


@dataclass(frozen=True)
class Stored:
    """One boolean in the policy store."""

    value: Optional[bool]
    """What it is at boot; None where that cannot be told."""
    local: Optional[bool]
    """What was set on this host; None when the policy's own value holds."""


class Store(Protocol):
    """One way to read and write the policy store."""

    through: str
    """What it goes through, for the result."""
    sets_runtime: bool
    """Whether setting a boolean for every boot also sets it now, where SELinux is enabled."""

    def booleans(self) -> Mapping[str, Stored]:
        """What can be told of the booleans of the policy. A boolean of the policy may be missing here."""

    def write(self, settings: Mapping[str, Optional[bool]]) -> None:
        """Set booleans on this host for every boot, all of them or none; None takes the setting of this host away.

        :raises PassthroughError: when it cannot be done; then nothing has changed
        """
