# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many requests in many orders, with any step going wrong: each either holds or leaves everything as it was."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import PCI_DEVICES
from ansible_collections.kvm.passthrough.tests.unit.support.machine import PF
from ansible_collections.kvm.passthrough.tests.unit.support.sriov import SECOND_PF, SriovKernel, sriov_host
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing
from ansible_collections.kvm.passthrough.tests.unit.support.virtual_functions import run

ENTRIES = st.fixed_dictionaries(
    {"vf": st.integers(0, 3) | st.just("all")},
    optional={
        "vlan": st.sampled_from([0, 5, 6]),
        "trust": st.booleans(),
        "spoof_check": st.booleans(),
        "max_tx_rate": st.sampled_from([0, 10]),
        "link_state": st.just("enable"),
    },
)
PFS = st.fixed_dictionaries(
    {
        "pf": st.sampled_from([PF, SECOND_PF]),
        "count": st.integers(0, 4),
        "vfs": st.lists(ENTRIES, max_size=2),
        "drivers_autoprobe": st.none() | st.booleans(),
    }
)
STEPS = st.tuples(
    st.lists(PFS, min_size=1, max_size=2, unique_by=lambda item: str(item["pf"])),
    st.booleans(),
    st.sampled_from([None, None, PF, SECOND_PF]),
)

_NO_SHRINKING = [phase for phase in Phase if phase not in (Phase.shrink, Phase.explain)]


def holds(kernel: SriovKernel, pfs: list[dict[str, Any]]) -> None:
    """What was asked for is what the kernel and the driver have."""
    for pf in pfs:
        assert kernel.attribute(f"{PCI_DEVICES}/{pf['pf']}/sriov_numvfs") == str(pf["count"])
        if pf["drivers_autoprobe"] is not None:
            autoprobe = kernel.attribute(f"{PCI_DEVICES}/{pf['pf']}/sriov_drivers_autoprobe")
            assert autoprobe == str(int(pf["drivers_autoprobe"]))
        for entry in pf["vfs"]:
            for index in range(pf["count"]) if entry["vf"] == "all" else [entry["vf"]]:
                for name, word in (("vlan", "vlan"), ("trust", "trust"), ("spoof_check", "spoofchk")):
                    if name in entry:
                        assert kernel.setting(pf["pf"], index, word) == entry[name]


@settings(max_examples=30, phases=_NO_SHRINKING, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEPS, min_size=1, max_size=5))
def test_all_or_nothing(steps: list[tuple[list[dict[str, Any]], bool, str | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kernel = sriov_host(Path(folder))
        pristine = tree_listing(kernel.root, ("run", "var"))
        for pfs, persistent, refused in steps:
            before = tree_listing(kernel.root, ("run", "var"))
            records = kernel.attribute(STATE_PATH)
            try:
                predicted = run(kernel, *pfs, persistent=persistent, check=True)
            except PassthroughError:
                assert tree_listing(kernel.root, ("run", "var")) == before
                continue
            assert tree_listing(kernel.root, ("run", "var")) == before
            # The first time that VFs of it are made in this step: the second time is the way back, which works.
            made = [pf["address"] for pf in predicted["pfs"] if pf["after"]["count"] not in (0, pf["before"]["count"])]
            kernel.refuse_once(refused if refused in made else None, errno.ENOMEM)
            try:
                done = run(kernel, *pfs, persistent=persistent)
            except PassthroughError as error:
                failed = error.extra
                assert failed["not_undone"] == []
                assert tree_listing(kernel.root, ("run", "var")) == before
                assert kernel.attribute(STATE_PATH) == records
                continue
            kernel.refuse_once(None, 0)
            assert done == predicted
            holds(kernel, pfs)
            assert not run(kernel, *pfs, persistent=persistent)["changed"]
        kernel.refuse_once(None, 0)
        at_first = [
            {"pf": pf, "count": count, "vfs": [], "drivers_autoprobe": True} for pf, count in ((PF, 2), (SECOND_PF, 0))
        ]
        gone = [{**pf, "count": 0} for pf in at_first]
        run(kernel, *gone, persistent=False)
        run(kernel, *at_first, persistent=False)
        assert kernel.attribute(STATE_PATH) is None
        assert tree_listing(kernel.root, ("run", "var")) == pristine
