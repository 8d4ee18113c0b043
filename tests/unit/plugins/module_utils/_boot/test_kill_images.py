# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""As for GRUB in test_kill: a run on an image-based host may end at any moment."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.tests.unit.support.boot import DEFAULTS
from ansible_collections.kvm.passthrough.tests.unit.support.kill import Case, bad_outcomes, errors, points
from ansible_collections.kvm.passthrough.tests.unit.support.rpm_ostree import DEPLOYMENTS, OstreeHost
from ansible_collections.kvm.passthrough.tests.unit.support.transactional_update import NEXT, TransactionalHost


def run(machine: Any) -> None:
    procedure = build(machine.host, ["intel_iommu=on", "iommu=pt"])
    execute(machine.host, procedure, module="kernel_parameters", check_mode=False, lock_timeout=0)


def updated(root: Path) -> OstreeHost:
    machine = OstreeHost(root)
    machine.upgrade()
    return machine


CASES = {
    "rpm-ostree": Case(OstreeHost, run, (DEPLOYMENTS,)),
    "rpm-ostree, an update waits": Case(updated, run, (DEPLOYMENTS,)),
    "transactional-update": Case(TransactionalHost, run, (DEFAULTS, NEXT)),
}


@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(tmp_path: Path, name: str) -> None:
    (tmp_path / "scratch").mkdir()
    found = points(CASES[name], tmp_path / "scratch")
    print(f"{name}: {len(found)} moments")
    assert len(found) > 10
    assert bad_outcomes(CASES[name], found, tmp_path) == []


@pytest.mark.parametrize("name", CASES)
def test_any_file_operation_may_fail(tmp_path: Path, name: str) -> None:
    (tmp_path / "scratch").mkdir()
    found = errors(CASES[name], errno.ENOSPC, tmp_path / "scratch")
    assert found
    assert bad_outcomes(CASES[name], found, tmp_path) == []
