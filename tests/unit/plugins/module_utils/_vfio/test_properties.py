# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many requests in many orders, with any write going wrong: each either holds or leaves everything as it was."""

from __future__ import annotations

import contextlib
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.tests.unit.support.devices import OWN, run
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel, Fault
from ansible_collections.kvm.passthrough.tests.unit.support.machine import SLOT, TWINS, VF0, VF1, hypervisor
from ansible_collections.kvm.passthrough.tests.unit.support.procedures import WRITING_CALLS
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

SELECTORS = st.one_of(
    st.sampled_from([VF0, VF1, *SLOT, *TWINS]), st.sampled_from([{"interface": "enp5s0"}, {"interface": "enp2s0f0"}])
)
REQUESTS = st.fixed_dictionaries(
    {
        "devices": st.lists(SELECTORS, max_size=4),
        "state": st.sampled_from(["bound", "released"]),
        "driver": st.just("vfio-pci"),
        "exclusive": st.booleans(),
        "group": st.sampled_from(["require", "include"]),
        "persistent": st.booleans(),
        "force": st.just([]),
        "timeout": st.just(5),
    }
)
FAULTS = st.dictionaries(st.integers(1, 14), st.sampled_from([Fault.EIO, Fault.IGNORE, Fault.LATE]), max_size=1)


# An example takes a tenth of a second, and shrinking one takes hundreds; what fails has four steps at the most.
_NO_SHRINKING = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]


@settings(max_examples=25, phases=_NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(REQUESTS, FAULTS), min_size=1, max_size=4))
def test_all_or_nothing(steps: list[tuple[dict[str, Any], dict[int, Fault]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kernel = hypervisor(Path(folder))
        pristine = tree_listing(kernel.root, OWN)
        for params, faults in steps:
            before = tree_listing(kernel.root, OWN)
            records = kernel.attribute(STATE_PATH)
            try:
                predicted = run(kernel, check=True, **params)
            except PassthroughError:
                assert tree_listing(kernel.root, OWN) == before
                continue
            assert tree_listing(kernel.root, OWN) == before
            kernel.writes.clear()
            kernel.faults.by_number = dict(faults)
            try:
                done = run(kernel, **params)
            except PassthroughError:
                assert tree_listing(kernel.root, OWN) == before
                assert kernel.attribute(STATE_PATH) == records
                continue
            assert done == predicted
            kernel.faults.clear()
            again = run(kernel, **params)
            assert not again["changed"]
        kernel.faults.clear()
        nothing = {**steps[0][0], "devices": [], "state": "bound", "exclusive": True}
        run(kernel, **nothing)
        assert kernel.attribute(STATE_PATH) is None
        if "vfio-pci" in kernel.loaded:
            kernel.run(["modprobe", "-r", "vfio-pci"])
        assert tree_listing(kernel.root, OWN) == pristine


# -- four devices, of which the third goes wrong -----------------------------------------------------------

FOUR = [VF0, VF1, *TWINS]
THIRD = FOUR[2]
NOT_TO_BE_BROUGHT_BACK = (Fault.HANG, Fault.VANISH)


def drivers(kernel: FakeKernel, devices: list[str]) -> list[str | None]:
    return [kernel.link_name(f"/sys/bus/pci/devices/{address}/driver") for address in devices]


@pytest.mark.parametrize("attribute", ["driver_override", "unbind", "drivers_probe"])
@pytest.mark.parametrize("fault", list(Fault))
def test_of_four_the_third_goes_wrong(tmp_path: Path, fault: Fault, attribute: str) -> None:
    kernel = hypervisor(tmp_path)
    before = tree_listing(kernel.root, OWN)
    kernel.faults.inject(THIRD, attribute, fault)
    try:
        run(kernel, *FOUR, state="bound")
    except PassthroughError as error:
        result = error.as_result()
    else:  # late is early enough, and only who is asked to take the device can decline
        assert fault is Fault.LATE or (fault is Fault.DECLINE and attribute != "drivers_probe")
        assert drivers(kernel, FOUR) == ["vfio-pci"] * 4
        return
    assert THIRD in result["failed_action"]
    assert THIRD in result["msg"]
    others = [address for address in FOUR if address != THIRD]
    assert drivers(kernel, others) == ["igbvf", "igbvf", "e1000e"]
    if fault in NOT_TO_BE_BROUGHT_BACK:
        assert {problem["target"] for problem in result["not_undone"]} >= {THIRD}
        assert not {problem["target"] for problem in result["not_undone"]} & set(others)
        assert result.get("reboot_required", False) == (fault is Fault.HANG)
    else:
        assert result["not_undone"] == []
        assert tree_listing(kernel.root, OWN) == before
        assert kernel.attribute(STATE_PATH) is None


# -- killed at any moment ----------------------------------------------------------------------------------


class Killed(BaseException):
    """What the process is told that is dead. Nothing may catch it and go on."""


@contextlib.contextmanager
def killed_at(kernel: FakeKernel, moment: int) -> Iterator[None]:
    """The process ends just before the ``moment``-th attribute, command or file that it puts in place (from 1).

    It does nothing later either, so that nothing is cleaned up; what the kernel itself does in its tree does not count.
    What is between, in a folder nobody reads, is for the tests of ``_core.files``.
    """
    done = 0
    inside = False

    def mortal(function: Callable[..., Any], counts: bool = True) -> Callable[..., Any]:
        def act(*arguments: Any, **named: Any) -> Any:
            nonlocal done, inside
            if inside:
                return function(*arguments, **named)
            done += counts
            if done >= moment:
                raise Killed
            inside = True
            try:
                return function(*arguments, **named)
            finally:
                inside = False

        return act

    with contextlib.ExitStack() as stack:
        for name in WRITING_CALLS:
            stack.enter_context(mock.patch.object(os, name, mortal(getattr(os, name), name == "rename")))
        stack.enter_context(mock.patch.object(Host, "run", mortal(Host.run)))
        stack.enter_context(mock.patch.object(kernel, "write_attribute", mortal(kernel.write_attribute)))
        yield


@pytest.mark.parametrize("persistent", [False, True], ids=["now", "at every boot"])
@pytest.mark.parametrize("state", ["bound", "released"])
@pytest.mark.parametrize("following", ["bound", "released"])
def test_killed_at_any_moment(tmp_path: Path, state: str, following: str, persistent: bool) -> None:
    """The next run, whichever, comes to its end as if nothing had been, and release leaves no trace."""
    devices = [VF0, TWINS[0]]
    for moment in itertools.count(1):
        kernel = hypervisor(tmp_path / str(moment))
        pristine = tree_listing(kernel.root, OWN)
        if state == "released":
            run(kernel, *devices, state="bound", persistent=persistent)
        try:
            with killed_at(kernel, moment):
                run(kernel, *devices, state=state, persistent=persistent)
            break
        except Killed:
            pass
        run(kernel, *devices, state=following, persistent=persistent)
        expected = ["vfio-pci"] * 2 if following == "bound" else ["igbvf", "e1000e"]
        assert drivers(kernel, devices) == expected, moment
        assert not run(kernel, *devices, state=following, persistent=persistent)["changed"], moment
        run(kernel, *devices, state="released", persistent=persistent)
        assert kernel.attribute(STATE_PATH) is None, moment
        if "vfio-pci" in kernel.loaded:
            kernel.run(["modprobe", "-r", "vfio-pci"])
        assert tree_listing(kernel.root, OWN) == pristine, moment
    assert moment > 10
