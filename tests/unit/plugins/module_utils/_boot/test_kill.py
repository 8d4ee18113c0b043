# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any moment leaves a host that boots, and the next run brings it where it was to go."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.tests.unit.support import boot
from ansible_collections.kvm.passthrough.tests.unit.support.boot import GrubHost
from ansible_collections.kvm.passthrough.tests.unit.support.kill import Case, Point, bad_outcomes, errors, points

KERNELS = ("6.1.0-13-amd64",)
CHUNKS = 5
"""Into how many tests the moments of one case are split, for pytest to spread."""


def run(*present: str) -> Callable[[Any], None]:
    def on(machine: Any) -> None:
        procedure = build(machine.host, present)
        execute(machine.host, procedure, module="kernel_parameters", check_mode=False, lock_timeout=0)

    return on


def debian(root: Path) -> GrubHost:
    return GrubHost(root, boot.DEBIAN_13, kernels=KERNELS)


def changed_before(root: Path) -> GrubHost:
    on = debian(root)
    run("intel_iommu=on")(on)
    return on


def ubuntu(root: Path) -> GrubHost:
    """A contradiction in one file, and the place for new parameters in another."""
    defaults = 'GRUB_CMDLINE_LINUX="intel_iommu=off"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\n'
    return GrubHost(root, defaults, boot.UBUNTU_CLOUD_DROP_INS, kernels=KERNELS)


def suse(root: Path) -> GrubHost:
    return GrubHost(root, boot.OPENSUSE, kernels=KERNELS, flavour=boot.SUSE_FLAVOUR)


def last_look_fails(on: GrubHost) -> None:
    """The shell that evaluates the settings fails when everything is in place, so everything is undone."""
    evaluated: list[Sequence[str]] = []

    def answer(argv: Sequence[str]) -> Completed | None:
        if "-c" in argv:
            evaluated.append(argv)
        return Completed(tuple(argv), 1, "", "") if len(evaluated) == 3 else None

    on.intercept = answer


CASES = {
    "debian": Case(debian, run("intel_iommu=on", "iommu=pt"), (boot.DEFAULTS, boot.CONFIG)),
    "a second change": Case(changed_before, run("intel_iommu=on,sm_on"), (boot.DEFAULTS, boot.CONFIG)),
    "two files": Case(
        ubuntu,
        run("intel_iommu=on", "iommu=pt"),
        (boot.DEFAULTS, f"{boot.DEFAULTS}.d/50-cloudimg-settings.cfg", boot.CONFIG),
    ),
    "suse": Case(suse, run("iommu=pt"), (boot.DEFAULTS, boot.SUSE_FLAVOUR.config)),
    "rolling back": Case(debian, run("intel_iommu=on"), (boot.DEFAULTS, boot.CONFIG), last_look_fails),
}


def by_hand(on: GrubHost) -> None:
    """What an administrator does: edit the file, and let the generator write to the real one."""
    on.write(boot.DEFAULTS, boot.DEBIAN_13.replace("intel_iommu=off", "intel_iommu=on"))
    on.update_grub()


def moments(case: Case, scratch: Path, chunk: int, chunks: int = CHUNKS) -> list[Point]:
    scratch.mkdir()
    return points(case, scratch)[chunk::chunks]


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("name", CASES)
def test_killed_at_any_moment(tmp_path: Path, name: str, chunk: int) -> None:
    found = moments(CASES[name], tmp_path / "scratch", chunk)
    assert bad_outcomes(CASES[name], found, tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO], ids=errno.errorcode.get)
def test_any_file_operation_may_fail(tmp_path: Path, number: int) -> None:
    (tmp_path / "scratch").mkdir()
    found = errors(CASES["debian"], number, tmp_path / "scratch")
    assert len(found) > 30
    assert bad_outcomes(CASES["debian"], found, tmp_path) == []


def test_hundreds_of_moments(tmp_path: Path) -> None:
    numbers = {}
    for name, case in CASES.items():
        (tmp_path / name).mkdir()
        found = points(case, tmp_path / name)
        numbers[name] = (sum(not point.progress for point in found), sum(bool(point.progress) for point in found))
    print(f"moments at which a run is killed (before a call, inside of a command): {numbers}")
    assert all(calls > 40 for calls, _inside in numbers.values())
    assert all(inside > 20 for _calls, inside in numbers.values())
    assert sum(sum(counts) for counts in numbers.values()) > 200


def test_a_file_that_is_written_in_place_does_not_pass(tmp_path: Path) -> None:
    case = Case(debian, by_hand, (boot.DEFAULTS, boot.CONFIG))
    found = bad_outcomes(case, moments(case, tmp_path / "scratch", 0, 1), tmp_path)
    assert any("/boot/grub/grub.cfg is neither old nor new" in text for text in found)
    assert any("/boot/grub/grub.cfg.new is neither old nor new" in text for text in found)
