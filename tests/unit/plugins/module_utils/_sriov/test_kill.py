# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is killed at any moment: files are whole, and the next run ends where it would have ended."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.tests.unit.support import kill
from ansible_collections.kvm.passthrough.tests.unit.support.machine import DRIVERS, PF
from ansible_collections.kvm.passthrough.tests.unit.support.sriov import SECOND_PF, SETTINGS, SriovKernel, sriov_host
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing
from ansible_collections.kvm.passthrough.tests.unit.support.virtual_functions import asked, run

MAC = "52:54:00:00:00:01"


@dataclass
class Machine:
    root: Path
    host: SriovKernel


def machine(root: Path) -> Machine:
    return Machine(root, sriov_host(root))


def settings_and_boot(made: Machine) -> None:
    """The VFs stay, so that every file of the tree is either old or new at any moment."""
    run(made.host, asked(count=2, vfs=[{"vf": "all", "trust": True}, {"vf": 1, "mac": MAC}], drivers_autoprobe=True))


MAC_IN_THE_CARD = f"/sys/devices/pci0000:00/0000:00:01.0/{PF}/{SETTINGS}/1-mac"
CASE = kill.Case(machine, settings_and_boot, (MAC_IN_THE_CARD,))


def test_killed_while_settings_and_files_are_written(tmp_path: Path) -> None:
    # A part of them: what is written here goes through the same code as everywhere, and that dies at each of its calls
    # in the tests of _core. The first one is at random, so that all of them have their day.
    moments = kill.points(CASE, tmp_path)
    assert len(moments) > 100
    start = random.randrange(8)
    assert kill.bad_outcomes(CASE, moments[start::8], tmp_path) == []


class Mortal(SriovKernel):
    """It kills its process just before, or just after, one of the things it is told."""

    deadline = 0
    told = 0

    def _now(self) -> None:
        self.told += 1
        if self.told == self.deadline:
            os.kill(os.getpid(), signal.SIGKILL)

    def write_attribute(self, path: str, value: str, timeout: float = 10.0) -> None:
        self._now()
        super().write_attribute(path, value, timeout)
        self._now()

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        self._now()
        done = super()._run(argv, timeout, stdin)
        self._now()
        return done


def continued(root: Path, deadline: int = 0) -> Mortal:
    """A kernel over a tree that is there already."""
    kernel = Mortal(SysfsTree(root), DRIVERS)
    kernel.deadline = deadline
    return kernel


def remembered(kernel: SriovKernel) -> dict[tuple[str, str], Any]:
    """What there is to restore. A run that was killed may leave the record of what is as it was: nothing to restore."""
    records = StateStore(kernel)._records.items()
    return {name: (record.before, record.after) for name, record in records if record.before != record.after}


PFS = (
    asked(vfs=[{"vf": 0, "mac": MAC}, {"vf": [2, 3], "vlan": 5}]),
    asked(SECOND_PF, 1, drivers_autoprobe=True, vfs=[{"vf": 0, "spoof_check": False}]),
)


@pytest.mark.parametrize("pfs", [PFS, (asked(count=0), asked(SECOND_PF, 0))])
def test_killed_between_anything_that_the_kernel_is_told(tmp_path: Path, pfs: tuple[dict[str, Any], ...]) -> None:
    sriov_host(tmp_path / "machine")
    if pfs is not PFS:
        run(continued(tmp_path / "machine"), *PFS)
    shutil.copytree(tmp_path / "machine", tmp_path / "wanted", symlinks=True)
    whole = continued(tmp_path / "wanted")
    run(whole, *pfs)
    wanted, records = tree_listing(tmp_path / "wanted", ("run", "var")), remembered(whole)
    for moment in range(1, whole.told + 1):
        copy = tmp_path / f"killed-{moment}"
        shutil.copytree(tmp_path / "machine", copy, symlinks=True)
        child = os.fork()
        if child == 0:
            try:
                run(continued(copy, moment), *pfs)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        again = continued(copy)
        run(again, *pfs)
        assert tree_listing(copy, ("run", "var")) == wanted, moment
        assert remembered(again) == records, moment
        assert not run(again, *pfs)["changed"]
        shutil.rmtree(copy)
    assert whole.told >= 16
