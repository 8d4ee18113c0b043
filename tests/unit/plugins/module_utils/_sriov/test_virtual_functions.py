# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""VFs made, set and removed on the fake kernel; what stands against it; and what goes wrong."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, StateStore
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.grammar import parse_selector
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.boot import SCRIPT_PATH, UNIT_PATH, WANTS_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.virtual_functions import FORCIBLE_CODES
from ansible_collections.kvm.passthrough.tests.unit.support.devices import run as run_devices
from ansible_collections.kvm.passthrough.tests.unit.support.faults import Fault
from ansible_collections.kvm.passthrough.tests.unit.support.kernel import PCI_DEVICES
from ansible_collections.kvm.passthrough.tests.unit.support.machine import NVME, PF, TWINS, VF0, VF1
from ansible_collections.kvm.passthrough.tests.unit.support.sriov import SECOND_PF, SriovKernel, sriov_host
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing
from ansible_collections.kvm.passthrough.tests.unit.support.virtual_functions import asked, run

MAC = "52:54:00:00:00:01"
NUMVFS, AUTOPROBE = (f"{PCI_DEVICES}/{PF}/{name}" for name in ("sriov_numvfs", "sriov_drivers_autoprobe"))


@pytest.fixture(name="kernel")
def kernel_fixture(tmp_path: Path) -> SriovKernel:
    return sriov_host(tmp_path)


def failure(kernel: SriovKernel, *pfs: dict[str, Any], **options: Any) -> PassthroughError:
    with pytest.raises(PassthroughError) as caught:
        run(kernel, *pfs, **options)
    return caught.value


def bind(kernel: SriovKernel, *devices: Any, state: str = "bound", persistent: bool = False) -> dict[str, Any]:
    return run_devices(kernel, *devices, state=state, driver="vfio-pci", persistent=persistent)


def open_vfio(kernel: SriovKernel, address: str) -> None:
    """A virtual machine has the device."""
    group = kernel.link_name(f"{PCI_DEVICES}/{address}/iommu_group")
    kernel.tree.path("/proc/4711/fd").mkdir(parents=True, exist_ok=True)
    kernel.tree.path("/proc/4711/fd/9").symlink_to(f"/dev/vfio/{group}")
    kernel.tree.write("/proc/4711/comm", "qemu\n").write("/proc/4711/cmdline", "qemu\0-name\0guest=web01\0")


def pictured(kernel: SriovKernel) -> dict[str, str]:
    """The whole machine, with what is remembered."""
    return {**tree_listing(kernel.root, ("run", "var")), STATE_PATH: kernel.attribute(STATE_PATH) or ""}


# -- what it does --------------------------------------------------------------------------------------------


def test_check_run_check_run_of_two_cards(kernel: SriovKernel) -> None:
    pfs = (
        asked(vfs=[{"vf": "all", "trust": True}, {"vf": 0, "mac": MAC, "vlan": 7, "vlan_qos": 3}]),
        asked({"interface": "enp7s0", "name": "second"}, 2, drivers_autoprobe=True),
    )
    before = pictured(kernel)
    predicted = run(kernel, *pfs, check=True)
    assert pictured(kernel) == before
    assert kernel.writes == []
    assert run(kernel, *pfs) == predicted
    after = pictured(kernel)
    for check in (True, False):
        again = run(kernel, *pfs, check=check)
        assert not again["changed"]
        assert again["actions"] == []
    assert pictured(kernel) == after

    first, second = predicted["pfs"]
    assert first["before"] == {"count": 2, "drivers_autoprobe": True}
    assert first["after"] == {"count": 4, "drivers_autoprobe": False}
    assert [vf["address"] for vf in first["vfs"]] == [f"0000:01:10.{number}" for number in (0, 2, 4, 6)]
    assert first["vfs"][0]["settings"] == {
        "mac": MAC,
        "vlan": 7,
        "vlan_qos": 3,
        "vlan_protocol": "802.1q",
        "trust": True,
    }
    assert (second["name"], second["interface"], second["totalvfs"]) == ("second", "enp7s0", 7)
    assert [kernel.setting(PF, 0, word) for word in ("mac", "vlan", "qos", "trust")] == [MAC, 7, 3, True]
    assert [kernel.setting(PF, index, "trust") for index in range(4)] == [True] * 4


def test_no_driver_of_the_host_ever_has_a_vf_that_is_for_guests(kernel: SriovKernel) -> None:
    run(kernel, asked())
    # The kernel is told before the VFs are made, and the old ones go first.
    assert kernel.writes == [(NUMVFS, "0\n"), (AUTOPROBE, "0\n"), (NUMVFS, "4\n")]
    assert [kernel.link_name(f"{PCI_DEVICES}/0000:01:10.{number}/driver") for number in (0, 2, 4, 6)] == [None] * 4
    assert bind(kernel, {"pf": PF, "vf": [0, 1]})["changed"]
    assert kernel.link_name(f"{PCI_DEVICES}/{VF0}/driver") == "vfio-pci"


def test_virtual_functions_for_the_host_have_its_driver(kernel: SriovKernel) -> None:
    run(kernel, asked(SECOND_PF, 1, drivers_autoprobe=True))
    assert kernel.link_name(f"{PCI_DEVICES}/0000:07:10.0/driver") == "igbvf"


def test_afterwards_they_are_found_by_pf_and_index(kernel: SriovKernel) -> None:
    run(kernel, asked(SECOND_PF, 3))
    found = parse_selector({"pf": {"interface": "enp7s0"}, "vf": [0, 2]}).select(Bus(kernel))
    assert [str(device.address) for device in found] == ["0000:07:10.0", "0000:07:10.4"]


def test_what_is_set_already_is_not_set_again(kernel: SriovKernel) -> None:
    run(kernel, asked(count=2, vfs=[{"vf": 0, "mac": MAC, "spoof_check": True}], drivers_autoprobe=True))
    assert kernel.writes == []
    assert [command for command in kernel.commands if "set" in command] == [
        ["ip", "link", "set", "dev", "enp1s0", "vf", "0", "mac", MAC]
    ]
    kernel.set_behind_our_back(PF, 0, "trust", True)
    result = run(kernel, asked(count=2, vfs=[{"vf": 0, "mac": MAC, "trust": False}], drivers_autoprobe=True))
    assert [(action["before"], action["after"]) for action in result["actions"][:1]] == [
        ({"trust": True}, {"trust": False})
    ]


def test_an_address_the_host_did_not_set_is_left_alone(kernel: SriovKernel) -> None:
    run(kernel, asked(vfs=[{"vf": 1, "trust": True}]))
    assert kernel.setting(PF, 1, "mac") == "00:00:00:00:00:00"
    assert not any("mac" in command for command in kernel.commands)


def test_a_vlan_is_taken_away(kernel: SriovKernel) -> None:
    run(kernel, asked(vfs=[{"vf": 0, "vlan": 7, "vlan_qos": 2}]))
    run(kernel, asked(vfs=[{"vf": 0, "vlan": 0}]))
    assert [kernel.setting(PF, 0, word) for word in ("vlan", "qos")] == [0, 0]


def test_one_selector_means_all_cards_of_a_kind(kernel: SriovKernel) -> None:
    both = {"vendor_id": "8086", "device_id": "10c9", "count": "all"}
    result = run(kernel, asked(both, 3))
    assert [(pf["address"], len(pf["vfs"])) for pf in result["pfs"]] == [(PF, 3), (SECOND_PF, 3)]
    one_for_all = asked(both, 3, vfs=[{"vf": 0, "mac": MAC}])
    assert failure(kernel, one_for_all).code == "mac_duplicate"


def test_an_address_that_the_card_itself_has(kernel: SriovKernel) -> None:
    error = failure(kernel, asked(vfs=[{"vf": 0, "mac": "52:54:00:00:07:00"}]), asked(SECOND_PF, 1))
    assert error.code == "mac_duplicate"
    assert f"{SECOND_PF} itself" in str(error)


def test_predicted_addresses_that_prove_wrong_are_corrected(kernel: SriovKernel) -> None:
    """The specification lets offset and stride depend on the number of VFs."""
    kernel.tree.set_attribute(SECOND_PF, "sriov_offset", "0")
    assert [vf["address"] for vf in run(kernel, asked(SECOND_PF, 2), check=True)["pfs"][0]["vfs"]] == [None, None]
    kernel.tree.set_attribute(SECOND_PF, "sriov_offset", "64")
    predicted = run(kernel, asked(SECOND_PF, 1), check=True)
    kernel.tree.set_attribute(SECOND_PF, "sriov_offset", "128")
    done = run(kernel, asked(SECOND_PF, 1))
    addresses = [result["pfs"][0]["vfs"][0]["address"] for result in (predicted, done)]
    assert addresses == ["0000:07:08.0", "0000:07:10.0"]


# -- the next boot, and the way back -------------------------------------------------------------------------


def test_the_boot_of_one_card_is_kept_when_another_is_changed(kernel: SriovKernel) -> None:
    run(kernel, asked(vfs=[{"vf": 0, "mac": MAC}]))
    run(kernel, asked(SECOND_PF, 1))
    script = kernel.read_text(SCRIPT_PATH)
    assert f"make_vfs {PF} 0x8086 0x10c9 0x1af4 0x1100 4 0\n" in script
    assert f"make_vfs {SECOND_PF} 0x8086 0x10c9 0x1af4 0x1100 1 0\n" in script
    assert f"set_vf {PF} 0 mac {MAC}\n" in script
    run(kernel, asked(vfs=[{"vf": 0, "mac": MAC}]), persistent=False)
    assert PF not in kernel.read_text(SCRIPT_PATH)
    run(kernel, asked(SECOND_PF, 0))
    assert [kernel.exists(path) for path in (SCRIPT_PATH, UNIT_PATH, WANTS_PATH)] == [False] * 3
    assert len(kernel.list_dir(PCI_DEVICES)) == len(set(kernel.list_dir(PCI_DEVICES)))


def test_all_is_as_it_was_and_nothing_is_remembered(kernel: SriovKernel) -> None:
    pristine = pictured(kernel)
    run(kernel, asked(vfs=[{"vf": 0, "mac": MAC}]), asked(SECOND_PF, 2))
    bind(kernel, {"pf": PF, "vf": 3}, persistent=True)
    bind(kernel, {"pf": PF, "vf": 3}, state="released")
    run(kernel, asked(vfs=[{"vf": 0, "mac": "52:54:00:00:00:02", "trust": True}]))
    run(kernel, asked(count=0), asked(SECOND_PF, 0))
    # What the host had made itself is still to be restored.
    assert [(record.kind, record.before["count"]) for record in StateStore(kernel).all("sriov")] == [("sriov", 2)]
    assert StateStore(kernel).all("sriov_vf") == []
    assert kernel.attribute(AUTOPROBE) == "1"
    run(kernel, asked(count=2, drivers_autoprobe=True), persistent=False)
    assert kernel.attribute(STATE_PATH) is None
    kernel.run(["modprobe", "-r", "vfio-pci"])
    assert pictured(kernel) == pristine


def test_settings_of_a_vf_that_was_there_are_remembered(kernel: SriovKernel) -> None:
    kernel.set_behind_our_back(PF, 1, "vlan", 9)
    run(kernel, asked(count=2, vfs=[{"vf": 1, "vlan": 7}], drivers_autoprobe=True), persistent=False)
    (record,) = StateStore(kernel).all("sriov_vf")
    assert (record.key, record.before, record.after) == (f"{PF} 8086:10c9 vf 1 vlan", 9, 7)
    run(kernel, asked(count=2, vfs=[{"vf": 1, "vlan": 9}], drivers_autoprobe=True), persistent=False)
    assert kernel.attribute(STATE_PATH) is None


# -- what stands against it ----------------------------------------------------------------------------------


def test_a_virtual_function_that_a_guest_has(kernel: SriovKernel) -> None:
    run(kernel, asked())
    bind(kernel, {"pf": PF, "vf": 1})
    open_vfio(kernel, VF1)
    kernel.writes.clear()
    for count in (0, 2, 5):
        error = failure(kernel, asked(count=count))
        assert [(problem.code, problem.details["device"]) for problem in error.problems] == [("in_use_by_domain", VF1)]
        assert "web01" in str(error)
    assert kernel.writes == []
    # Its network would be another one; a limit is just a limit.
    assert failure(kernel, asked(vfs=[{"vf": 1, "vlan": 5}])).code == "in_use_by_domain"
    assert run(kernel, asked(vfs=[{"vf": 1, "max_tx_rate": 50, "trust": True}, {"vf": 0, "vlan": 5}]))["changed"]
    assert run(kernel, asked(count=5), force=["in_use_by_domain"])["changed"]


def test_a_virtual_function_that_the_host_is_reached_by(kernel: SriovKernel) -> None:
    kernel.tree.add_interface("enp1s0v1", "52:54:00:00:01:11", kernel.tree.device_path(VF1))
    address = {"family": "inet", "local": "192.0.2.20", "scope": "global"}
    kernel.addresses.append({"ifname": "enp1s0v1", "addr_info": [address]})
    error = failure(kernel, asked())
    assert [(problem.code, problem.details["device"]) for problem in error.problems] == [("management_network", VF1)]
    assert failure(kernel, asked(count=2, vfs=[{"vf": 1, "link_state": "disable"}])).code == "management_network"
    assert run(kernel, asked(count=2, vfs=[{"vf": 0, "trust": True}]), persistent=False)["changed"]
    assert run(kernel, asked(count=1), force=["management_network"])["changed"]


def test_what_can_be_forced() -> None:
    assert FORCIBLE_CODES == ("boot_disk", "in_use_by_domain", "management_network")


def test_what_is_to_be_known(kernel: SriovKernel) -> None:
    kernel.default_routes = [{"dst": "default", "dev": "enp1s0"}]
    bind(kernel, VF0)
    warnings = run(kernel, asked(), check=True)["warnings"]
    assert len(warnings) == 2
    assert f"{VF0} of {PF} is bound to VFIO and will vanish" in warnings[0]
    assert "enp1s0 of 0000:01:00.0 carries the IPv4 default route" in warnings[1]
    assert "warnings" not in run(kernel, asked(SECOND_PF, 1), check=True)
    kernel.failing_commands.add("ip")
    assert "warnings" not in run(kernel, asked(SECOND_PF, 1), check=True)


def test_domains_that_miss_a_virtual_function(kernel: SriovKernel) -> None:
    run(kernel, asked())
    source = "<source><address domain='0x0000' bus='0x01' slot='0x10' function='0x{function}'/></source>"
    for name, function in (("web", VF0[-1]), ("db", VF1[-1])):
        hostdev = f"<hostdev type='pci' managed='yes'>{source.format(function=function)}</hostdev>"
        kernel.tree.write(
            f"/etc/libvirt/qemu/{name}.xml", f"<domain><name>{name}</name><devices>{hostdev}</devices></domain>"
        )
    assert [VF1 in text and "defined: db." in text for text in run(kernel, asked(count=1), check=True)["warnings"]] == [
        True
    ]
    assert "warnings" not in run(kernel, asked(count=5), check=True)


def test_more_than_the_card_can_have(kernel: SriovKernel) -> None:
    error = failure(kernel, asked(count=8))
    assert (error.code, error.problems[0].details["totalvfs"]) == ("count_exceeds_totalvfs", 7)
    kernel.tree.set_attribute(SECOND_PF, "sriov_totalvfs", "0")
    assert "switched off in the card" in str(failure(kernel, asked(SECOND_PF, 1)))


def test_what_is_no_physical_function(kernel: SriovKernel) -> None:
    error = failure(kernel, asked(TWINS[0]), asked(VF0, 1), asked(NVME, 1))
    assert [problem.code for problem in error.problems] == ["not_a_pf"] * 3
    assert f"is a virtual function of {PF}" in error.problems[1].message


def test_cards_whose_driver_is_not_there(kernel: SriovKernel) -> None:
    kernel.tree.bind(SECOND_PF, None)
    assert failure(kernel, asked(SECOND_PF)).code == "pf_without_driver"
    kernel.tree.bind(SECOND_PF, "vfio-pci")
    kernel.tree.write("/sys/module/vfio_pci/parameters/enable_sriov", "N\n")
    assert failure(kernel, asked(SECOND_PF)).code == "pf_bound_to_vfio"
    kernel.tree.write("/sys/module/vfio_pci/parameters/enable_sriov", "Y\n")
    assert run(kernel, asked(SECOND_PF), check=True)["changed"]


def test_settings_without_an_interface(kernel: SriovKernel) -> None:
    kernel._unbind(SECOND_PF)
    kernel.tree.bind(SECOND_PF, "igb")
    assert failure(kernel, asked(SECOND_PF, vfs=[{"vf": 0, "trust": True}])).code == "vf_settings_impossible"
    assert run(kernel, asked(SECOND_PF))["changed"]


def test_a_card_with_a_switch_has_an_interface_for_each_function(kernel: SriovKernel) -> None:
    within = kernel.tree.device_path(SECOND_PF)
    for name, port in (("enp7s0", "p0"), ("a_representor", "pf0vf0"), ("b_representor", "c1pf0sf88")):
        if port != "p0":
            kernel.tree.add_interface(name, "52:54:00:00:07:99", within)
        kernel.tree.write(f"/sys/class/net/{name}/phys_port_name", f"{port}\n")
    assert run(kernel, asked(SECOND_PF, vfs=[{"vf": 0, "trust": True}]))["pfs"][0]["interface"] == "enp7s0"


def test_one_card_asked_for_twice(kernel: SriovKernel) -> None:
    assert failure(kernel, asked(), asked({"interface": "enp1s0"}, 2)).code == "selected_twice"


def test_without_systemd_only_until_the_next_boot(kernel: SriovKernel) -> None:
    kernel.tree.path("/run/systemd/system").rmdir()
    assert failure(kernel, asked()).code == "persistence_unsupported"
    assert run(kernel, asked(), persistent=False)["changed"]
    assert run(kernel, asked(count=0))["changed"]


def test_without_iproute2(kernel: SriovKernel) -> None:
    kernel.failing_commands.add("ip")
    assert failure(kernel, asked(vfs=[{"vf": 0, "trust": True}])).code == "command_failed"
    assert run(kernel, asked(SECOND_PF, 2))["changed"]


# -- what goes wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [
        (errno.ENOMEM, "vfs_no_resources", "pci=realloc"),
        (errno.ENOSPC, "vfs_no_resources", "Above 4G decoding"),
        (errno.EBUSY, "vfs_busy", "udev rule"),
        (errno.ENOENT, "sriov_unsupported_by_driver", "vendor's driver"),
        (errno.EOPNOTSUPP, "sriov_unsupported_by_driver", "max_vfs"),
        (errno.ERANGE, "count_exceeds_totalvfs", "NUM_OF_VFS"),
        (errno.EIO, "vfs_refused", "dmesg"),
    ],
)
def test_the_kernel_refuses_and_all_is_as_before(kernel: SriovKernel, number: int, code: str, word: str) -> None:
    bind(kernel, VF1)
    kernel.set_behind_our_back(PF, 0, "mac", MAC)
    kernel.set_behind_our_back(PF, 1, "vlan", 9)
    before = pictured(kernel)
    kernel.refusals[SECOND_PF] = number
    error = failure(kernel, asked(vfs=[{"vf": 2, "trust": True}]), asked(SECOND_PF, 3))
    assert error.code == code
    assert word in str(error)
    assert f"3 virtual functions of {SECOND_PF} (driver igb, {errno.errorcode[number]})" in str(error)
    assert error.extra["not_undone"] == []
    # The first card was done already. It has its two again, with what was set, and one of them on vfio-pci.
    assert pictured(kernel) == before


def test_a_number_that_is_taken_without_effect(kernel: SriovKernel) -> None:
    kernel.silent.add(SECOND_PF)
    assert failure(kernel, asked(SECOND_PF, 3)).code == "vfs_not_made"


def test_a_driver_that_hangs(kernel: SriovKernel) -> None:
    kernel.faults.by_number = {3: Fault.HANG}
    error = failure(kernel, asked())
    assert error.code == "attribute_write_timeout"
    assert [problem["code"] for problem in error.as_result()["problems"]] == ["attribute_write_timeout", "not_undone"]
    assert error.problems[0].details["reboot_required"] is True


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"link_state": "enable"}, ["link_state"]),
        ({"vlan": 5, "vlan_protocol": "802.1ad"}, ["vlan", "vlan_qos", "vlan_protocol"]),
    ],
)
def test_what_the_driver_does_not_support_is_named(kernel: SriovKernel, settings: Any, names: list[str]) -> None:
    before = pictured(kernel)
    error = failure(kernel, asked(vfs=[{"vf": 1, "trust": True, **settings}]))
    assert error.code == "vf_setting_unsupported"
    assert error.problems[0].details == {"device": PF, "vf": 1, "settings": names}
    assert pictured(kernel) == before


def test_a_driver_that_refuses_a_rate(kernel: SriovKernel) -> None:
    before = pictured(kernel)
    error = failure(kernel, asked(count=2, vfs=[{"vf": 1, "trust": True, "min_tx_rate": 5}], drivers_autoprobe=True))
    assert (error.code, error.problems[0].details["settings"]) == ("vf_setting_refused", ["min_tx_rate"])
    assert pictured(kernel) == before


def test_a_driver_that_forgets(kernel: SriovKernel) -> None:
    kernel.forgetful = {"spoofchk"}
    error = failure(kernel, asked(vfs=[{"vf": 1, "spoof_check": False, "trust": True}]))
    assert (error.code, error.problems[0].details["settings"]) == ("vf_setting_not_kept", ["spoof_check"])


def test_what_the_driver_does_not_tell(kernel: SriovKernel) -> None:
    kernel.untold = {"trust"}
    one = asked(count=2, vfs=[{"vf": 1, "trust": False}], drivers_autoprobe=True)
    error = failure(kernel, one)
    assert (error.code, kernel.writes) == ("vf_setting_unsupported", [])
    assert failure(kernel, asked(vfs=[{"vf": 1, "trust": True}])).code == "vf_setting_not_kept"


def test_a_driver_that_is_still_resetting_is_waited_for(kernel: SriovKernel) -> None:
    kernel.busy = 5
    assert run(kernel, asked(vfs=[{"vf": 0, "mac": MAC}]))["changed"]
    assert kernel.setting(PF, 0, "mac") == MAC
    kernel.busy = 1000
    assert failure(kernel, asked(SECOND_PF, vfs=[{"vf": 0, "trust": True}])).code == "vf_setting_refused"


def test_an_answer_of_ip_that_is_none(kernel: SriovKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("json.dumps", lambda _unused: "[{}, []")
    assert failure(kernel, asked(count=3)).code == "vf_settings_unreadable"
