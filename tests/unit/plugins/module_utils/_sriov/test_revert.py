# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""sriov_vfs taken back: the machine is as it was, and what somebody else changed since stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, StateStore
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.boot import SCRIPT_PATH
from ansible_collections.kvm.passthrough.tests.unit.support.faults import Fault
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import PCI_DEVICES
from ansible_collections.kvm.passthrough.tests.unit.support.machine import PF, VF0
from ansible_collections.kvm.passthrough.tests.unit.support.sriov import SECOND_PF, SriovKernel, sriov_host
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing
from ansible_collections.kvm.passthrough.tests.unit.support.virtual_functions import revert, run


@pytest.fixture(name="kernel")
def kernel_fixture(tmp_path: Path) -> SriovKernel:
    return sriov_host(tmp_path)


def pictured(kernel: SriovKernel) -> dict[str, str]:
    """The whole machine but for what is remembered."""
    return tree_listing(kernel.root, ("run", "var"))


SEVERAL_RUNS: dict[str, list[dict[str, Any]]] = {
    "made": [{"pf": SECOND_PF, "count": 3, "vfs": [{"vf": "all", "trust": True}]}],
    "made twice": [{"pf": SECOND_PF, "count": 3}, {"pf": SECOND_PF, "count": 5}],
    "set": [{"pf": PF, "count": 2, "drivers_autoprobe": True, "vfs": [{"vf": 0, "vlan": 7}, {"vf": 1, "trust": True}]}],
    "set twice": [
        {"pf": PF, "count": 2, "drivers_autoprobe": True, "vfs": [{"vf": 0, "vlan": 7}]},
        {"pf": PF, "count": 2, "drivers_autoprobe": True, "vfs": [{"vf": 0, "vlan": 8}]},
    ],
    "set and made anew": [
        {"pf": PF, "count": 2, "drivers_autoprobe": True, "vfs": [{"vf": 0, "mac": "52:54:00:00:00:01"}]},
        {"pf": PF, "count": 4, "drivers_autoprobe": True},
    ],
    "removed": [{"pf": PF, "count": 0}],
}


@pytest.mark.parametrize("name", SEVERAL_RUNS)
def test_the_machine_is_as_it_was(kernel: SriovKernel, name: str) -> None:
    # The VFs that are there have settings of their own, by somebody else.
    kernel.run(["ip", "link", "set", "dev", "enp1s0", "vf", "1", "mac", "52:54:00:00:00:99"])
    before = pictured(kernel)
    for request in SEVERAL_RUNS[name]:
        run(kernel, {"vfs": [], **request})
    assert pictured(kernel) != before

    expected, done = revert(kernel, check=True), revert(kernel)
    assert expected == done
    assert done["changed"]
    assert done["kept"] == []
    assert pictured(kernel) == before
    assert not kernel.exists(STATE_PATH)

    for check in (True, False):
        again = revert(kernel, check=check)
        assert not again["changed"]
        assert again["pfs"] == []


def test_nothing_is_done_where_nothing_was_done(kernel: SriovKernel) -> None:
    before = pictured(kernel)
    assert not revert(kernel)["changed"]
    assert pictured(kernel) == before


def test_after_a_reboot_only_the_records_are_left(kernel: SriovKernel) -> None:
    run(kernel, {"pf": SECOND_PF, "count": 3, "vfs": []}, persistent=False)
    kernel.write_attribute(f"{PCI_DEVICES}/{SECOND_PF}/sriov_numvfs", "0")
    kernel.tree.set_attribute(SECOND_PF, "sriov_drivers_autoprobe", "1")
    assert not revert(kernel)["changed"]
    assert not kernel.exists(STATE_PATH)


def test_another_number_by_somebody_else_stays(kernel: SriovKernel) -> None:
    run(kernel, {"pf": SECOND_PF, "count": 3, "vfs": []})
    numvfs = f"{PCI_DEVICES}/{SECOND_PF}/sriov_numvfs"
    kernel.write_attribute(numvfs, "0")
    kernel.write_attribute(numvfs, "5")
    done = revert(kernel)
    assert kernel.attribute(numvfs) == "5"
    (kept,) = done["kept"]
    assert kept["target"] == f"The number of virtual functions of {SECOND_PF}"
    assert (kept["left"]["count"], kept["found"]["count"]) == (3, 5)
    assert "changed by somebody else" in done["warnings"][0]
    # What was to make ours at the next boot goes all the same.
    assert not kernel.exists(SCRIPT_PATH)
    assert not kernel.exists(STATE_PATH)


def test_another_setting_by_somebody_else_stays(kernel: SriovKernel) -> None:
    vfs = [{"vf": 0, "vlan": 7}, {"vf": 1, "trust": True}]
    run(kernel, {"pf": PF, "count": 2, "drivers_autoprobe": True, "vfs": vfs})
    kernel.run(["ip", "link", "set", "dev", "enp1s0", "vf", "0", "vlan", "9"])
    done = revert(kernel)
    assert [(item["target"], item["left"], item["found"]) for item in done["kept"]] == [
        (f"The vlan of VF 0 of {PF}", 7, 9)
    ]
    assert "set trust of VF 1" in " ".join(action["description"] for action in done["actions"])


def test_a_card_that_is_gone_is_told_and_forgotten(kernel: SriovKernel) -> None:
    run(kernel, {"pf": SECOND_PF, "count": 3, "vfs": []})
    kernel.write_attribute(f"{PCI_DEVICES}/{SECOND_PF}/sriov_numvfs", "0")
    kernel.remove_device(SECOND_PF)
    done = revert(kernel)
    assert SECOND_PF in done["warnings"][0]
    assert not kernel.exists(STATE_PATH)
    assert not kernel.exists(SCRIPT_PATH)


def test_vfs_that_a_guest_has_are_refused(kernel: SriovKernel) -> None:
    run(kernel, {"pf": PF, "count": 4, "vfs": []})
    kernel.drivers["vfio-pci"] = frozenset()
    kernel.run(["modprobe", "vfio-pci"])
    kernel.tree.bind(VF0, "vfio-pci")
    group = kernel.link_name(f"{PCI_DEVICES}/{VF0}/iommu_group")
    kernel.tree.path("/proc/4711/fd").mkdir(parents=True)
    kernel.tree.path("/proc/4711/fd/9").symlink_to(f"/dev/vfio/{group}")
    kernel.tree.write("/proc/4711/comm", "qemu\n").write("/proc/4711/cmdline", "qemu\0-name\0guest=web01\0")
    before = pictured(kernel)
    with pytest.raises(PassthroughError) as caught:
        revert(kernel)
    assert caught.value.code == "in_use_by_domain"
    assert pictured(kernel) == before
    assert revert(kernel, force=["in_use_by_domain"])["changed"]


def test_a_failure_leaves_everything_as_it_was_found(kernel: SriovKernel) -> None:
    run(kernel, {"pf": SECOND_PF, "count": 3, "vfs": []})
    before, remembered = pictured(kernel), StateStore(kernel).all("sriov")
    kernel.faults.by_number[len(kernel.writes) + 1] = Fault.EBUSY
    with pytest.raises(PassthroughError):
        revert(kernel)
    assert pictured(kernel) == before
    assert StateStore(kernel).all("sriov") == remembered


def test_pfs_have_no_meaning_beside_it(kernel: SriovKernel) -> None:
    with pytest.raises(PassthroughError) as caught:
        revert(kernel, pfs=[{"pf": PF, "count": 0, "vfs": []}])
    assert caught.value.code == "revert_excludes_options"
    assert caught.value.as_result()["options"] == ["pfs"]
