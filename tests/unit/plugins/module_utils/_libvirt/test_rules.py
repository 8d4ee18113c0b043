# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Each rule, broken and kept; and what its message says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import Problem
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import Definition
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.rules import registry
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.rules.context import OtherDomain
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.tests.unit.support.domains import (
    BOUND,
    BRIDGE,
    CARD,
    DOMAIN,
    NIC,
    PAIR,
    PF,
    context,
    definition,
    hostdev_xml,
)
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

pytest.importorskip("lxml")

FOUR: dict[str, dict[str, Any]] = {
    f"{CARD}.0": {"guest_address": "02:00.0"},
    f"{CARD}.1": {"assigned": False},
    f"{CARD}.2": {"assigned": False},
    f"{CARD}.3": {"guest_address": "02:00.3"},
}

Check = Callable[..., list[Problem]]


@pytest.fixture
def check(tree: SysfsTree) -> Check:
    def run(wanted: dict[str, dict[str, Any]], **more: Any) -> list[Problem]:
        return registry.broken(context(tree, wanted, **more))

    return run


def one(problems: list[Problem]) -> Problem:
    """The only problem."""
    assert len(problems) == 1, [problem.text for problem in problems]
    return problems[0]


def codes(problems: list[Problem]) -> list[str]:
    return [problem.code for problem in problems]


@pytest.mark.parametrize("wanted", [{NIC: {}}, {BOUND: {"managed": False}}, FOUR, {PAIR[0]: {}, PAIR[1]: {}}])
def test_what_is_right_has_no_problem(check: Check, wanted: dict[str, dict[str, Any]]) -> None:
    assert check(wanted) == []


def test_all_problems_are_found_at_once(check: Check) -> None:
    found = check(
        {
            NIC: {"boot_order": 1, "guest_address": "01:1.0", "managed": False},
            BRIDGE: {"zpci": {"uid": 1}},
        },
        before=definition(boot="<boot dev='hd'/>"),
        version=(9, 0, 0),
    )
    assert codes(found) == [
        "guest_address_impossible",
        "boot_order_conflict",
        "zpci_unsupported",
        "bridge",
        "device_not_bound",
    ]


# -- the element by itself ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "version", "needed"),
    [
        ({"driver_model": "mlx5_vfio_pci"}, (9, 10, 0), "10.0.0"),
        ({"assigned": False}, (5, 9, 0), "6.0.0"),
        ({"acpi_index": 3}, (7, 2, 9), "7.3.0"),
        ({"alias": "ua-a"}, (3, 8, 0), "3.9.0"),
        ({"rom": {"enabled": True}}, (4, 2, 0), "4.3.0"),
    ],
)
def test_a_setting_that_libvirt_is_too_old_for(
    check: Check, options: dict[str, Any], version: tuple[int, int, int], needed: str
) -> None:
    problem = one(check({NIC: options}, version=version))
    assert problem.code == "libvirt_too_old"
    assert f"needs libvirt {needed}, but this host has {'.'.join(map(str, version))}" in problem.message
    assert check({NIC: options}, version=tuple(int(part) for part in needed.split("."))) == []


def test_what_everybody_has_needs_no_version(check: Check) -> None:
    assert check({NIC: {"assigned": True}}, version=(1, 0, 0)) == []


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"guest_address": "02:00.0"}, "guest_address"),
        ({"alias": "ua-a"}, "alias"),
        ({"boot_order": 2}, "boot_order"),
        ({"rom": {"bar": False}}, "rom.bar"),
        ({"acpi_index": 2}, "acpi_index"),
    ],
)
def test_an_unassigned_device_has_nothing_for_the_guest(check: Check, options: dict[str, Any], field: str) -> None:
    problem = one(check({NIC: {"assigned": False, **options}}))
    assert problem.code == "unassigned_conflict"
    assert problem.details["field"] == field
    assert problem.text == (
        f"hostdevs[0] ({NIC}): {field} is given, but with assigned: false the guest does not get the device. "
        f"Leave {field} out, or set assigned: true."
    )
    assert check({NIC: {"assigned": False, "driver_model": "vfio-pci"}}) == []


def test_a_rom_that_is_off_has_no_settings(check: Check, tree: SysfsTree) -> None:
    tree.write("/roms/a.rom", "")
    found = check({NIC: {"rom": {"enabled": False, "bar": True, "file": "/roms/a.rom"}}})
    assert [(problem.code, problem.details["field"]) for problem in found] == [
        ("rom_conflict", "rom.bar"),
        ("rom_conflict", "rom.file"),
    ]
    assert found[0].text == (
        f"hostdevs[0] ({NIC}): rom.bar is given, but rom.enabled is false. Leave rom.bar out, or set rom.enabled: true."
    )
    assert check({NIC: {"rom": {"enabled": True, "bar": True, "file": "/roms/a.rom"}}}) == []


def test_a_rom_file_has_to_exist(check: Check) -> None:
    problem = one(check({NIC: {"rom": {"file": "/roms/a.rom"}}}))
    assert problem.code == "rom_file_missing"
    assert "/roms/a.rom does not exist on this host" in problem.message


def test_a_pci_domain_that_qemu_cannot_take(check: Check, tree: SysfsTree) -> None:
    tree.add_device("10000:01:00.0", group=40)
    problem = one(check({"10000:01:00.0": {}}))
    assert problem.code == "source_domain_unsupported"
    assert "0x10000" in problem.message
    tree.add_device("ffff:01:00.0", group=41)
    assert check({"ffff:01:00.0": {}}) == []


# -- within the definition ----------------------------------------------------------------------------------

# One after the other in the notations that libvirt reads: 0x01, decimal 1, octal 1.
INTERFACES = [
    f"<interface type='hostdev'><source><address type='pci' bus='{bus}' slot='0' function='0'/></source></interface>"
    for bus in ("0x01", "1", "01", "0X1")
]


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_device_that_an_interface_has(check: Check, interface: str) -> None:
    twice = interface + hostdev_xml(NIC)
    problem = one(check({NIC: {"kind": "hostdev"}}, before=definition(twice)))
    assert problem.code == "duplicate_device"
    assert problem.text == (
        f"hostdevs[0] ({NIC}): the definition has the device 2 times, by interface and hostdev. Remove all but one of "
        "these elements (virsh edit)."
    )
    assert check({NIC: {"kind": "hostdev"}}, before=definition(interface)) == []
    assert check({BOUND: {}}, before=definition(twice)) == []


def test_interface_addresses_are_read_as_libvirt_reads_them(check: Check) -> None:
    octal = INTERFACES[0].replace("0x01", "010")
    assert check({NIC: {}}, before=definition(octal)) == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("0001:02:00.0", "libvirt gives every guest one PCI domain"),
        ("00:00.0", "it belongs to the host bridge of the guest"),
        ("02:01.0", "bus 0x02 of the guest is a pcie-root-port, which has slot 0 only"),
        ("00:00.1", "bus 0x00 of the guest is a pcie-root, which has slots 0x01 to 0x1f"),
    ],
)
def test_a_guest_address_that_cannot_be(check: Check, address: str, why: str) -> None:
    problem = next(found for found in check({NIC: {"guest_address": address}}))
    assert problem.code == "guest_address_impossible"
    assert why in problem.message
    assert problem.details["field"] == "guest_address"


def test_a_guest_address_on_a_bus_that_libvirt_will_add(check: Check) -> None:
    assert check({NIC: {"guest_address": "1f:00.0"}}) == []


def test_a_guest_address_that_is_taken(check: Check) -> None:
    before = definition("<video><address type='pci' domain='0' bus='0' slot='010' function='0'/></video>")
    problem = one(check({NIC: {"guest_address": "00:08.0"}}, before=before))
    assert problem.code == "guest_address_in_use"
    assert "guest_address 0000:00:08.0 is already that of the domain's video." in problem.message
    assert check({NIC: {"guest_address": "00:0a.0"}}, before=before) == []

    before = definition(hostdev_xml(BOUND, guest="02:00.0"))
    problem = one(check({NIC: {"guest_address": "02:00.0"}}, before=before))
    assert f"that of the domain's hostdev {BOUND}" in problem.message
    # It may be taken over from one that goes or moves.
    assert check({NIC: {"guest_address": "02:00.0"}}, before=before, removed=(BOUND,)) == []
    assert check({NIC: {"guest_address": "02:00.0"}, BOUND: {"guest_address": "01:00.0"}}, before=before) == []

    problem = one(
        check({NIC: {"guest_address": "02:00.0"}, BOUND: {"guest_address": {"bus": 2, "slot": 0, "function": 0}}})
    )
    assert "hostdevs[0]" in problem.message
    assert "hostdevs[1]" in problem.message


def test_a_guest_slot_without_function_0(check: Check) -> None:
    problem = one(check({NIC: {"guest_address": "02:00.3"}}))
    assert problem.code == "guest_function_0_missing"
    assert "0000:02:00.3 is a function of the guest's slot 0000:02:00.0" in problem.message
    before = definition(hostdev_xml(BOUND, guest="02:00.0"))
    assert check({NIC: {"guest_address": "02:00.3"}}, before=before) == []
    assert codes(check({NIC: {"guest_address": "02:00.3"}}, before=before, removed=(BOUND,))) == [
        "guest_function_0_missing"
    ]


def test_function_0_is_not_taken_from_a_slot_that_stays_in_use(check: Check) -> None:
    before = definition(hostdev_xml(NIC, guest="02:00.0") + hostdev_xml(BOUND, guest="02:00.3"))
    problem = one(check({}, before=before, removed=(NIC,)))
    assert problem.code == "guest_function_0_missing"
    assert problem.message.startswith(f"The domain's hostdev {BOUND}: ")
    assert check({}, before=before, removed=(BOUND,)) == []
    assert check({}, before=before, removed=(NIC, BOUND)) == []


def test_multifunction_off_beside_other_functions(check: Check) -> None:
    off = {"bus": 2, "slot": 0, "function": 0, "multifunction": False}
    problem = one(check({NIC: {"guest_address": off}, BOUND: {"guest_address": "02:00.1"}}))
    assert problem.code == "guest_multifunction_off"
    assert problem.details["field"] == "guest_address.multifunction"
    assert check({NIC: {"guest_address": off}}) == []


def test_boot_order_and_os_boot_exclude_each_other(check: Check) -> None:
    before = definition(boot="<boot dev='hd'/>")
    problem = one(check({NIC: {"boot_order": 2}}, before=before))
    assert problem.code == "boot_order_conflict"
    assert check({NIC: {}}, before=before) == []
    assert check({NIC: {"boot_order": 2}}) == []


UNIQUE = [
    ("boot_order", "boot_order_in_use", 2, 3, "<disk type='file' device='disk'><boot order='2'/></disk>"),
    ("alias", "alias_in_use", "ua-a", "ua-b", "<disk type='file' device='disk'><alias name='ua-a'/></disk>"),
    ("acpi_index", "acpi_index_in_use", 2, 3, "<interface type='user'><acpi index='2'/></interface>"),
]


@pytest.mark.parametrize(("field", "code", "value", "other", "device"), UNIQUE)
def test_what_only_one_device_can_have(
    check: Check, field: str, code: str, value: Any, other: Any, device: str
) -> None:
    before = definition(device)
    problem = one(check({NIC: {field: value}}, before=before))
    assert problem.code == code
    assert problem.message.startswith(f"hostdevs[0] ({NIC}): {field} {value} is already that of the domain's ")
    assert check({NIC: {field: other}}, before=before) == []
    assert one(check({NIC: {field: value}, BOUND: {field: value}})).code == code
    assert check({NIC: {field: value}, BOUND: {field: other}}) == []


def test_a_hostdev_is_not_in_its_own_way(check: Check) -> None:
    before = definition(hostdev_xml(NIC, "<boot order='2'/><alias name='ua-a'/>", guest="02:00.0"))
    assert check({NIC: {"boot_order": 2, "alias": "ua-a", "guest_address": "02:00.0"}}, before=before) == []


def test_no_acpi_index_where_there_is_no_acpi(check: Check) -> None:
    problem = one(check({NIC: {"acpi_index": 2}}, before=definition(arch="s390x")))
    assert problem.code == "acpi_index_unsupported"
    assert check({NIC: {"acpi_index": 2}}, before=definition(arch="aarch64")) == []


def test_zpci_ids_are_for_s390x(check: Check) -> None:
    wanted = {NIC: {"zpci": {"uid": "0011", "fid": 0}}}
    found = check(wanted)
    assert codes(found) == ["zpci_unsupported", "zpci_unsupported"]
    assert "zpci.uid 0x11 is given, but the guest is x86_64" in found[0].message
    assert check(wanted, before=definition(arch="s390x")) == []


def test_zpci_ids_are_unique(check: Check) -> None:
    device = "<interface type='user'><address type='pci'><zpci uid='0x0011' fid='0x5'/></address></interface>"
    before = definition(device, arch="s390x")
    assert one(check({NIC: {"zpci": {"uid": 0x11}}}, before=before)).code == "zpci_uid_in_use"
    assert one(check({NIC: {"zpci": {"fid": "5"}}}, before=before)).code == "zpci_fid_in_use"
    assert check({NIC: {"zpci": {"uid": 0x12, "fid": 6}}}, before=before) == []


# -- on the host --------------------------------------------------------------------------------------------


def test_a_device_has_to_exist(check: Check) -> None:
    problem = one(check({"0000:77:00.0": {}}))
    assert problem.code == "device_not_found"
    assert problem.message == "hostdevs[0] (0000:77:00.0): there is no such PCI device on this host."


def test_a_bridge_cannot_be_given_away(check: Check) -> None:
    problem = one(check({BRIDGE: {}}))
    assert problem.code == "bridge"
    assert "class 060400" in problem.message


def test_a_pf_with_vfs_stays(check: Check, tree: SysfsTree) -> None:
    problem = one(check({PF: {}}))
    assert problem.code == "has_vfs"
    assert problem.details["vfs"] == ["0000:0a:10.0", "0000:0a:10.2"]
    assert check({"0000:0a:10.0": {}}) == []
    tree.set_attribute(PF, "sriov_numvfs", "0")
    assert check({PF: {}}) == []


def test_every_function_is_declared(check: Check) -> None:
    problem = one(check({f"{CARD}.0": {}, f"{CARD}.3": {}}))
    assert problem.code == "functions_undeclared"
    assert problem.text == (
        f"hostdevs[0] ({CARD}.0): the device is one function of several in IOMMU group 9, and {CARD}.1 and {CARD}.2 "
        f"are not declared. Add {CARD}.1 and {CARD}.2 to hostdevs, with assigned: false for those that the guest is "
        "not to have."
    )
    assert problem.details["missing"] == [f"{CARD}.1", f"{CARD}.2"]


def test_functions_are_declared_also_when_they_are_bound(check: Check, tree: SysfsTree) -> None:
    for function in range(4):
        tree.bind(f"{CARD}.{function}", "vfio-pci")
    assert codes(check({f"{CARD}.0": {"managed": False}})) == ["functions_undeclared"]


def test_functions_that_the_definition_declares_count(check: Check) -> None:
    before = definition(
        hostdev_xml(f"{CARD}.1", "<address type='unassigned'/>")
        + hostdev_xml(f"{CARD}.2", "<address type='unassigned'/>")
    )
    assert check({f"{CARD}.0": {}, f"{CARD}.3": {}}, before=before) == []
    assert codes(check({f"{CARD}.0": {}, f"{CARD}.3": {}}, before=before, removed=(f"{CARD}.2",))) == [
        "functions_undeclared"
    ]


def test_a_function_is_not_removed_while_another_stays(check: Check) -> None:
    before = definition("".join(hostdev_xml(f"{CARD}.{function}") for function in range(4)))
    problem = one(check({}, before=before, removed=(f"{CARD}.2",)))
    assert problem.code == "functions_undeclared"
    assert problem.message.startswith(f"The domain's hostdev {CARD}.0: ")
    assert check({}, before=before, removed=tuple(f"{CARD}.{function}" for function in range(4))) == []


def test_functions_in_groups_of_their_own_are_devices_of_their_own(check: Check, tree: SysfsTree) -> None:
    tree.add_device("0000:44:00.0", driver="a", group=44)
    tree.add_device("0000:44:00.1", driver="a", group=45)
    assert check({"0000:44:00.0": {}}) == []


def test_the_group_is_complete(check: Check, tree: SysfsTree) -> None:
    problem = one(check({PAIR[0]: {}}))
    assert problem.code == "group_not_viable"
    assert f"IOMMU group 6 of the device also has {PAIR[1]}, held by snd of the host" in problem.message
    assert "0000:05:00.0" not in problem.text  # a bridge does not count
    assert check({PAIR[0]: {}, PAIR[1]: {"assigned": False}}) == []
    for driver in ("vfio-pci", "mlx5_vfio_pci", "pci-stub", None):
        tree.bind(PAIR[1], driver)
        assert check({PAIR[0]: {}}) == []


def test_a_mate_that_an_interface_has_counts(check: Check) -> None:
    interface = INTERFACES[0].replace("0x01", "0x07")
    assert check({PAIR[0]: {}}, before=definition(interface)) == []


def test_without_iommu_groups_nothing_is_missing(check: Check, tree: SysfsTree) -> None:
    tree.add_device("0000:55:00.0", driver="a")
    tree.add_device("0000:55:00.1", driver="a")
    assert check({"0000:55:00.0": {}}) == []


@pytest.mark.parametrize(("driver", "said"), [("igb", "igb"), (None, "no driver")])
def test_unmanaged_needs_a_bound_device(check: Check, tree: SysfsTree, driver: str | None, said: str) -> None:
    tree.bind(NIC, driver)
    problem = one(check({NIC: {"managed": False}}))
    assert problem.code == "device_not_bound"
    assert f"bound to {said} and not to a VFIO driver" in problem.message
    tree.bind(NIC, "vfio-pci")
    assert check({NIC: {"managed": False}}) == []


def test_another_domain_has_the_device(check: Check) -> None:
    nic = frozenset([PciAddress.parse(NIC)])
    off = OtherDomain("db01", active=False, config=nic, live=frozenset())
    on = OtherDomain("db02", active=True, config=nic, live=nic)
    config_only = OtherDomain("db03", active=True, config=nic, live=frozenset())

    problem = one(check({NIC: {}}, others=(off,)))
    assert problem.code == "device_in_other_domain"
    assert problem.details["domain"] == "db01"
    problem = one(check({NIC: {}}, others=(on,)))
    assert problem.code == "in_use_by_domain"
    assert problem.text == (
        f"hostdevs[0] ({NIC}): the domain db02 is running with this device. "
        "Shut db02 down and remove the device from it, or choose another device."
    )
    assert one(check({NIC: {}}, others=(config_only,))).code == "device_in_other_domain"
    assert check({BOUND: {}}, others=(off, on)) == []


def test_a_definition_that_breaks_rules_already_is_no_matter_for_others(check: Check) -> None:
    before: Definition = definition(
        hostdev_xml("0000:77:00.0")
        + hostdev_xml(f"{CARD}.0")
        + hostdev_xml(PAIR[0], "<boot order='1'/>", guest="02:00.5"),
        boot="<boot dev='hd'/>",
    )
    assert check({NIC: {}}, before=before) == []


# -- what the host lives on ---------------------------------------------------------------------------------


def test_libvirt_would_take_a_device_that_the_host_needs(check: Check, tree: SysfsTree) -> None:
    smbus, disk = "0000:0c:00.0", "0000:0d:00.0"
    tree.add_device(smbus, ids="8086:2930", pci_class=0x0C0500, driver="i801_smbus", group=30)
    tree.add_device(disk, ids="1b36:0010", pci_class=0x010802, driver="nvme", group=31, nvme="nvme0")
    tree.write("/proc/self/mountinfo", "25 1 259:0 / / rw shared:1 - ext4 /dev/nvme0n1 rw\n")
    tree.write("/proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n")
    assert codes(check({smbus: {}, disk: {}, NIC: {}})) == ["system_device", "boot_disk"]
    problem = one(check({disk: {"assigned": False}}))  # taken all the same, though the guest does not get it
    assert disk in problem.message
    assert "kvm.passthrough.vfio_devices" in problem.remedy
    assert "boot_disk" in problem.remedy
    assert codes(check({disk: {"managed": False}})) == ["device_not_bound"]  # libvirt would leave that alone


def test_what_vfio_refuses_for_good_and_what_may_be_put_right(check: Check, tree: SysfsTree) -> None:
    tree.write("/proc/sys/kernel/arch", "x86_64\n").add_vtd()
    tree.write("/proc/interrupts", " 24: 0 PCI-MSI 1-edge x\n")
    assert check({NIC: {}}) == []  # interrupt remapping; and that a device cannot be reset hinders nobody
    tree.add_group(30, reserved=["0x0 0xfff direct"])
    tree.add_device("0000:0c:00.0", driver="a", group=30, reset_methods=None)
    assert codes(check({"0000:0c:00.0": {}})) == ["reserved_region"]


def test_what_the_definition_has_already_is_not_about_to_change(check: Check, tree: SysfsTree) -> None:
    smbus = "0000:0c:00.0"
    tree.add_device(smbus, ids="8086:2930", pci_class=0x0C0500, driver="i801_smbus", group=30)
    assert check({smbus: {}}, before=definition(hostdev_xml(smbus))) == []
    unmanaged = definition(hostdev_xml(smbus, attributes="managed='no'"))
    assert codes(check({smbus: {}}, before=unmanaged)) == ["system_device"]


def test_a_device_that_was_given_up_is_no_longer_needed(check: Check, tree: SysfsTree) -> None:
    smbus = "0000:0c:00.0"
    tree.add_device(smbus, ids="8086:2930", pci_class=0x0C0500, driver="vfio-pci", group=30)
    assert check({smbus: {}}) == []


# -- hostdevs and interfaces --------------------------------------------------------------------------------

VF = "0000:0a:10.0"
CARD_OF_A_TEAM = (
    "<interface type='user'><mac address='52:54:00:00:00:09'/><alias name='ua-stays'/>"
    "<teaming type='persistent'/></interface>"
)


def interface(**options: Any) -> dict[str, dict[str, Any]]:
    return {VF: {"kind": "interface", **options}}


def interface_xml(inner: str, address: str = VF) -> str:
    source = hostdev_xml(address).partition("<source><address ")[2].partition("/>")[0]
    return f"<interface type='hostdev'><source><address type='pci' {source}/></source>{inner}</interface>"


def test_an_interface_of_a_vf_has_no_problem(check: Check) -> None:
    assert check(interface(mac="52:54:00:00:00:01", vlan=42)) == []
    assert check(interface(virtualport={"profileid": "web"})) == []


def test_an_interface_needs_a_vf_that_is_a_network_card(check: Check, tree: SysfsTree) -> None:
    assert one(check({NIC: {"kind": "interface"}})).text == (
        f"hostdevs[0] ({NIC}): the kind is interface, but the device is no SR-IOV virtual function, and libvirt sets "
        "MAC "
        "address and VLAN through a physical function. Name a VF, or give the device with kind: hostdev; the guest's "
        "driver then keeps the card's own MAC address."
    )
    tree.add_device("0000:0e:00.0", driver="nvme", pci_class=0x010802, group=60, totalvfs=2)
    tree.add_vfs("0000:0e:00.0", 1, driver="nvme", first_group=61, pci_class=0x010802)
    vf = str(next(iter(Bus(tree.host()).device(PciAddress.parse("0000:0e:00.0")).vfs)))
    problem = one(check({vf: {"kind": "interface"}}))
    assert problem.text == (
        f"hostdevs[0] ({vf}): the kind is interface, but the device (class 010802) is no network card. Give it with "
        "kind: hostdev."
    )


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (
            {NIC: {"mac": "52:54:00:00:00:01"}},
            f"hostdevs[0] ({NIC}): mac is given, but the kind is hostdev, which has none. Leave it out, or make it "
            "kind: "
            "interface.",
        ),
        (
            interface(assigned=False),
            f"hostdevs[0] ({VF}): assigned is given, but the kind is interface, which has none. An interface is always "
            "given to the guest: leave assigned out, or make it kind: hostdev.",
        ),
    ],
)
def test_what_only_the_other_kind_has(check: Check, wanted: dict[str, dict[str, Any]], text: str) -> None:
    assert one(check(wanted)).text == text


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (
            "<vlan trunk='yes'><tag id='1'/><tag id='2'/></vlan>",
            "the interface is a trunk or has several VLANs (1, 2), which a VF cannot have. Give vlan with one number; "
            "it "
            "replaces what is there.",
        ),
        (
            "<vlan><tag id='4095'/></vlan>",
            "vlan 4095 is no VLAN: 0 stands for none, and 4095 is reserved. Choose one from 1 to 4094.",
        ),
        (
            "<virtualport type='802.1Qbg'><parameters managerid='1'/></virtualport>",
            "virtualport.type is 802.1Qbg, but libvirt can set up 802.1Qbh only for a device that is passed through. "
            "Take "
            "the virtualport out, or use an interface of type network, bridge or direct.",
        ),
        (
            "<virtualport type='802.1Qbh'/>",
            "the virtualport has no profileid. Give virtualport.profileid, the name of the port profile in the switch.",
        ),
        (
            "<vlan><tag id='7'/></vlan><virtualport type='802.1Qbh'><parameters profileid='web'/></virtualport>",
            "vlan and virtualport are both given, but with a virtual port it is the switch that chooses the VLAN. "
            "Leave "
            "one of the two out.",
        ),
    ],
)
def test_what_a_vf_cannot_have_although_the_definition_says_it(check: Check, inner: str, text: str) -> None:
    before = definition(interface_xml(inner))
    assert one(check(interface(), before=before)).text == f"hostdevs[0] ({VF}): {text}"
    assert check({NIC: {}}, before=before) == []  # that is no matter for others


@pytest.mark.parametrize(
    ("attribute", "code", "text"),
    [
        (
            "startupPolicy",
            "startup_policy_unsupported",
            f"hostdevs[0] ({NIC}): the source has startupPolicy='optional', but libvirt has it for USB devices only. "
            "Take "
            "startupPolicy out of the element; state: exact does that.",
        ),
        (
            "writeFiltering",
            "write_filtering_unsupported",
            f"hostdevs[0] ({NIC}): the source has writeFiltering='optional', but libvirt has it for Xen only. Take "
            "writeFiltering out of the element; state: exact does that.",
        ),
    ],
)
def test_what_libvirt_has_for_other_devices_only(check: Check, attribute: str, code: str, text: str) -> None:
    before = definition(hostdev_xml(NIC).replace("<source>", f"<source {attribute}='optional'>"))
    problem = one(check({NIC: {}}, before=before))
    assert (problem.code, problem.text) == (code, text)


def test_macs_are_unique_except_in_a_team(check: Check) -> None:
    before = definition(CARD_OF_A_TEAM)
    assert one(check(interface(mac="52:54:00:00:00:09"), before=before)).text == (
        f"hostdevs[0] ({VF}): mac 52:54:00:00:00:09 is already that of the domain's interface user (ua-stays). Give "
        "each a "
        "MAC address of its own, or leave it to libvirt."
    )
    team = {"persistent": "ua-stays"}
    assert check(interface(mac="52:54:00:00:00:09", teaming=team), before=before) == []
    assert check({NIC: {"teaming": team}}, before=before) == []
    assert one(check(interface(mac="52:54:00:00:00:0a", teaming=team), before=before)).text == (
        f"hostdevs[0] ({VF}): mac is 52:54:00:00:00:0a, but that of ua-stays, with which it is teamed, is "
        "52:54:00:00:00:09. Give mac: 52:54:00:00:00:09; a guest teams cards of one MAC address."
    )


@pytest.mark.parametrize(
    ("devices", "what"),
    [
        ("", "does not exist in the domain"),
        (CARD_OF_A_TEAM.replace("<teaming type='persistent'/>", ""), "has no <teaming type='persistent'/>"),
    ],
)
def test_the_other_one_of_a_team_is_there(check: Check, devices: str, what: str) -> None:
    assert one(check({NIC: {"teaming": {"persistent": "ua-stays"}}}, before=definition(devices))).text == (
        f"hostdevs[0] ({NIC}): teaming.persistent is ua-stays, but an interface of this alias {what}. Give the domain "
        "an "
        "interface of model virtio with <alias name='ua-stays'/> and <teaming type='persistent'/>."
    )


def test_a_hard_limit_leaves_room_for_what_vfio_locks(check: Check) -> None:
    def limited(kib: int, more: str = "") -> Definition:
        xml = DOMAIN.format(devices=more, boot="", arch="x86_64")
        return Definition(xml.replace("<os>", f"<memtune><hard_limit>{kib}</hard_limit></memtune><os>"))

    gibibyte = 1024 * 1024
    assert one(check({NIC: {}}, before=limited(gibibyte + 65535))).text == (
        f"hostdevs[0] ({NIC}): the domain has a <hard_limit> of 1114111 KiB, but a guest with such a device needs "
        "1114112 KiB: its memory, and 1 GiB. Raise it, or take <hard_limit> out of <memtune>: libvirt then allows "
        "what is "
        "needed."
    )
    assert check({NIC: {}}, before=limited(gibibyte + 65536)) == []
    assert check({NIC: {"assigned": False}}, before=limited(1)) == []
    viommu = "<iommu model='intel'/>" + hostdev_xml(BOUND)
    problem = one(check({NIC: {}}, before=limited(gibibyte + 2 * 65536 - 1, viommu)))
    assert "its memory, 2 times because the guest has an IOMMU, and 1 GiB" in problem.message
    assert check({NIC: {}}, before=limited(gibibyte + 65536, viommu), version=(8, 6, 0)) == []


def test_ids_that_libvirt_could_make_up_for_another_device(check: Check) -> None:
    s390x = definition(arch="s390x")
    assert one(check({NIC: {"zpci": {"uid": 5}}, BOUND: {"zpci": {"fid": 6}}}, before=s390x)).text == (
        f"hostdevs[0] ({NIC}): zpci.fid is not given, but hostdevs[1] ({BOUND}) asks for 0x6, which libvirt could "
        "make up "
        "for this one before it comes to that one. Give zpci.fid here too."
    )
    assert codes(check({**interface(), NIC: {"zpci": {"uid": 5, "fid": 5}}}, before=s390x)) == ["zpci_incomplete"]
    assert check({NIC: {}, BOUND: {"zpci": {"uid": 5, "fid": 5}}}, before=s390x) == []
    assert check({NIC: {"zpci": {"uid": 5}}, BOUND: {"zpci": {"uid": 6}}}, before=s390x) == []


@pytest.mark.parametrize(
    ("machine", "address", "owner"),
    [
        ("pc", "00:01.0", "the PIIX3's ISA bridge"),
        ("pc-i440fx-7.2", "00:01.0", "the PIIX3's ISA bridge"),
        ("pc-q35-7.2", "00:1f.0", "the ICH9's ISA bridge"),
        ("q35", "00:1f.3", "the ICH9's SMBus"),
    ],
)
def test_what_the_chipset_has_without_a_word(check: Check, machine: str, address: str, owner: str) -> None:
    before = Definition(DOMAIN.replace("'q35'", f"'{machine}'").format(devices="", boot="", arch="x86_64"))
    problem = check({NIC: {"guest_address": address}}, before=before)[0]
    assert problem.text == (
        f"hostdevs[0] ({NIC}): guest_address 0000:{address} is not possible: it belongs to {owner} in this guest. "
        "Choose "
        "another, or leave it to libvirt."
    )


def test_versions_that_ibm_z_needs(check: Check, tree: SysfsTree) -> None:
    s390x = definition(arch="s390x")
    tree.write("/proc/sys/kernel/osrelease", "4.13.0-1\n")
    found = check({NIC: {}}, before=s390x, version=(4, 9, 0), qemu=(2, 10, 0))
    assert [problem.text for problem in found] == [
        f"hostdevs[0] ({NIC}): on IBM Z, PCI passthrough needs {name} {needed}, but this host has {there}. Upgrade "
        f"{name}."
        for name, needed, there in (
            ("the kernel", "4.14", "4.13"),
            ("libvirt", "4.10", "4.9.0"),
            ("QEMU", "2.11", "2.10.0"),
        )
    ]
    assert check({NIC: {}}, version=(4, 9, 0), qemu=(2, 10, 0)) == []
    tree.write("/proc/sys/kernel/osrelease", "6.12.0\n")
    assert check({NIC: {}}, before=s390x, qemu=(7, 2, 0)) == []


def test_a_device_that_comes_from_a_pool(check: Check) -> None:
    xml = DOMAIN.format(devices=interface_xml("<mac address='52:54:00:00:00:02'/>"), boot="", arch="x86_64")
    before = Definition(xml, pooled=frozenset({"52:54:00:00:00:02"}))
    assert one(check({VF: {}}, before=before)).text == (
        f"hostdevs[0] ({VF}): the domain has the device already, from a network that is a pool of VFs. Name a VF that "
        "is "
        "not in the pool, or take that interface out of the domain."
    )


def test_every_code_of_every_rule_is_in_a_test() -> None:
    here = Path(__file__).parent
    tests = "".join(path.read_text(encoding="utf-8") for path in here.glob("test_*.py"))
    rules = Path(registry.__file__).parent
    found = set()
    for path in rules.glob("*.py"):
        source = path.read_text(encoding="utf-8")
        found |= set(re.findall(r'problem\(\s*"([a-z_0-9]+)"', source))
        found |= set(re.findall(r'unique\(\s*context,\s*"[a-z_]+",\s*"([a-z_0-9]+)"', source))
    assert len(found) > 40
    assert {code for code in found if f'"{code}"' not in tests} <= MESSAGES_IN_FULL


# Of these, the whole message is in a test, without the code.
MESSAGES_IN_FULL = {
    *("vf_needed", "network_card_needed", "kind_conflict", "hard_limit_too_low", "version_too_old"),
    *("vlan_trunk", "vlan_reserved", "virtualport_unsupported", "virtualport_incomplete"),
}
