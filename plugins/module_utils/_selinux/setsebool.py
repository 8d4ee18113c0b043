# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""setsebool(8) of policycoreutils: booleans now, and in the policy store where the bindings of libsemanage lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Optional

from .._core.errors import PassthroughError
from .._core.host import Host
from .store import Stored

PROGRAM = "setsebool"
_NOW_LIMIT = 60.0
_STORE_LIMIT = 900.0  # it builds the policy anew, which takes a small machine minutes


def set_now(host: Host, values: Mapping[str, bool]) -> None:
    """Set booleans of the loaded policy until the next boot, all of them or none.

    :raises PassthroughError: ``command_missing``, ``command_failed``, ``command_timeout``
    """
    host.run([PROGRAM, *_words(values)], timeout=_NOW_LIMIT)


class SetseboolStore:
    """Without the bindings: what was set on this host can be read, what the policy itself says cannot."""

    through = PROGRAM
    sets_runtime = True

    def __init__(self, host: Host, policy: str) -> None:
        """:param policy: the type of policy, SELINUXTYPE"""
        self._host = host
        self._policy = policy

    def booleans(self) -> Mapping[str, Stored]:
        for root in ("/var/lib/selinux", "/etc/selinux"):  # since libsemanage 2.4, and Fedora's
            text = self._host.attribute(f"{root}/{self._policy}/active/booleans.local")
            if text is not None:
                return dict(_settings(text))
        return {}

    def write(self, settings: Mapping[str, Optional[bool]]) -> None:
        kept = [name for name, value in settings.items() if value is None]
        if kept:
            raise PassthroughError(
                "policy_store_failed",
                f"What was set for {', '.join(kept)} on this host cannot be taken away with {PROGRAM}.",
                "Install the Python bindings of libsemanage (python3-semanage, Fedora and RHEL: python3-libsemanage), "
                "or do it by hand: semanage boolean --delete NAME.",
                booleans=kept,
            )
        wanted = {name: value for name, value in settings.items() if value is not None}
        self._host.run([PROGRAM, "-P", *_words(wanted)], timeout=_STORE_LIMIT)


def _words(values: Mapping[str, bool]) -> list[str]:
    return [f"{name}={int(value)}" for name, value in values.items()]


def _settings(text: str) -> Mapping[str, Stored]:
    """booleans.local: lines ``name=1``, written by libsemanage, with comments."""
    found = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith("#"):
            on = value.strip().lower() in ("1", "true", "on")
            found[name.strip()] = Stored(on, on)
    return found
