# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many requests in many orders, with any write going wrong: each either holds or leaves everything as it was."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.devices import build
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import Fault
from ansible_collections.kvm.passthrough.tests.unit.support.machine import SLOT, TWINS, VF0, VF1, hypervisor
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


@settings(max_examples=25, deadline=None, phases=_NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(REQUESTS, FAULTS), min_size=1, max_size=4))
def test_all_or_nothing(steps: list[tuple[dict[str, Any], dict[int, Fault]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kernel = hypervisor(Path(folder))
        pristine = tree_listing(kernel.root, ("run", "var"))
        for params, faults in steps:
            before = tree_listing(kernel.root, ("run", "var"))
            records = kernel.attribute(STATE_PATH)
            try:
                predicted = execute(kernel, build(kernel, params), module="vfio_devices", check_mode=True)
            except PassthroughError:
                assert tree_listing(kernel.root, ("run", "var")) == before
                continue
            assert tree_listing(kernel.root, ("run", "var")) == before
            kernel.writes.clear()
            kernel.faults.by_number = dict(faults)
            try:
                done = execute(kernel, build(kernel, params), module="vfio_devices", check_mode=False)
            except PassthroughError:
                assert tree_listing(kernel.root, ("run", "var")) == before
                assert kernel.attribute(STATE_PATH) == records
                continue
            assert done == predicted
            kernel.faults.clear()
            again = execute(kernel, build(kernel, params), module="vfio_devices", check_mode=False)
            assert not again["changed"]
        kernel.faults.clear()
        nothing = {**steps[0][0], "devices": [], "state": "bound", "exclusive": True}
        execute(kernel, build(kernel, nothing), module="vfio_devices", check_mode=False)
        assert kernel.attribute(STATE_PATH) is None
        if "vfio-pci" in kernel.loaded:
            kernel.run(["modprobe", "-r", "vfio-pci"])
        assert tree_listing(kernel.root, ("run", "var")) == pristine
