# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of vfio-pci: before the module is loaded, while devices have it, and gone with the last of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence import modprobe, options
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.modprobe import MODPROBE_PATH
from ansible_collections.kvm.passthrough.tests.unit.support.devices import OWN, quadruple, run
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel
from ansible_collections.kvm.passthrough.tests.unit.support.machine import TWINS, VF0, VF1, hypervisor
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing

RELOAD = "load the module of vfio-pci again, whose options are read once"
UNLOAD = "unload the module of vfio-pci, whose options are read once"
ID = st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{4}(:[0-9a-f]{4}:[0-9a-f]{4})?", fullmatch=True)


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return hypervisor(tmp_path)


def parameter(kernel: FakeKernel, name: str) -> str | None:
    return kernel.attribute(f"/sys/module/vfio_pci/parameters/{name}")


def described(result: dict[str, Any]) -> list[str]:
    return [action["description"] for action in result["actions"]]


def refused(kernel: FakeKernel, *devices: Any, **wanted: Any) -> PassthroughError:
    before = tree_hash(kernel.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, *devices, **wanted)
    assert tree_hash(kernel.root, OWN) == before
    json.dumps(caught.value.as_result())
    return caught.value


def test_the_module_is_loaded_with_them_and_they_go_with_the_last_device(kernel: FakeKernel) -> None:
    before = tree_listing(kernel.root, OWN)
    done = quadruple(kernel, VF0, options={"disable_idle_d3": True, "disable_vga": False})
    assert done["options"] == {"disable_idle_d3": "Y", "disable_vga": "N"}
    assert not done["reboot_required"]
    assert parameter(kernel, "disable_idle_d3") == "Y"
    assert "options vfio-pci disable_idle_d3=Y disable_vga=N\n" in kernel.read_text(MODPROBE_PATH)

    assert quadruple(kernel, VF1)["options"] == done["options"]  # a request that says nothing leaves them
    run(kernel, VF0, state="released")
    assert parameter(kernel, "disable_idle_d3") == "Y"
    run(kernel, VF1, state="released")
    assert parameter(kernel, "disable_idle_d3") != "Y"
    assert tree_listing(kernel.root, OWN) == before


def test_a_module_that_devices_have_gets_them_at_the_next_boot(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    wanted = {"disable_idle_d3": True, "enable_sriov": True}
    done = run(kernel, VF0, options=wanted)
    assert done["changed"]
    assert done["reboot_required"]
    assert "disable_idle_d3" in done["warnings"][0]
    assert parameter(kernel, "disable_idle_d3") == "N"
    again = run(kernel, VF0, options=wanted)
    assert not again["changed"]
    assert again["reboot_required"]
    removed = run(kernel, VF0, options={})
    assert not removed["reboot_required"]
    assert "options vfio-pci" not in kernel.read_text(MODPROBE_PATH)


def test_what_the_module_looks_at_whenever_it_needs_it_is_set_at_once(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    done = run(kernel, VF0, options={"enable_sriov": True})
    assert "set the option enable_sriov of vfio-pci to Y" in described(done)
    assert not done["reboot_required"]
    assert parameter(kernel, "enable_sriov") == "Y"


def test_a_module_that_nobody_uses_is_loaded_again(kernel: FakeKernel) -> None:
    run(kernel, VF0, persistent=False)
    run(kernel, VF0, state="released")
    assert parameter(kernel, "nointxmask") == "N"
    done = quadruple(kernel, VF0, options={"nointxmask": True})
    assert RELOAD in described(done)
    assert parameter(kernel, "nointxmask") == "Y"
    assert UNLOAD in described(run(kernel, VF0, state="released"))
    assert parameter(kernel, "nointxmask") is None


def test_a_driver_that_is_part_of_the_kernel_takes_kernel_parameters(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    kernel.tree.path("/sys/module/vfio_pci/initstate").unlink()
    error = refused(kernel, VF0, options={"disable_idle_d3": True})
    assert error.code == "options_need_kernel_parameters"
    assert error.problems[0].details["parameters"] == ["vfio-pci.disable_idle_d3=Y"]
    assert not run(kernel, VF0, options={"disable_idle_d3": False})["reboot_required"]


def test_ids_that_would_take_an_unlisted_twin_are_refused(kernel: FakeKernel) -> None:
    ids = ":".join(kernel.attribute(f"/sys/bus/pci/devices/{TWINS[0]}/{name}")[2:] for name in ("vendor", "device"))  # type: ignore[index]
    error = refused(kernel, TWINS[0], options={"ids": [ids]})
    assert [(problem.code, problem.details["device"]) for problem in error.problems] == [
        ("ids_catch_unlisted", TWINS[1])
    ]
    done = quadruple(kernel, *TWINS, options={"ids": [ids.upper(), ids]})
    assert done["options"] == {"ids": ids}


@pytest.mark.parametrize("text", ["10de", "10de:", "10de:2484:1", "0x10de:0x2484", "10de:2484,8086:1572", ""])
def test_what_is_no_id(kernel: FakeKernel, text: str) -> None:
    error = refused(kernel, VF0, options={"ids": ["8086:10ca", text]})
    assert [(problem.code, problem.details["value"]) for problem in error.problems] == [("ids_invalid", text)]


@pytest.mark.parametrize("wanted", [{"state": "released"}, {"persistent": False}])
def test_options_without_a_device_to_keep_them(kernel: FakeKernel, wanted: dict[str, Any]) -> None:
    assert refused(kernel, VF0, options={"disable_vga": True}, **wanted).code == "options_conflict"


@given(
    switches=st.dictionaries(st.sampled_from(options.SWITCHES), st.booleans()),
    ids=st.lists(ID, max_size=4),
)
def test_what_is_written_is_read_back(switches: dict[str, bool], ids: list[str]) -> None:
    wanted = options.from_params({**switches, "ids": ids})
    assert wanted is not None
    text = modprobe.render((), wanted, {})
    assert modprobe.parse_options(text) == wanted
    assert bool(text) == bool(wanted)
