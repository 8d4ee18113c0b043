# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets for tests: each has hosts of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.lab.controller import Controller

from . import hosts, tree

HERE = Path(__file__).resolve().parent

MakeFleet = Callable[..., hosts.Fleet]


@pytest.fixture(scope="session", autouse=True)
def _can_be_entered() -> None:
    reason = tree.why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def make_fleet(tmp_path: Path) -> MakeFleet:
    """A function that makes a fleet: of all kinds, or of one host each of those that are named."""

    def make(names: Collection[str] | None = None, variables: Mapping[str, Any] | None = None) -> hosts.Fleet:
        if names is None:
            return hosts.build(tmp_path, kinds_that_can_be_made())
        kinds = {name: hosts.KINDS[name] for name in names}
        if any(kind.domains is not None for kind in kinds.values()) and (reason := tree.why_no_lxml()):
            pytest.skip(reason)
        more = dict(variables or {})
        return hosts.build(
            tmp_path,
            {name: replace(kind, number=1, variables={**kind.variables, **more}) for name, kind in kinds.items()},
        )

    return make


def kinds_that_can_be_made() -> dict[str, hosts.Kind]:
    """All kinds, but for those that cannot be made on this machine, with a warning."""
    reason = tree.why_no_lxml()
    if reason is None:
        return hosts.KINDS
    warnings.warn(f"no host has a libvirt: {reason}", stacklevel=1)
    return {name: kind for name, kind in hosts.KINDS.items() if kind.domains is None}


def controller(fleet: hosts.Fleet) -> Controller:
    """Ansible, with the connection to trees."""
    return Controller(fleet, config=HERE / "ansible.cfg")
