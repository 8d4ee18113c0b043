# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole procedure, against the real libvirt and a machine made of files."""

from __future__ import annotations

import json
import re
import threading
from typing import Any, Callable

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, StateStore
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.change import RECORD_KIND
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import (
    LibvirtConnection,
    LibvirtDomain,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import Definition, element_text
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import build
from ansible_collections.kvm.passthrough.tests.unit.support.domains import (
    BOUND,
    BRIDGE,
    CARD,
    FOUR,
    NIC,
    PAIR,
    SCHEMAS,
    hostdev_xml,
)
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import EmbeddedLibvirt
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

etree = pytest.importorskip("lxml.etree")

USB = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0x5678'/></source></hostdev>"
INTERFACE = (
    "<interface type='hostdev' managed='yes'><mac address='52:54:00:00:00:01'/><source>"
    "<address type='pci' domain='0' bus='0x0a' slot='0x10' function='0x2'/></source></interface>"
)
NETWORK_CARD = "<interface type='user'><mac address='52:54:00:00:00:09'/></interface>"
ALL_SETTINGS = {
    "managed": False,
    "guest_address": "07:00.0",
    "boot_order": 3,
    "rom": {"bar": False, "file": "/roms/card.rom"},
    "alias": "ua-card",
    "acpi_index": 9,
}


class Bench:
    """A domain, a machine, and the module's procedure between them."""

    def __init__(self, libvirt: EmbeddedLibvirt, tree: SysfsTree, **definition: Any) -> None:
        self.libvirt = libvirt
        self.tree = tree
        self.domain = libvirt.define(**definition)
        self.connect: Callable[[str], Any] = libvirt.connect

    def run(self, *hostdevs: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        host = self.tree.host()
        parameters = {
            "domain": self.domain.name(),
            "uri": "qemu:///system",
            "state": "present",
            "scope": "config",
            "timeout": 2,
            "hostdevs": [{"managed": True, "assigned": True, **one} for one in hostdevs],
            **options,
        }
        procedure = build(host, parameters, self.connect)
        return execute(host, procedure, module="domain_hostdevs", check_mode=check)

    def quadruple(self, *hostdevs: dict[str, Any], **options: Any) -> dict[str, Any]:
        """check, run, check, run: the first check predicts the run, writes nothing, and then there is nothing to do."""
        before, files = self.xml(), tree_hash(self.tree.root)
        predicted = self.run(*hostdevs, check=True, **options)
        assert (self.xml(), tree_hash(self.tree.root)) == (before, files)
        done = self.run(*hostdevs, **options)
        assert done == predicted
        assert done["changed"]
        json.dumps(done)
        after, files = self.xml(), tree_hash(self.tree.root)
        for check in (True, False):
            again = self.run(*hostdevs, check=check, **options)
            assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
        assert (self.xml(), tree_hash(self.tree.root)) == (after, files)
        return done

    def fails(self, *hostdevs: dict[str, Any], **options: Any) -> PassthroughError:
        """The error of a check and of a run, which change nothing."""
        before, files = self.xml(), tree_hash(self.tree.root)
        errors = []
        for check in (True, False):
            with pytest.raises(PassthroughError) as caught:
                self.run(*hostdevs, check=check, **options)
            errors.append(caught.value)
            assert (self.xml(), tree_hash(self.tree.root)) == (before, files)
        assert str(errors[0]) == str(errors[1])
        return errors[1]

    def xml(self) -> str:
        return str(self.domain.XMLDesc(2 if self.domain.isPersistent() else 0))

    def hostdevs(self) -> dict[str, str]:
        return {str(one.source): one.text for one in Definition(self.xml()).hostdevs}

    def rest(self) -> list[str]:
        """Everything but the PCI hostdevs and the guest's PCI buses; libvirt orders the controllers anew."""
        root = etree.fromstring(self.xml())
        devices = root.find("devices")
        for element in [*devices.findall("hostdev[@type='pci']"), *devices.findall("controller[@type='pci']")]:
            devices.remove(element)
        root.remove(devices)
        return [element_text(root), *sorted(element_text(element) for element in devices)]

    def everything(self) -> list[str]:
        """The whole definition; the order of the devices is left out."""
        root = etree.fromstring(self.xml())
        devices = root.find("devices")
        root.remove(devices)
        return [element_text(root), *sorted(element_text(element) for element in devices)]


@pytest.fixture
def bench(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> Bench:
    return Bench(libvirt, tree, devices=USB + NETWORK_CARD)


@pytest.fixture
def ordered(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> Bench:
    """A domain with a boot order per device."""
    tree.write("/roms/card.rom", "rom")
    disk = "<disk type='file'><source file='/a'/><target dev='sda'/><boot order='1'/></disk>"
    return Bench(libvirt, tree, devices=disk, boot="")


# -- present ------------------------------------------------------------------------------------------------


def test_one_device(bench: Bench) -> None:
    rest = bench.rest()
    done = bench.quadruple({"device": NIC})
    assert done["hostdevs"] == [
        {"address": NIC, "kind": "hostdev", "guest_address": None, "managed": True, "assigned": True}
    ]
    assert done["domain"] == {"name": bench.domain.name(), "uuid": bench.domain.UUIDString(), "active": False}
    assert [action["description"] for action in done["actions"]] == [f"add {NIC} to the domain {bench.domain.name()}"]
    assert "warnings" not in done
    assert bench.rest() == rest
    seen = bench.run({"device": NIC})["hostdevs"][0]
    assert re.fullmatch(r"0000:[0-9a-f]{2}:00\.0", seen["guest_address"])


def test_a_slot_of_four_functions(bench: Bench) -> None:
    rest = bench.rest()
    bench.quadruple(*FOUR)
    found = bench.hostdevs()
    assert 'bus="0x08" slot="0x00" function="0x0" multifunction="on"' in found[f"{CARD}.0"]
    assert 'bus="0x08" slot="0x00" function="0x3"' in found[f"{CARD}.3"]
    for function in (1, 2):
        assert '<address type="unassigned"/>' in found[f"{CARD}.{function}"]
    assert bench.rest() == rest


def test_every_setting(ordered: Bench) -> None:
    rest = ordered.rest()
    done = ordered.quadruple({"device": BOUND, **ALL_SETTINGS})
    assert done["hostdevs"] == [
        {"address": BOUND, "kind": "hostdev", "assigned": True, **ALL_SETTINGS, "guest_address": "0000:07:00.0"}
    ]
    written, sent = (etree.fromstring(text) for text in (ordered.hostdevs()[BOUND], done["actions"][0]["after"]))
    assert written.attrib == sent.attrib
    assert sorted(map(element_text, written)) == sorted(map(element_text, sent))
    assert ordered.rest() == rest


def test_a_selector_of_several_devices(bench: Bench) -> None:
    done = bench.quadruple({"device": {"vendor_id": "14e4", "count": "all"}})
    assert [one["address"] for one in done["hostdevs"]] == [f"{CARD}.{function}" for function in range(4)]


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"managed": False}, {"managed": False}),
        ({"boot_order": 4}, {"boot_order": 4}),
        ({"alias": "ua-other"}, {"alias": "ua-other"}),
        ({"guest_address": "06:00.0"}, {"guest_address": "0000:06:00.0"}),
        ({"rom": {"bar": True}}, {"rom": {"bar": True, "file": "/roms/card.rom"}}),
        ({"rom": {"enabled": False}}, {"rom": {"enabled": False}}),  # libvirt refuses one with settings
    ],
)
def test_a_change_keeps_what_was_not_asked_for(ordered: Bench, change: dict[str, Any], shown: dict[str, Any]) -> None:
    first = ordered.run({"device": BOUND, **ALL_SETTINGS, "managed": True})["hostdevs"][0]
    rest = ordered.rest()
    done = ordered.quadruple({"device": BOUND, **change})
    assert done["hostdevs"] == [{**first, **shown}]
    assert [action["description"] for action in done["actions"]] == [
        f"change {BOUND} in the domain {ordered.domain.name()}"
    ]
    assert ordered.rest() == rest


def test_a_device_is_withheld_and_given_again(ordered: Bench) -> None:
    ordered.run({"device": BOUND, **ALL_SETTINGS})
    done = ordered.quadruple({"device": BOUND, "assigned": False})
    assert done["hostdevs"] == [
        {"address": BOUND, "kind": "hostdev", "guest_address": None, "managed": True, "assigned": False}
    ]
    done = ordered.quadruple({"device": BOUND})
    assert done["hostdevs"] == [
        {"address": BOUND, "kind": "hostdev", "guest_address": None, "managed": True, "assigned": True}
    ]


def test_what_others_wrote_into_an_element_stays(bench: Bench) -> None:
    bench.domain.attachDeviceFlags(hostdev_xml(NIC, "<driver name='vfio'/>", attributes="managed='no'"), 2)
    bench.quadruple({"device": NIC})
    assert '<driver name="vfio"/>' in bench.hostdevs()[NIC]


def test_numbers_in_any_notation_are_the_same_device(bench: Bench) -> None:
    bench.run({"device": "0000:0a:10.0"})
    for notation in ("0a:10.0", "pci_0000_0a_10_0", {"address": {"bus": "0xa", "slot": "10", "function": 0}}):
        assert not bench.run({"device": notation})["changed"]


def test_two_hostdevs_change_places(ordered: Bench) -> None:
    ordered.run(
        {"device": NIC, "guest_address": "07:00.0", "alias": "ua-a"},
        {"device": BOUND, "guest_address": "06:00.0", "alias": "ua-b"},
    )
    done = ordered.quadruple(
        {"device": NIC, "guest_address": "06:00.0", "alias": "ua-b"},
        {"device": BOUND, "guest_address": "07:00.0", "alias": "ua-a"},
    )
    assert [one["description"].split()[0] for one in done["actions"]] == ["remove", "remove", "add", "add"]
    assert StateStore(ordered.tree.host()).all(RECORD_KIND)[0].before is None


def test_another_function_joins_the_slot(bench: Bench) -> None:
    bench.run({"device": NIC, "guest_address": "07:00.0"})
    bench.quadruple({"device": BOUND, "guest_address": "07:00.1"}, {"device": NIC, "managed": True})
    assert 'multifunction="on"' in bench.hostdevs()[NIC]


# -- absent, exact ------------------------------------------------------------------------------------------


def test_absent(bench: Bench) -> None:
    bench.run({"device": NIC}, {"device": BOUND})
    rest = bench.rest()
    done = bench.quadruple({"device": NIC}, state="absent")
    assert [one["address"] for one in done["hostdevs"]] == [BOUND]
    assert list(bench.hostdevs()) == [BOUND]
    assert bench.rest() == rest


def test_a_device_that_is_gone_can_be_removed(bench: Bench) -> None:
    bench.domain.attachDeviceFlags(hostdev_xml("0000:77:00.0"), 2)
    assert bench.fails({"device": "77:00.0"}).code == "no_match"
    bench.quadruple({"device": "77:00.0"}, state="absent")
    assert bench.hostdevs() == {}
    assert not bench.run({"device": "77:00.1"}, state="absent")["changed"]


def test_exact(bench: Bench) -> None:
    bench.domain.attachDeviceFlags(hostdev_xml("0000:77:00.0"), 2)
    bench.run({"device": NIC})
    rest = bench.rest()
    done = bench.quadruple({"device": BOUND}, {"device": NIC, "managed": True}, state="exact")
    assert [one["address"] for one in done["hostdevs"]] == [NIC, BOUND]
    assert list(bench.hostdevs()) == [NIC, BOUND]
    assert bench.rest() == rest
    bench.quadruple(state="exact")
    assert bench.hostdevs() == {}
    assert bench.rest() == rest
    assert not bench.run(state="present")["changed"]


def test_exact_takes_settings_back(ordered: Bench) -> None:
    ordered.run({"device": BOUND, **ALL_SETTINGS})
    done = ordered.quadruple({"device": BOUND, "alias": "ua-card"}, state="exact")
    assert done["hostdevs"] == [
        {
            "address": BOUND,
            "kind": "hostdev",
            "guest_address": "0000:07:00.0",
            "managed": True,
            "assigned": True,
            "alias": "ua-card",
        }
    ]


# -- what is refused ----------------------------------------------------------------------------------------


def test_all_problems_of_the_options_at_once(bench: Bench) -> None:
    error = bench.fails(
        {"device": "01:20.0"},
        {"device": NIC, "alias": "x"},
        {"device": "0000:01:10.9"},
        {"device": {"address": BOUND, "colour": "red"}},
        {"device": "7777:00:00.0"},
        {"device": "pci_0000_01_00_0"},
        uri="xen:///",
        domain=" ",
    )
    assert sorted(problem.code for problem in error.problems) == [
        "address_out_of_range",
        "address_out_of_range",
        "domain_empty",
        "hostdev_value_invalid",
        "no_match",
        "selected_twice",
        "selector_invalid",
        "uri_invalid",
    ]


def test_all_problems_of_the_rules_at_once(bench: Bench) -> None:
    error = bench.fails(
        {"device": BRIDGE},
        {"device": NIC, "boot_order": 1, "managed": False},
        {"device": PAIR[0]},
        {"device": f"{CARD}.0"},
    )
    assert [problem.code for problem in error.problems] == [
        "boot_order_conflict",
        "bridge",
        "functions_undeclared",
        "group_not_viable",
        "device_not_bound",
    ]


def test_other_domains(bench: Bench) -> None:
    other = bench.libvirt.define(devices=hostdev_xml(NIC) + INTERFACE.replace("0x2", "0x0"))
    error = bench.fails({"device": NIC}, {"device": "0a:10.0"})
    assert [problem.code for problem in error.problems] == ["device_in_other_domain"] * 2
    assert other.name() in str(error)
    assert bench.run({"device": BOUND})["changed"]


def test_a_domain_that_does_not_exist(bench: Bench) -> None:
    error = bench.fails({"device": NIC}, domain="web01")
    assert error.code == "domain_not_found"
    assert bench.domain.name() in str(error)


def test_a_transient_domain(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
    bench = Bench(libvirt, tree)
    bench.domain.createWithFlags(1)
    bench.domain.undefine()
    error = bench.fails({"device": NIC})
    assert error.code == "domain_transient"


class _Broken(LibvirtDomain):
    def config_xml(self) -> str:
        return super().config_xml()[:-20]


def test_malformed_xml(bench: Bench) -> None:
    class Connection(LibvirtConnection):
        def domain(self, name_or_uuid: str) -> Any:
            return _Broken(bench.domain)

    bench.connect = lambda _uri: Connection(bench.libvirt.handle)
    error = bench.fails({"device": NIC})
    assert error.code == "domain_xml_invalid"
    assert "The XML is malformed" in str(error)


def test_another_domain_with_malformed_xml_is_named(bench: Bench) -> None:
    other = bench.libvirt.define(hostdev_xml(BOUND))

    class Connection(LibvirtConnection):
        def domains(self) -> Any:
            return [_Broken(other)]

    bench.connect = lambda _uri: Connection(bench.libvirt.handle)
    error = bench.fails({"device": NIC})
    assert error.code == "domain_xml_invalid"
    assert f"domain {other.name()}: The XML is malformed" in str(error)


def test_the_schema_of_the_host_is_asked(bench: Bench) -> None:
    schemas = bench.tree.path(SCHEMAS)
    schemas.unlink()
    schemas.mkdir()
    (schemas / "domainoverrides.rng").write_text(
        "<grammar xmlns='http://relaxng.org/ns/structure/1.0'><define name='hostdev'><element name='hostdev'>"
        "<attribute name='mode'/><attribute name='type'/></element></define></grammar>"
    )
    error = bench.fails({"device": NIC})
    assert error.code == "schema_violation"
    assert error.problems[0].details["schema_errors"] == ["Element hostdev has extra content: source"]
    assert '<hostdev mode="subsystem" type="pci" managed="yes">' in str(error)


def test_a_host_without_a_schema(bench: Bench) -> None:
    bench.tree.path(SCHEMAS).unlink()
    done = bench.quadruple({"device": NIC})
    assert "were not checked against it" in done["warnings"][0]


def test_a_definition_that_was_invalid_before(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
    schemas = tree.path(SCHEMAS)
    bench = Bench(libvirt, tree)
    real = schemas.resolve()
    schemas.unlink()
    schemas.mkdir()
    for file in real.glob("*.rng"):
        text = file.read_text()
        if file.name == "domaincommon.rng":
            text = text.replace('<element name="graphics">', '<element name="graphix">')
        (schemas / file.name).write_text(text)
    done = bench.quadruple({"device": NIC})
    assert "even without this change" in done["warnings"][0]


def test_no_iommu_group_is_a_warning(bench: Bench) -> None:
    bench.tree.add_device("0000:55:00.0", driver="a")
    done = bench.quadruple({"device": "55:00.0"})
    assert "0000:55:00.0 has no IOMMU group now" in done["warnings"][0]


# -- a running domain ---------------------------------------------------------------------------------------


def test_a_running_domain_keeps_running_as_it_is(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
    bench = Bench(libvirt, tree)
    bench.domain.createWithFlags(1)
    live = bench.domain.XMLDesc(0)
    done = bench.quadruple({"device": NIC})
    assert done["domain"]["active"]
    assert done["restart_required"]
    assert bench.run({"device": NIC})["restart_required"]
    assert bench.domain.XMLDesc(0) == live
    done = bench.quadruple({"device": NIC}, state="absent")
    assert not done["restart_required"]
    bench.domain.destroy()
    assert not bench.run({"device": NIC})["restart_required"]


# -- rollback, records, others at the same time -------------------------------------------------------------


def refusing(bench: Bench, what: str, times: int = 1) -> None:
    """Make libvirt refuse the next element that has ``what`` in it, by handing it one that it does refuse."""
    left = [times]

    class Domain(LibvirtDomain):
        def attach(self, xml: str, *, live: bool = False) -> None:
            if what in xml and left[0]:
                left[0] -= 1
                xml = xml.replace("<source>", "<source><address domain='0x0000' bus='0x1ff' slot='0' function='0'/>", 1)
            super().attach(xml, live=live)

    class Connection(LibvirtConnection):
        def domain(self, name_or_uuid: str) -> Any:
            return Domain(bench.domain)

    bench.connect = lambda _uri: Connection(bench.libvirt.handle)


def test_a_failure_brings_everything_back(ordered: Bench) -> None:
    """Three hostdevs are removed, changed and added before the fourth fails, ports of the guest included."""
    ordered.run({"device": NIC}, {"device": BOUND, **ALL_SETTINGS})
    before = ordered.everything()
    records = StateStore(ordered.tree.host()).all(RECORD_KIND)
    refusing(ordered, '<address domain="0x0000" bus="0x07"')
    with pytest.raises(PassthroughError) as caught:
        ordered.run(
            {"device": BOUND},
            {"device": PAIR[0], "guest_address": "09:00.0"},
            {"device": PAIR[1]},
            state="exact",
        )
    assert caught.value.code == "libvirt_refused"
    assert caught.value.extra["failed_action"] == f"add {PAIR[1]} to the domain {ordered.domain.name()}"
    assert len(caught.value.extra["undone"]) == 3
    assert caught.value.extra["not_undone"] == []
    assert ordered.everything() == before
    assert StateStore(ordered.tree.host()).all(RECORD_KIND) == records


def test_a_change_that_fails_leaves_the_old_one(ordered: Bench) -> None:
    ordered.run({"device": BOUND, **ALL_SETTINGS})
    before = ordered.everything()
    refusing(ordered, "ua-other")
    with pytest.raises(PassthroughError) as caught:
        ordered.run({"device": BOUND, "alias": "ua-other"})
    assert caught.value.code == "libvirt_refused"
    assert ordered.everything() == before


@pytest.mark.parametrize("times", [2, 3])
def test_what_could_not_be_restored_is_tried_again_and_told(ordered: Bench, times: int) -> None:
    """The new element is refused, and the old one once or twice too: the runner's own undo is the last chance."""
    ordered.run({"device": BOUND, **ALL_SETTINGS})
    before = ordered.everything()
    refusing(ordered, '<address domain="0x0000" bus="0x02"', times)
    ordered.tree.write(STATE_PATH, "").path(STATE_PATH).unlink()
    with pytest.raises(PassthroughError) as caught:
        ordered.run({"device": BOUND, "alias": "ua-other"})
    assert caught.value.code == "libvirt_refused"
    records = StateStore(ordered.tree.host()).all(RECORD_KIND)
    if times == 2:
        assert ordered.everything() == before
        assert caught.value.extra["not_undone"] == []
        assert records == []
    else:
        assert ordered.hostdevs() == {}
        assert [problem["code"] for problem in caught.value.extra["not_undone"]] == ["not_undone"]
        assert "ua-card" in records[0].before


def test_a_setting_that_libvirt_drops_is_noticed(bench: Bench) -> None:
    """This libvirt is made to look newer than it is, so that only reading back can tell."""
    if bench.libvirt.connect().version >= (10, 0, 0):
        pytest.skip("this libvirt knows driver_model")

    class Connection(LibvirtConnection):
        version = (12, 0, 0)

    bench.connect = lambda _uri: Connection(bench.libvirt.handle)
    bench.tree.path(SCHEMAS).unlink()
    before = bench.everything()
    with pytest.raises(PassthroughError) as caught:
        bench.run({"device": NIC, "driver_model": "mlx5_vfio_pci"})
    assert caught.value.code == "libvirt_changed_setting"
    assert "its driver_model is then None and not 'mlx5_vfio_pci'" in str(caught.value)
    assert bench.everything() == before


def test_an_old_libvirt_is_refused_what_it_would_drop(bench: Bench) -> None:
    if bench.libvirt.connect().version >= (10, 0, 0):
        pytest.skip("this libvirt knows driver_model")
    error = bench.fails({"device": NIC, "driver_model": "mlx5_vfio_pci"})
    assert [problem.code for problem in error.problems] == ["libvirt_too_old", "schema_violation"]


def test_the_records_say_what_was_there(bench: Bench) -> None:
    def records() -> dict[str, tuple[Any, Any, bool]]:
        found = StateStore(bench.tree.host()).all(RECORD_KIND)
        return {one.key.split()[-1]: (one.before, one.after, one.diverged) for one in found}

    bench.tree.bind(NIC, "vfio-pci")
    bench.domain.attachDeviceFlags(hostdev_xml(NIC, attributes="managed='no'"), 2)
    foreign = bench.hostdevs()[NIC]
    bench.run({"device": NIC}, {"device": BOUND})
    ours = bench.hostdevs()
    assert records() == {NIC: (foreign, ours[NIC], False), BOUND: (None, ours[BOUND], False)}
    keys = [one.key for one in StateStore(bench.tree.host()).all(RECORD_KIND)]
    assert keys == [f"qemu:///system {bench.domain.UUIDString()} {address}" for address in (NIC, BOUND)]

    bench.run({"device": BOUND, "alias": "ua-a"})
    assert records()[BOUND] == (None, bench.hostdevs()[BOUND], False)
    bench.run({"device": BOUND}, state="absent")
    assert list(records()) == [NIC]
    bench.run({"device": NIC, "managed": False})
    assert records() == {}
    assert bench.hostdevs() == {NIC: foreign}

    bench.run({"device": BOUND})
    bench.domain.detachDeviceFlags(bench.hostdevs()[BOUND], 2)
    bench.domain.attachDeviceFlags(hostdev_xml(BOUND, "<alias name='ua-b'/>"), 2)
    bench.run({"device": BOUND, "alias": "ua-a"})
    assert records()[BOUND][2]


def test_a_change_of_somebody_else_meanwhile(bench: Bench) -> None:
    bench.run({"device": NIC})
    bench.tree.bind(NIC, "vfio-pci")

    class Connection(LibvirtConnection):
        def domain(self, name_or_uuid: str) -> Any:
            return Meanwhile(bench.domain)

    class Meanwhile(LibvirtDomain):
        reads = 0

        def config_xml(self) -> str:
            found = super().config_xml()
            Meanwhile.reads += 1
            if Meanwhile.reads == 1:
                bench.domain.detachDeviceFlags(bench.hostdevs()[NIC], 2)
                bench.domain.attachDeviceFlags(hostdev_xml(NIC, "<alias name='ua-b'/>"), 2)
            return found

    bench.connect = lambda _uri: Connection(bench.libvirt.handle)
    with pytest.raises(PassthroughError) as caught:
        bench.run({"device": NIC, "managed": False}, {"device": BOUND}, state="exact")
    assert caught.value.code == "domain_changed_meanwhile"
    assert "ua-b" in bench.hostdevs()[NIC]
    assert BOUND not in bench.hostdevs()


def test_writers_at_the_same_time_lose_nothing(bench: Bench) -> None:
    """Others attach devices to the same domain while the module works on it."""
    others = [f"0000:{bus:02x}:00.0" for bus in range(0x60, 0x68)]
    start = threading.Barrier(3)
    failures: list[BaseException] = []

    def attach(addresses: list[str]) -> None:
        try:
            start.wait(30)
            for address in addresses:
                bench.domain.attachDeviceFlags(hostdev_xml(address), 2)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=attach, args=(others[part::2],)) for part in (0, 1)]
    for thread in threads:
        thread.start()
    start.wait(30)
    bench.run({"device": NIC}, *({**one, "guest_address": None} for one in FOUR))
    bench.run({"device": NIC}, state="absent")
    bench.run({"device": NIC, "managed": True})
    for thread in threads:
        thread.join(60)
    assert not failures
    assert sorted(bench.hostdevs()) == sorted([NIC, *(f"{CARD}.{function}" for function in range(4)), *others])


# -- interfaces ---------------------------------------------------------------------------------------------

STAYS = (
    "<interface type='user'><mac address='52:54:00:00:00:07'/><model type='virtio'/><alias name='ua-stays'/>"
    "<teaming type='persistent'/></interface>"
)


def test_the_other_card_of_a_team_stays_although_it_has_the_same_mac(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
    """libvirt finds an interface by its MAC address."""
    bench = Bench(libvirt, tree, devices=STAYS)
    rest = bench.rest()
    fast = {"device": "0a:10.0", "kind": "interface", "mac": "52:54:00:00:00:07", "teaming": {"persistent": "ua-stays"}}
    done = bench.quadruple(fast)
    assert done["hostdevs"][0]["teaming"] == {"persistent": "ua-stays"}
    assert "ua-stays" in bench.xml()
    bench.quadruple({"device": "0a:10.0", "boot_order": None, "vlan": 7})
    bench.quadruple({"device": "0a:10.0"}, state="absent")
    assert sorted(bench.rest()) == sorted(rest)


def test_a_device_becomes_an_interface_and_a_hostdev_again(bench: Bench) -> None:
    vf = "0000:0a:10.0"
    bench.run({"device": vf, "alias": "ua-vf", "guest_address": "07:00.0"})
    done = bench.quadruple({"device": vf, "kind": "interface", "mac": "52:54:00:12:34:56", "vlan": 42})
    assert done["hostdevs"] == [
        {
            "address": vf,
            "kind": "interface",
            "guest_address": "0000:07:00.0",
            "managed": True,
            "alias": "ua-vf",
            "mac": "52:54:00:12:34:56",
            "vlan": 42,
        }
    ]
    done = bench.quadruple({"device": vf, "kind": "hostdev"})
    assert done["hostdevs"][0]["kind"] == "hostdev"
    assert done["hostdevs"][0]["alias"] == "ua-vf"
    assert "52:54:00:12:34:56" not in bench.xml()
    # A network card whose address libvirt makes up keeps it.
    bench.quadruple({"device": vf, "kind": "interface"})
    mac = bench.run({"device": vf})["hostdevs"][0]["mac"]
    done = bench.quadruple({"device": vf, "vlan": 3}, state="exact")
    assert (done["hostdevs"][0]["kind"], done["hostdevs"][0]["mac"]) == ("interface", mac)
