# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of vfio_devices, on a kernel that reacts: what it predicts, does, refuses and undoes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.binding import LoadModule
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.info import devices_report
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.initramfs_tools import HOOK_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.modprobe import MODPROBE_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.rules import RULES_PATH, parse
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.settings import MODULES_PATH, STAMP_PATH
from ansible_collections.kvm.passthrough.tests.unit.support.devices import OWN, quadruple, run
from ansible_collections.kvm.passthrough.tests.unit.support.initramfs import InitramfsToolsStandIn, contents
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import FakeKernel, Fault
from ansible_collections.kvm.passthrough.tests.unit.support.machine import (
    KERNELS,
    MANAGEMENT,
    NVME,
    PF,
    SLOT,
    TWINS,
    VF0,
    VF1,
    hypervisor,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash, tree_listing


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    return hypervisor(tmp_path)


def refused(kernel: FakeKernel, *devices: Any, **options: Any) -> PassthroughError:
    """The error of a run that is refused before anything is touched, which the tree proves."""
    before = tree_hash(kernel.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, *devices, **options)
    assert tree_hash(kernel.root, OWN) == before
    assert kernel.writes == []
    json.dumps(caught.value.as_result())
    return caught.value


def codes(error: PassthroughError) -> list[tuple[str, str]]:
    return [(problem.code, str(problem.details.get("device", ""))) for problem in error.problems]


def driver(kernel: FakeKernel, address: str) -> str | None:
    return kernel.link_name(f"/sys/bus/pci/devices/{address}/driver")


# -- bind and release --------------------------------------------------------------------------------------


def test_bind_and_release(kernel: FakeKernel) -> None:
    before = tree_listing(kernel.root, OWN)

    done = quadruple(kernel, {"address": VF0, "name": "uplink"}, VF1)

    assert [driver(kernel, address) for address in (VF0, VF1)] == ["vfio-pci", "vfio-pci"]
    assert done["changed"]
    assert done["devices"][0] == {
        "address": VF0,
        "name": "uplink",
        "ids": "8086:10ca",
        "iommu_group": 15,
        "before": {"driver": "igbvf", "driver_override": None},
        "after": {"driver": "vfio-pci", "driver_override": "vfio-pci"},
        "persistent": True,
    }
    described = [action["description"] for action in done["actions"]]
    assert described[:6] == [
        f"write {MODPROBE_PATH}",
        "load the module of vfio-pci",
        f"detach {VF0} from igbvf",
        f"detach {VF1} from igbvf",
        f"bind {VF0} to vfio-pci",
        f"bind {VF1} to vfio-pci",
    ]
    assert described[-1] == "build the initramfs of all installed kernels with initramfs-tools"
    assert [str(device.address) for device in parse(kernel.read_text(RULES_PATH))] == [VF0, VF1]
    assert kernel.read_text(MODULES_PATH).splitlines()[-1] == "vfio-pci"
    for version in KERNELS:
        names, carried = contents(kernel, f"/boot/initrd.img-{version}")
        assert f"usr/lib/modules/{version}/kernel/vfio-pci.ko.xz" in names
        assert sorted(carried.values()) == sorted(kernel.read_bytes(path) for path in (MODPROBE_PATH, RULES_PATH))

    quadruple(kernel, VF0, VF1, state="released")

    assert [driver(kernel, address) for address in (VF0, VF1)] == ["igbvf", "igbvf"]
    assert not kernel.exists(STATE_PATH)
    assert not kernel.exists(STAMP_PATH)
    kernel.run(["modprobe", "-r", "vfio-pci"])  # the one thing that stays
    assert tree_listing(kernel.root, OWN) == before


def test_release_of_one_keeps_the_other(kernel: FakeKernel) -> None:
    run(kernel, VF0, VF1)
    quadruple(kernel, VF0, state="released")
    assert [driver(kernel, address) for address in (VF0, VF1)] == ["igbvf", "vfio-pci"]
    assert [str(device.address) for device in parse(kernel.read_text(RULES_PATH))] == [VF1]
    assert kernel.exists(HOOK_PATH)


def test_all_are_detached_before_the_first_is_bound(kernel: FakeKernel) -> None:
    run(kernel, *SLOT[:2], group="include", persistent=False)
    names = [path.rsplit("/", 1)[-1] for path, _unused in kernel.writes]
    assert names == ["driver_override", "unbind"] * 2 + ["driver_override"] * 2 + ["drivers_probe"] * 4


def test_only_the_asked_twin_is_bound(kernel: FakeKernel) -> None:
    quadruple(kernel, TWINS[1])
    assert [driver(kernel, address) for address in TWINS] == ["e1000e", "vfio-pci"]


def test_a_device_is_still_found_by_the_interface_it_had(kernel: FakeKernel) -> None:
    selector = {"interface": "enp5s0"}
    quadruple(kernel, selector)
    assert not kernel.exists("/sys/class/net/enp5s0")
    assert devices_report(kernel, [selector])["devices"][0]["driver"] == "vfio-pci"  # other modules find it, too
    assert not run(kernel, {"mac": "52:54:00:00:05:00"})["changed"]
    quadruple(kernel, TWINS[0], state="released")
    assert kernel.exists("/sys/class/net/enp5s0")


def test_an_interface_name_that_another_device_has_now_means_that_device(kernel: FakeKernel) -> None:
    run(kernel, {"interface": "enp5s0"})
    link = kernel.tree.path("/sys/class/net/enp6s0")
    net = link.resolve()
    link.unlink()
    net.rename(net.parent / "enp5s0")
    kernel.tree.link("/sys/class/net/enp5s0", f"{kernel.tree.device_path(TWINS[1])}/net/enp5s0")
    assert run(kernel, {"interface": "enp5s0"}, check=True)["devices"][0]["address"] == TWINS[1]


def test_a_device_that_was_unbound_goes_back_to_no_driver(kernel: FakeKernel) -> None:
    quadruple(kernel, *SLOT)
    quadruple(kernel, *SLOT, state="released")
    assert [driver(kernel, address) for address in SLOT] == ["tg3", "tg3", None, None]


def test_a_device_bound_by_somebody_else_is_released_to_the_kernels_choice(kernel: FakeKernel) -> None:
    kernel.run(["modprobe", "vfio-pci"])
    kernel.tree.set_attribute(VF0, "driver_override", "vfio-pci").bind(VF0, "vfio-pci")

    done = quadruple(kernel, VF0, state="released")

    assert driver(kernel, VF0) == "igbvf"
    assert done["devices"][0]["after"] == {"driver": "auto", "driver_override": None}
    # Bound again it is as it was before us, so nothing is left to undo.
    quadruple(kernel, VF0, persistent=False)
    assert not kernel.exists(STATE_PATH)


def test_release_loads_the_driver_the_device_had(kernel: FakeKernel) -> None:
    run(kernel, VF0, VF1)
    kernel.run(["modprobe", "-r", "igbvf"])
    quadruple(kernel, VF0, state="released")
    assert driver(kernel, VF0) == "igbvf"


def test_release_of_a_device_whose_driver_is_gone(kernel: FakeKernel) -> None:
    """It cannot have it back, and is free for any other."""
    run(kernel, VF0)
    kernel.run(["modprobe", "-r", "igbvf"])
    del kernel.drivers["igbvf"]
    done = quadruple(kernel, VF0, state="released")
    assert done["devices"][0]["after"] == {"driver": "auto", "driver_override": None}
    assert driver(kernel, VF0) is None
    assert kernel.attribute(f"/sys/bus/pci/devices/{VF0}/driver_override") == "(null)"


def test_release_of_what_only_has_an_override_keeps_its_driver(kernel: FakeKernel) -> None:
    kernel.tree.set_attribute(VF0, "driver_override", "vfio-pci")
    quadruple(kernel, VF0, state="released")
    assert driver(kernel, VF0) == "igbvf"
    assert [path.rsplit("/", 1)[-1] for path, _unused in kernel.writes] == ["driver_override"]


def test_release_of_what_is_with_the_host_changes_nothing(kernel: FakeKernel) -> None:
    assert not run(kernel, VF0, state="released")["changed"]
    assert not kernel.exists(STATE_PATH)


def test_a_killed_run_is_completed(kernel: FakeKernel) -> None:
    """Killed after the detach: the record says what the device had, and the next run goes on from there."""
    run(kernel, VF0)
    kernel.tree.bind(VF0, None)
    done = run(kernel, VF0)
    assert [action["description"] for action in done["actions"]] == [f"bind {VF0} to vfio-pci"]
    run(kernel, VF0, state="released")
    assert driver(kernel, VF0) == "igbvf"


def test_exclusive_releases_what_is_no_longer_listed(kernel: FakeKernel) -> None:
    run(kernel, VF0, TWINS[0])
    kernel.tree.set_attribute(VF1, "driver_override", "vfio-pci").bind(VF1, "vfio-pci")  # by somebody else

    done = quadruple(kernel, TWINS[0], exclusive=True)

    assert [driver(kernel, address) for address in (VF0, VF1, TWINS[0])] == ["igbvf", "vfio-pci", "vfio-pci"]
    assert [device["address"] for device in done["devices"]] == [TWINS[0], VF0]
    assert [str(device.address) for device in parse(kernel.read_text(RULES_PATH))] == [TWINS[0]]

    quadruple(kernel, exclusive=True)
    assert driver(kernel, TWINS[0]) == "e1000e"
    assert not kernel.exists(RULES_PATH)


def test_exclusive_gives_no_group_mate_back_to_the_host(kernel: FakeKernel) -> None:
    run(kernel, SLOT[0], group="include")
    kernel.writes.clear()

    error = refused(kernel, SLOT[0], exclusive=True)

    assert codes(error) == [("group_not_viable", SLOT[0])]
    assert "given back to the host" in str(error)
    assert not run(kernel, SLOT[0], exclusive=True, group="include")["changed"]


def test_exclusive_leaves_alone_what_went_back_by_itself(kernel: FakeKernel) -> None:
    run(kernel, VF0, TWINS[0], persistent=False)
    kernel.tree.set_attribute(VF0, "driver_override", "(null)").bind(VF0, "igbvf")
    done = run(kernel, TWINS[0], exclusive=True, persistent=False)
    assert not done["changed"]
    assert [device["address"] for device in done["devices"]] == [TWINS[0]]


def test_exclusive_does_not_take_another_device_for_the_one_it_bound(kernel: FakeKernel) -> None:
    run(kernel, VF0, TWINS[0])
    kernel.tree.set_attribute(VF0, "device", "0x1520")
    run(kernel, TWINS[0], exclusive=True)
    assert driver(kernel, VF0) == "vfio-pci"


# -- which driver ------------------------------------------------------------------------------------------

VARIANT = "mlx5_vfio_pci"


@pytest.fixture
def variants(kernel: FakeKernel) -> FakeKernel:
    """A kernel with a variant driver for the VFs."""
    kernel.drivers[VARIANT] = frozenset()
    kernel.install(InitramfsToolsStandIn, *KERNELS)
    kernel.tree.write("/proc/sys/kernel/osrelease", f"{KERNELS[1]}\n")
    kernel.tree.write(
        f"/lib/modules/{KERNELS[1]}/modules.alias",
        f"alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\nalias vfio_pci:v00008086d000010CAsv*sd*bc*sc*i* {VARIANT}\n",
    )
    return kernel


def rules(kernel: FakeKernel) -> dict[str, str]:
    """The driver that each device gets at every boot."""
    return {str(device.address): device.driver for device in parse(kernel.read_text(RULES_PATH))}


def test_the_driver_made_for_a_device_is_chosen(variants: FakeKernel) -> None:
    """Also with others in one request; each gets its own at every boot."""
    done = quadruple(variants, VF0, TWINS[0])
    assert [driver(variants, address) for address in (VF0, TWINS[0])] == [VARIANT, "vfio-pci"]
    loaded = [action["description"] for action in done["actions"] if "load the module" in action["description"]]
    assert loaded == [f"load the module of {VARIANT}", "load the module of vfio-pci"]
    assert rules(variants) == {VF0: VARIANT, TWINS[0]: "vfio-pci"}
    assert variants.read_text(MODULES_PATH).splitlines()[1:] == [VARIANT, "vfio-pci"]
    quadruple(variants, VF0, state="released")
    assert [driver(variants, address) for address in (VF0, TWINS[0])] == ["igbvf", "vfio-pci"]
    assert rules(variants) == {TWINS[0]: "vfio-pci"}


def test_a_vfio_driver_that_a_device_has_is_kept_unless_another_is_named(variants: FakeKernel) -> None:
    run(variants, VF0, driver="vfio-pci")
    done = run(variants, VF0)
    assert not done["changed"]
    assert [f"set driver to {VARIANT}" in warning for warning in done["warnings"]] == [True]
    assert rules(variants) == {VF0: "vfio-pci"}

    done = quadruple(variants, VF0, driver=VARIANT)
    assert done["devices"][0]["before"]["driver"] == "vfio-pci"
    assert rules(variants) == {VF0: VARIANT}
    assert "warnings" not in run(variants, VF0)
    quadruple(variants, VF0, state="released")
    assert driver(variants, VF0) == "igbvf"


def test_a_variant_driver_that_is_not_to_be_had_is_passed_over(variants: FakeKernel) -> None:
    """modules.alias names it, and the module is not there (a package for modules-extra that was not installed)."""
    del variants.drivers[VARIANT]
    quadruple(variants, VF0)
    assert driver(variants, VF0) == "vfio-pci"


@pytest.mark.parametrize("present", [True, False])
@pytest.mark.parametrize(
    ("written", "meant"),
    [("vfio_pci", "vfio-pci"), ("vfio-pci", "vfio-pci"), ("mlx5-vfio-pci", VARIANT), (VARIANT, VARIANT)],
)
def test_dashes_and_underscores_are_one(variants: FakeKernel, written: str, meant: str, present: bool) -> None:
    if present:
        variants.run(["modprobe", meant])
    quadruple(variants, VF0, driver=written)
    assert driver(variants, VF0) == meant


def test_a_driver_of_another_spelling_that_is_there_is_the_one_that_is_meant(kernel: FakeKernel) -> None:
    kernel.drivers["odd-vfio"] = frozenset()
    kernel.run(["modprobe", "odd-vfio"])
    run(kernel, VF0, driver="odd_vfio", persistent=False)
    assert driver(kernel, VF0) == "odd-vfio"


def test_mates_are_kept_with_the_vfio_drivers_they_have(variants: FakeKernel) -> None:
    variants.run(["modprobe", VARIANT])
    variants.tree.set_attribute(SLOT[1], "driver_override", VARIANT).bind(SLOT[1], VARIANT)
    quadruple(variants, SLOT[0], group="include")
    assert [driver(variants, address) for address in SLOT] == ["vfio-pci", VARIANT, "vfio-pci", "vfio-pci"]
    assert rules(variants)[SLOT[1]] == VARIANT


# -- a device that somebody else gave back, or that was replaced -------------------------------------------


def records(kernel: FakeKernel) -> list[str]:
    """The names of what is remembered of devices."""
    text = kernel.attribute(STATE_PATH)
    listed = json.loads(text)["records"] if text else []
    return [record["key"] for record in listed if record["kind"] == "driver"]


def test_released_twice(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    run(kernel, VF0, state="released")
    kernel.writes.clear()
    assert not run(kernel, VF0, state="released")["changed"]
    assert kernel.writes == []


def test_released_by_hand_meanwhile(kernel: FakeKernel) -> None:
    """As driverctl and virsh nodedev-reattach do it: what is left is our rule and what we remember."""
    run(kernel, VF0)
    kernel.give_back(VF0)
    kernel.writes.clear()

    done = quadruple(kernel, VF0, state="released")

    assert kernel.writes == []
    descriptions = [action["description"] for action in done["actions"]]
    assert f"forget what {VF0} had: it has igbvf, and not through this collection" in descriptions
    assert not kernel.exists(RULES_PATH)
    assert not kernel.exists(STATE_PATH)


def test_released_by_hand_and_bound_again(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    kernel.give_back(VF0)
    quadruple(kernel, VF0)
    quadruple(kernel, VF0, state="released")
    assert driver(kernel, VF0) == "igbvf"
    assert not kernel.exists(STATE_PATH)


def test_what_somebody_else_gave_a_device_is_what_it_gets_back(kernel: FakeKernel) -> None:
    """Not what it had at the time before."""
    run(kernel, VF0)
    kernel.drivers["uio_pci_generic"] = frozenset()
    kernel.run(["modprobe", "uio_pci_generic"])
    kernel.tree.set_attribute(VF0, "driver_override", "uio_pci_generic").bind(VF0, "uio_pci_generic")
    quadruple(kernel, VF0)
    quadruple(kernel, VF0, state="released")
    assert driver(kernel, VF0) == "uio_pci_generic"
    assert kernel.attribute(f"/sys/bus/pci/devices/{VF0}/driver_override") == "uio_pci_generic"
    assert not kernel.exists(STATE_PATH)


def test_unbound_by_hand_meanwhile(kernel: FakeKernel) -> None:
    """Nobody gave it a driver, so it is still with us to give it back."""
    run(kernel, VF0)
    kernel.tree.set_attribute(VF0, "driver_override", "(null)").bind(VF0, None)
    quadruple(kernel, VF0, state="released")
    assert driver(kernel, VF0) == "igbvf"
    assert not kernel.exists(STATE_PATH)


def test_a_driver_that_is_gone_is_told_and_comes_back_with_a_later_run(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    kernel.run(["modprobe", "-r", "igbvf"])
    known = kernel.drivers.pop("igbvf")
    done = run(kernel, VF0, state="released")
    assert [f"{VF0} had the driver igbvf" in warning for warning in done["warnings"]] == [True]
    assert "warnings" not in run(kernel, VF0, state="released")
    kernel.drivers["igbvf"] = known
    quadruple(kernel, VF0, state="released")
    assert driver(kernel, VF0) == "igbvf"
    assert not kernel.exists(STATE_PATH)


NEW = "1520"
"""The id of another device of the same make."""


def replace_device(kernel: FakeKernel, address: str, driver: str | None = None) -> None:
    """A machine that was switched off, and has another device in that place now."""
    kernel.tree.set_attribute(address, "device", f"0x{NEW}").set_attribute(address, "driver_override", "(null)")
    kernel.tree.bind(address, driver)


@pytest.mark.parametrize("persistent", [True, False])
def test_a_device_in_the_place_of_another_is_not_taken_for_it(kernel: FakeKernel, persistent: bool) -> None:
    run(kernel, TWINS[0], persistent=persistent)
    replace_device(kernel, TWINS[0])
    kernel.writes.clear()

    error = refused(kernel, TWINS[0], persistent=persistent)

    assert codes(error) == [("identity_mismatch", TWINS[0])]
    assert "expected 8086:10d3, found 8086:1520" in str(error)
    assert error.problems[0].details["differences"] == [{"field": "ids", "expected": "8086:10d3", "found": "8086:1520"}]


def test_a_new_device_that_is_meant_is_bound_and_the_old_one_forgotten(kernel: FakeKernel) -> None:
    run(kernel, TWINS[0])
    replace_device(kernel, TWINS[0])
    meant = {"address": TWINS[0], "expect": {"vendor_id": "8086", "device_id": NEW}}
    done = quadruple(kernel, meant)
    assert f"forget what {TWINS[0]} had: the device 8086:10d3 is gone" in [
        action["description"] for action in done["actions"]
    ]
    assert records(kernel) == [f"{TWINS[0]} 8086:{NEW}"]
    assert [f"{device.device:04x}" for device in parse(kernel.read_text(RULES_PATH))] == [NEW]
    assert "stale" not in str(run(kernel, meant).get("warnings"))


def test_a_rule_knows_the_card_too(kernel: FakeKernel) -> None:
    run(kernel, TWINS[0])
    kernel.tree.set_attribute(TWINS[0], "subsystem_device", "0x4711")
    error = failure(kernel, TWINS[0])
    assert error is not None
    assert error.code == "identity_mismatch"
    assert "card 1af4:1100" in str(error)
    assert "card 1af4:4711" in str(error)


def test_release_of_a_place_forgets_what_was_there(kernel: FakeKernel) -> None:
    run(kernel, TWINS[0])
    replace_device(kernel, TWINS[0], driver="e1000e")
    quadruple(kernel, TWINS[0], state="released")
    assert driver(kernel, TWINS[0]) == "e1000e"
    assert not kernel.exists(RULES_PATH)
    assert not kernel.exists(STATE_PATH)


def test_devices_that_are_gone_are_told_until_exclusive_drops_them(kernel: FakeKernel) -> None:
    run(kernel, TWINS[0], TWINS[1], VF0, VF1)
    kernel.remove_device(TWINS[0])
    replace_device(kernel, VF1, driver="igbvf")

    done = quadruple_without_change(kernel, VF0)

    assert done["stale"] == [
        {"address": VF1, "ids": "8086:10ca", "found": f"8086:{NEW}", "driver": "vfio-pci", "persistent": True},
        {"address": TWINS[0], "ids": "8086:10d3", "found": None, "driver": "vfio-pci", "persistent": True},
    ]
    assert [text.split(",")[0] for text in done["warnings"]] == [
        f"The device 8086:10ca at {VF1}",
        f"The device 8086:10d3 at {TWINS[0]}",
    ]

    done = quadruple(kernel, VF0, TWINS[1], exclusive=True)

    assert "warnings" not in done
    assert run(kernel, VF0)["stale"] == []
    assert records(kernel) == [f"{VF0} 8086:10ca", f"{TWINS[1]} 8086:10d3"]
    assert list(rules(kernel)) == [VF0, TWINS[1]]
    assert driver(kernel, VF1) == "igbvf"


def quadruple_without_change(kernel: FakeKernel, *devices: Any, **options: Any) -> dict[str, Any]:
    """A check and a run that change nothing and say the same."""
    before = tree_hash(kernel.root)
    found = [run(kernel, *devices, check=check, **options) for check in (True, False)]
    assert found[0] == found[1]
    assert not found[0]["changed"]
    assert tree_hash(kernel.root) == before
    return found[0]


# -- groups ------------------------------------------------------------------------------------------------


def test_unlisted_mates_are_named(kernel: FakeKernel) -> None:
    error = refused(kernel, SLOT[0])
    assert codes(error) == [("group_not_viable", SLOT[0])]
    assert error.problems[0].details["mates"] == SLOT[1:]
    for mate in SLOT[1:]:
        assert mate in str(error)


def test_include_takes_the_mates_and_guards_them(kernel: FakeKernel) -> None:
    kernel.addresses.append(
        {"ifname": "enp2s0f1", "addr_info": [{"family": "inet", "local": "192.0.2.11", "scope": "global"}]}
    )
    assert codes(refused(kernel, SLOT[0], group="include")) == [("management_network", SLOT[1])]
    kernel.addresses.pop()
    done = quadruple(kernel, SLOT[0], group="include")
    assert [device["address"] for device in done["devices"]] == SLOT
    assert {driver(kernel, address) for address in SLOT} == {"vfio-pci"}


def test_include_gives_back_the_mates_it_took(kernel: FakeKernel) -> None:
    before = {address: driver(kernel, address) for address in SLOT}
    run(kernel, SLOT[0], TWINS[0], group="include")
    done = quadruple(kernel, SLOT[1], group="include", state="released")
    assert [device["address"] for device in done["devices"]] == SLOT
    assert {address: driver(kernel, address) for address in SLOT} == before
    assert driver(kernel, TWINS[0]) == "vfio-pci"  # of another group


def test_a_mate_that_is_bound_to_vfio_or_a_bridge_or_a_platform_part_is_not_in_the_way(kernel: FakeKernel) -> None:
    tree = kernel.tree
    tree.add_device("0000:07:00.0", ids="8086:1572", pci_class=0x0C0330, group=30)
    tree.add_device("0000:07:00.1", ids="8086:1573", pci_class=0x050000, group=30)
    tree.add_device("0000:07:00.2", ids="8086:1574", driver="pcieport", bridge=True, group=30)
    kernel.run(["modprobe", "vfio-pci"])
    tree.add_device("0000:07:00.3", ids="8086:1575", driver="vfio-pci", override="vfio-pci", group=30)
    done = quadruple(kernel, "0000:07:00.0")
    assert [device["address"] for device in done["devices"]] == ["0000:07:00.0"]


def test_a_mate_on_pci_stub_is_not_in_the_way_and_stays_there(kernel: FakeKernel) -> None:
    """The kernel's own rule: a driver that leaves DMA alone leaves the group free."""
    kernel.tree.add_device("0000:07:00.0", ids="8086:1572", group=30)
    kernel.tree.add_device("0000:07:00.1", ids="8086:1573", driver="pci-stub", override="pci-stub", group=30)
    for group in ("require", "include"):
        done = run(kernel, "0000:07:00.0", group=group, check=True)
        assert [device["address"] for device in done["devices"]] == ["0000:07:00.0"]
    quadruple(kernel, "0000:07:00.0")
    assert driver(kernel, "0000:07:00.1") == "pci-stub"


# -- groups that show once a driver has probed -------------------------------------------------------------

LATE, LATE_MATE = "0000:07:00.0", "0000:07:00.1"


@pytest.fixture
def arm(kernel: FakeKernel) -> FakeKernel:
    """A host with an SMMU, and a device that no driver has probed yet."""
    kernel.tree.write("/sys/class/iommu/smmu3.0x0000000009050000/uevent", "")
    kernel.tree.add_device(LATE, ids="1234:11e8", pci_class=0x00FF00)
    kernel.groups_at_probe = {LATE: 30}
    return kernel


def test_a_device_gets_its_group_with_the_binding(arm: FakeKernel) -> None:
    assert devices_report(arm, [LATE])["devices"][0]["assignable"] is None
    done = quadruple(arm, LATE)
    described = [action["description"] for action in done["actions"]]
    assert f"look at the IOMMU group of {LATE}, which shows once the device is bound" in described
    assert [LATE in warning and "not known before a driver" in warning for warning in done["warnings"]] == [True]
    assert done["devices"][0]["iommu_group"] is None
    assert "warnings" not in run(arm, LATE)
    assert devices_report(arm, [LATE])["devices"][0]["assignable"] is True
    quadruple(arm, LATE, state="released")
    assert run(arm, LATE)["devices"][0]["iommu_group"] == 30


def test_a_device_that_gets_no_group(arm: FakeKernel) -> None:
    arm.groups_at_probe = {}
    before = tree_hash(arm.root, OWN)
    with pytest.raises(PassthroughError) as caught:
        run(arm, LATE)
    assert caught.value.code == "no_iommu"
    assert caught.value.extra["failed_action"].startswith(f"look at the IOMMU group of {LATE}")
    assert tree_hash(arm.root, OWN) == before


@pytest.mark.parametrize("group", ["require", "include"])
def test_a_group_that_turns_out_to_hold_a_device_of_the_host(arm: FakeKernel, group: str) -> None:
    """Everything is taken back; the group is known from then on, and the next run goes by it."""
    arm.tree.add_device(LATE_MATE, ids="8086:10d3", driver="e1000e", group=30)
    assert run(arm, LATE, VF0, group=group, check=True)["changed"]
    with pytest.raises(PassthroughError) as caught:
        run(arm, LATE, VF0, group=group)
    assert codes(caught.value) == [("group_not_viable", LATE)]
    assert LATE_MATE in str(caught.value)
    assert ("another run finds them" in str(caught.value)) is (group == "include")
    assert [driver(arm, address) for address in (LATE, LATE_MATE, VF0)] == [None, "e1000e", "igbvf"]
    assert not arm.exists(RULES_PATH)
    assert not arm.exists(STATE_PATH)
    arm.writes.clear()
    if group == "require":
        assert codes(refused(arm, LATE)) == [("group_not_viable", LATE)]
        quadruple(arm, LATE, LATE_MATE)
    else:
        assert [device["address"] for device in quadruple(arm, LATE, group=group)["devices"]] == [LATE, LATE_MATE]


def test_a_group_that_turns_out_to_be_reserved(arm: FakeKernel) -> None:
    arm.tree.add_group(30, reserved=["0x0 0xfff direct"])
    with pytest.raises(PassthroughError) as caught:
        run(arm, LATE)
    assert codes(caught.value) == [("reserved_region", LATE)]
    assert driver(arm, LATE) is None
    run(arm, LATE, force=["reserved_region"])
    assert driver(arm, LATE) == "vfio-pci"


# -- IBM Z -------------------------------------------------------------------------------------------------


def test_ibm_z(tmp_path: Path) -> None:
    """Addresses with the uid as domain; no ACPI, no interrupt controllers, no initramfs of a known kind."""
    tree = SysfsTree(tmp_path, kernel="6.12.57-s390x")
    tree.write("/proc/sys/kernel/arch", "s390x\n")
    tree.write("/proc/interrupts", "           CPU0\nEXT:       4711\nPCI:          9\nDMA:          0\n")
    tree.write("/proc/self/mountinfo", "25 1 0:2 / / rw shared:1 - rootfs rootfs rw\n")
    tree.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n").link("/proc/1/fd/0", "/dev/null")
    for uid, fid in ((0x1234, 0x10), (0xFFFF, 0x11)):
        tree.add_device(
            f"{uid:04x}:00:00.0",
            ids="15b3:1016",
            pci_class=0x020000,
            driver="mlx5_core",
            group=fid,
            attributes={"uid": f"0x{uid:x}", "function_id": f"0x{fid:08x}", "pchid": "0x0100", "uid_is_unique": "1"},
        )
        tree.write(f"/sys/class/iommu/s390-iommu.{fid:08x}/uevent", "")
    kernel = FakeKernel(tree, {"mlx5_core": ["15b3:1016"], "vfio-pci": []})
    before = tree_listing(kernel.root, OWN)

    found = devices_report(kernel, ["1234:00:00.0"])["devices"][0]
    assert (found["assignable"], found["obstacles"]) == (True, [])
    quadruple(kernel, "1234:00:00.0", persistent=False)
    assert [driver(kernel, f"{uid}:00:00.0") for uid in ("1234", "ffff")] == ["vfio-pci", "mlx5_core"]
    quadruple(kernel, "1234:00:00.0", state="released")
    kernel.run(["modprobe", "-r", "vfio-pci"])
    assert tree_listing(kernel.root, OWN) == before

    tree.write("/usr/bin/dracut", "").path("/usr/bin/dracut").chmod(0o755)
    kernel.writes.clear()
    error = refused(kernel, "1234:00:00.0")
    assert error.code == "initramfs_not_found"
    assert "dracut" in str(error)
    assert "persistent to false" in str(error)


# -- refusals ----------------------------------------------------------------------------------------------


def test_everything_that_stands_against_it_is_reported_at_once(kernel: FakeKernel) -> None:
    error = refused(kernel, NVME, MANAGEMENT, "0000:00:00.0", "0000:00:01.0", PF)
    assert codes(error) == [
        ("system_device", "0000:00:00.0"),
        ("bridge", "0000:00:01.0"),
        ("has_vfs", PF),
        ("boot_disk", NVME),
        ("management_network", MANAGEMENT),
    ]


def test_force_takes_codes(kernel: FakeKernel) -> None:
    assert codes(refused(kernel, NVME, MANAGEMENT, force=["boot_disk"])) == [("management_network", MANAGEMENT)]
    assert codes(refused(kernel, "0000:00:01.0", force=["boot_disk", "system_device"])) == [("bridge", "0000:00:01.0")]
    run(kernel, NVME, force=["boot_disk"])
    assert driver(kernel, NVME) == "vfio-pci"


def test_what_is_to_be_known_is_a_warning(kernel: FakeKernel) -> None:
    """Nothing refuses a device that cannot be reset, and so neither do we; it is told when it is bound, once."""
    kernel.tree.path(f"{kernel.tree.device_path(TWINS[0])}/reset_method").unlink()
    done = quadruple(kernel, *TWINS)
    assert [TWINS[0] in warning and "no way to reset" in warning for warning in done["warnings"]] == [True]
    assert "warnings" not in run(kernel, *TWINS)


def test_two_controllers_with_a_keyboard_each_are_not_both_given_away(kernel: FakeKernel) -> None:
    controllers = ["0000:00:14.0", "0000:00:1a.0"]
    for number, address in enumerate(controllers):
        kernel.tree.add_device(
            address, ids=f"8086:7ae{number}", pci_class=0x0C0330, driver="xhci_hcd", group=40 + number
        )
        kernel.tree.add_keyboard(number, f"{kernel.tree.device_path(address)}/usb1/1-1")
    for address in controllers:
        run(kernel, address, check=True)
    assert codes(refused(kernel, *controllers)) == [("usb_in_use", address) for address in controllers]
    run(kernel, *controllers, check=True, force=["usb_in_use"])


def test_guards_look_at_what_changes_only(kernel: FakeKernel) -> None:
    run(kernel, NVME, force=["boot_disk"])
    assert not run(kernel, NVME)["changed"]


def test_a_device_in_use_is_not_released(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    kernel.writes.clear()
    kernel.tree.path("/proc/4711/fd").mkdir(parents=True)
    kernel.tree.path("/proc/4711/fd/30").symlink_to("/dev/vfio/15")
    kernel.tree.write("/proc/4711/cmdline", "qemu-system-x86_64\0-name\0guest=web,debug-threads=on\0")
    error = refused(kernel, VF0, state="released")
    assert codes(error) == [("in_use_by_domain", VF0)]
    assert "domain web (process 4711)" in str(error)


def test_a_domain_that_is_defined_with_a_released_device(kernel: FakeKernel) -> None:
    run(kernel, VF0)
    source = "<source><address domain='0' bus='1' slot='0x10' function='0'/></source>"
    kernel.tree.write(
        "/etc/libvirt/qemu/web.xml",
        f"<domain><name>web</name><devices><hostdev type='pci'>{source}</hostdev></devices></domain>",
    )
    warnings = quadruple(kernel, VF0, state="released")["warnings"]
    assert [text.startswith(f"The domain web is defined with {VF0} and managed='no'") for text in warnings] == [True]


def test_without_an_iommu(kernel: FakeKernel) -> None:
    for address in kernel.list_dir("/sys/bus/pci/devices"):
        kernel.tree.path(f"/sys/bus/pci/devices/{address}/iommu_group").unlink(missing_ok=True)
    for group in kernel.list_dir("/sys/kernel/iommu_groups"):
        for link in kernel.tree.path(f"/sys/kernel/iommu_groups/{group}/devices").iterdir():
            link.unlink()
    error = refused(kernel, VF0)
    assert codes(error) == [("no_iommu", VF0)]
    assert "iommu_info" in str(error)


def test_without_a_module(kernel: FakeKernel) -> None:
    del kernel.drivers["vfio-pci"]
    assert codes(refused(kernel, VF0)) == [("driver_unavailable", "")]


def test_a_loaded_module_without_such_a_driver(kernel: FakeKernel) -> None:
    """It is not loaded again, and so not unloaded from under the devices that have its driver under another name."""
    kernel.tree.path("/sys/module/odd_vfio").mkdir()
    error = refused(kernel, VF1, driver="odd_vfio")
    assert codes(error) == [("driver_unavailable", "")]
    assert "the kernel has no PCI driver odd_vfio" in str(error)


def test_a_module_that_others_use_by_now_stays(kernel: FakeKernel) -> None:
    """While the images are built, somebody else binds a device to the driver that was loaded."""
    other = TWINS[0]

    class Meanwhile(InitramfsToolsStandIn):
        def run(self, argv: Sequence[str]) -> Completed | None:
            if argv[0] == "update-initramfs" and driver(kernel, other) == "e1000e":
                kernel.tree.bind(other, "vfio-pci")
                return Completed(tuple(argv), 1, "", "no space left")
            return super().run(argv)

    kernel.install(Meanwhile, *KERNELS)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0)
    assert [(driver(kernel, address)) for address in (VF0, other)] == ["igbvf", "vfio-pci"]
    assert [problem.code for problem in caught.value.problems[1:]] == ["not_undone"]
    assert f"{other} would lose the driver vfio-pci" in str(caught.value)


def test_a_module_that_somebody_else_loaded_meanwhile_stays(kernel: FakeKernel) -> None:
    step = LoadModule("vfio-pci")
    kernel.run(["modprobe", "vfio-pci"])
    step.apply(kernel)
    step.undo(kernel)
    assert "vfio-pci" in kernel.loaded


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"driver": "igb"}, "driver_invalid"),
        ({"driver": "vfio-pci; reboot"}, "driver_invalid"),
        ({"driver": "../vfio"}, "driver_invalid"),
        ({"timeout": 0}, "timeout_invalid"),
        ({"exclusive": True, "state": "released"}, "options_conflict"),
    ],
)
def test_bad_options(kernel: FakeKernel, options: dict[str, Any], code: str) -> None:
    assert refused(kernel, VF0, **options).code == code


def test_bad_selectors_and_options_are_reported_together(kernel: FakeKernel) -> None:
    error = refused(kernel, "01:20.0", "0000:01:10.9", driver="igb")
    assert [problem.code for problem in error.problems] == [
        "address_out_of_range",
        "address_out_of_range",
        "driver_invalid",
    ]


def test_another_initramfs_tool(kernel: FakeKernel) -> None:
    kernel.tree.path("/usr/share/initramfs-tools/hook-functions").unlink()
    kernel.tree.write("/usr/bin/booster", "").path("/usr/bin/booster").chmod(0o755)
    error = refused(kernel, VF0)
    assert error.code == "persistence_unsupported"
    assert "persistent" in str(error)
    quadruple(kernel, VF0, persistent=False)


# -- the next boot -----------------------------------------------------------------------------------------


def test_not_persistent(kernel: FakeKernel) -> None:
    quadruple(kernel, VF0, persistent=False)
    assert not kernel.exists(RULES_PATH)
    quadruple(kernel, VF0)
    assert kernel.exists(RULES_PATH)
    quadruple(kernel, VF0, persistent=False)
    assert not kernel.exists(RULES_PATH)
    assert driver(kernel, VF0) == "vfio-pci"


def test_a_host_without_initramfs(kernel: FakeKernel) -> None:
    kernel.tree.path("/usr/share/initramfs-tools/hook-functions").unlink()
    quadruple(kernel, VF0)
    assert kernel.exists(RULES_PATH)
    assert not kernel.exists(HOOK_PATH)
    assert not kernel.exists(STAMP_PATH)


def test_images_of_a_killed_run_are_built(kernel: FakeKernel) -> None:
    """Killed after the files were written and before the images were built."""
    run(kernel, VF0)
    kernel.tree.path(STAMP_PATH).unlink()
    done = quadruple(kernel, VF0)
    assert [action["target"] for action in done["actions"]] == ["initramfs"]
    run(kernel, VF0, state="released")
    kernel.tree.write(STAMP_PATH, "{}\n")
    assert [action["target"] for action in quadruple(kernel, VF0, state="released")["actions"]] == ["initramfs"]


def test_an_image_that_lacks_the_module_is_an_error(kernel: FakeKernel) -> None:
    before = tree_hash(kernel.root, OWN)
    assert kernel.initramfs is not None
    kernel.initramfs.lacks_modules = True
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0)
    assert [problem.code for problem in caught.value.problems] == ["initramfs_incomplete"] * len(KERNELS)
    assert "it lacks the module vfio-pci" in str(caught.value)
    assert tree_hash(kernel.root, OWN) == before


# -- failures ----------------------------------------------------------------------------------------------


def failure(kernel: FakeKernel, *devices: Any, **options: Any) -> PassthroughError | None:
    try:
        run(kernel, *devices, **options)
    except PassthroughError as error:
        return error
    return None


@pytest.mark.parametrize("state", ["bound", "released"])
@pytest.mark.parametrize("fault", [Fault.EIO, Fault.IGNORE])
def test_any_write_may_fail(tmp_path: Path, fault: Fault, state: str) -> None:
    """At each write in turn: the request fails as a whole, and everything is as it was before."""
    for position in itertools.count(1):
        kernel = hypervisor(tmp_path / str(position))
        if state == "released":
            run(kernel, *SLOT, VF0)
        before = tree_listing(kernel.root, OWN)
        records = kernel.attribute(STATE_PATH)
        kernel.writes.clear()
        kernel.faults.by_number = {position: fault}
        error = failure(kernel, *SLOT, VF0, state=state)
        if error is None:
            assert len(kernel.writes) == position - 1  # every write was tried
            break
        assert error.extra["not_undone"] == []
        assert tree_listing(kernel.root, OWN) == before
        assert kernel.attribute(STATE_PATH) == records
    assert len(kernel.writes) >= 11


def test_a_late_driver_is_waited_for(tmp_path: Path) -> None:
    for position in range(1, 4):
        kernel = hypervisor(tmp_path / str(position))
        kernel.faults.by_number = {position: Fault.LATE}
        run(kernel, VF0)
        assert driver(kernel, VF0) == "vfio-pci"


def test_a_device_that_hangs(kernel: FakeKernel) -> None:
    """The others are brought back; the one that hangs is not written to again, and stays on record."""
    kernel.faults.by_number = {4: Fault.HANG}  # unbind of the second
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0, VF1)
    result = caught.value.as_result()
    assert result["code"] == "attribute_write_timeout"
    assert result["reboot_required"] is True
    assert driver(kernel, VF0) == "igbvf"
    assert [problem["target"] for problem in result["not_undone"]] == [VF1]
    assert sum(VF1 in path or VF1 in value for path, value in kernel.writes) == 2
    assert VF1 in kernel.read_text(STATE_PATH)
    assert f"{VF0} " not in kernel.read_text(STATE_PATH)


def test_a_device_whose_driver_has_not_let_go_since_an_earlier_run(kernel: FakeKernel) -> None:
    """It shows no driver, and the kernel does nothing when it is asked to bind it: a process that waits tells why."""
    kernel.tree.bind(VF1, None)
    kernel.faults.inject(VF1, "drivers_probe", Fault.IGNORE, times=None)
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0, VF1)
    assert caught.value.code == "driver_not_bound"

    kernel.tree.write("/proc/4711/status", "Name:\tpython3\nState:\tD (disk sleep)\n").write("/proc/4711/fd/1", "")
    kernel.tree.path("/proc/4711/fd/7").symlink_to("/sys/bus/pci/drivers/igbvf/unbind")
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0, VF1)
    result = caught.value.as_result()
    assert result["code"] == "device_hangs"
    assert result["reboot_required"] is True
    assert "process 4711 still writes to /sys/bus/pci/drivers/igbvf/unbind" in result["msg"]
    assert driver(kernel, VF0) == "igbvf"
    assert {problem["target"] for problem in result["not_undone"]} == {VF1}


def test_a_device_that_vanishes(kernel: FakeKernel) -> None:
    kernel.faults.by_number = {4: Fault.VANISH}
    with pytest.raises(PassthroughError) as caught:
        run(kernel, VF0, VF1)
    assert driver(kernel, VF0) == "igbvf"
    assert [problem["target"] for problem in caught.value.extra["not_undone"]] == [VF1]


def test_a_failing_command_undoes_the_bindings(kernel: FakeKernel) -> None:
    for command in ("modprobe", "update-initramfs"):
        before = tree_hash(kernel.root, OWN)
        kernel.failing_commands = {command}
        with pytest.raises(PassthroughError):
            run(kernel, VF0)
        assert driver(kernel, VF0) == "igbvf"
        assert tree_hash(kernel.root, OWN) == before
