# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole procedure, against the real libvirt with its network driver, and a machine made of files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, StateStore
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import (
    Domain,
    LibvirtConnection,
    LibvirtDomain,
    LibvirtNetwork,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_network import argument_spec, build
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.network import NetworkDefinition
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.network_change import (
    ACTIVE_KIND,
    AUTOSTART_KIND,
    DEFINITION_KIND,
    DefineNetwork,
    SetActive,
    users_of,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.revert import build_networks
from ansible_collections.kvm.passthrough.tests.unit.support.domains import NIC, hostdev_xml
from ansible_collections.kvm.passthrough.tests.unit.support.pools import EMPTY_PF, PF, PLAIN, VFS
from ansible_collections.kvm.passthrough.tests.unit.support.private_libvirt import PrivateLibvirt
from ansible_collections.kvm.passthrough.tests.unit.support.query import documented, undocumented
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_listing

pytest.importorskip("lxml.etree")
libvirt = pytest.importorskip("libvirt")

INACTIVE = 1  # VIR_NETWORK_XML_INACTIVE


@dataclass
class Bench:
    """A libvirt, a machine, and the module's procedure between them."""

    libvirt: PrivateLibvirt
    tree: SysfsTree

    def run(self, check: bool = False, **options: Any) -> dict[str, Any]:
        defaults = {name: option.get("default") for name, option in argument_spec().items()}
        groups = [{"default": False, **group} for group in options.get("portgroups") or []]
        given = {**defaults, "name": "pool", **options}
        if groups:
            given["portgroups"] = groups
        host = self.tree.host()
        return execute(host, build(host, given, self.libvirt.connect), module="hostdev_network", check_mode=check)

    def quadruple(self, **options: Any) -> dict[str, Any]:
        """check, run, check, run: the first check predicts the run, writes nothing, and then there is nothing to do."""
        before = self.everything()
        predicted = self.run(check=True, **options)
        assert self.everything() == before
        done = self.run(**options)
        assert done == predicted
        assert done["changed"]
        json.dumps(done)
        after = self.everything()
        for check in (True, False):
            again = self.run(check=check, **options)
            assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
        assert self.everything() == after
        return done

    def fails(self, **options: Any) -> PassthroughError:
        """The error of a check and of a run, which change nothing."""
        before = self.everything()
        errors = []
        for check in (True, False):
            with pytest.raises(PassthroughError) as caught:
                self.run(check=check, **options)
            errors.append(caught.value)
            assert self.everything() == before
        assert str(errors[0]) == str(errors[1])
        return errors[1]

    def everything(self) -> Any:
        """All that a run could change."""
        networks = {
            network.name(): (network.XMLDesc(INACTIVE), network.XMLDesc(0), network.isActive(), network.autostart())
            for network in self.libvirt.handle.listAllNetworks()
        }
        return networks, tree_listing(self.tree.root)

    def define(self, body: str, name: str = "pool", attributes: str = "") -> Any:
        return self.libvirt.handle.networkDefineXML(f"<network{attributes}><name>{name}</name>{body}</network>")

    def network(self, name: str = "pool") -> Any:
        return self.libvirt.handle.networkLookupByName(name)

    def config(self, name: str = "pool") -> NetworkDefinition:
        return NetworkDefinition(self.network(name).XMLDesc(INACTIVE))

    def records(self, kind: str) -> list[Any]:
        return [(record.before, record.after) for record in StateStore(self.tree.host()).all(kind)]


@pytest.fixture
def bench(daemon: PrivateLibvirt, machine: SysfsTree) -> Iterator[Bench]:
    daemon.clean()
    shutil.rmtree(machine.path(STATE_PATH).parent, ignore_errors=True)
    yield Bench(daemon, machine)
    daemon.clean()


def codes(error: PassthroughError) -> list[str]:
    return [problem.code for problem in error.problems]


POOL = "<forward mode='hostdev' managed='yes'><pf dev='enp10s0'/></forward>"


# -- states -------------------------------------------------------------------------------------------------


def test_a_domain_that_cannot_be_read_is_named(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.libvirt.define_domain(hostdev_xml(PLAIN), "web07")

    class Unreadable(LibvirtDomain):
        def config_xml(self) -> str:
            return "<domain>"

    class Connected(LibvirtConnection):
        def domains(self) -> Sequence[Domain]:
            return [Unreadable(handle) for handle in bench.libvirt.handle.listAllDomains()]

    monkeypatch.setattr(bench.libvirt, "connect", lambda _uri: Connected(bench.libvirt.handle))
    error = bench.fails(devices=[VFS[0]])
    assert error.code == "domain_xml_invalid"
    assert "domain web07: The XML is malformed" in str(error)


def test_a_pool_of_a_pf(bench: Bench) -> None:
    done = bench.quadruple(pf="enp10s0")
    assert [action["description"] for action in done["actions"]] == [
        "define the network pool",
        "switch autostart of the network pool on",
        "start the network pool",
    ]
    assert done["network"] == {
        "name": "pool",
        "uuid": None,
        "active": True,
        "autostart": True,
        "managed": True,
        "pf": "enp10s0",
        "addresses": None,
        "driver_model": None,
        "vlan": None,
        "virtualport": None,
        "portgroups": [],
    }
    assert [vf["address"] for vf in done["vfs"]] == VFS
    assert done["vfs"][0] == {
        "address": VFS[0],
        "pf": PF,
        "driver": "igbvf",
        "iommu_group": 20,
        "used_by": None,
    }
    assert "warnings" not in done
    # libvirt itself has found the VFs.
    live = NetworkDefinition(bench.network().XMLDesc(0))
    assert [str(address) for address in live.pool.addresses or ()] == VFS
    assert bench.run(pf="enp10s0")["network"]["uuid"] == bench.network().UUIDString()
    assert [(before, "<pf dev=" in after) for before, after in bench.records(DEFINITION_KIND)] == [(None, True)]
    assert bench.records(AUTOSTART_KIND) == [(False, True)]
    assert bench.records(ACTIVE_KIND) == [("inactive", "active")]

    gone = bench.quadruple(state="absent")
    assert [action["description"] for action in gone["actions"]] == [
        "stop the network pool",
        "switch autostart of the network pool off",
        "undefine the network pool",
    ]
    assert (gone["network"], gone["vfs"]) == (None, [])
    assert bench.libvirt.handle.listAllNetworks() == []
    assert not bench.tree.path(STATE_PATH).exists()  # all is as it was before


@pytest.mark.parametrize(
    "devices",
    [
        [VFS[1], VFS[0]],
        [{"pf": {"address": PF}, "vf": "all"}],
        [{"vendor_id": "8086", "device_id": "10ca", "count": 2}],
        [{"pf": {"interface": "enp10s0"}, "vf": [0]}, {"address": VFS[1], "expect": {"device_id": "10ca"}}],
    ],
)
def test_a_pool_of_vfs(bench: Bench, devices: list[Any]) -> None:
    done = bench.quadruple(devices=devices, state="inactive")
    assert done["network"]["addresses"] == VFS
    assert (done["network"]["active"], done["network"]["autostart"]) == (False, False)
    assert [str(address) for address in bench.config().pool.addresses or ()] == VFS


def test_states_and_autostart(bench: Bench) -> None:
    assert bench.quadruple(pf=PF, state="present")["network"]["active"] is False
    assert bench.quadruple(state="active")["network"] == {
        **bench.run()["network"],
        "active": True,
        "autostart": False,  # as it was
    }
    assert not bench.run(state="present")["changed"]
    assert bench.quadruple(autostart=True)["network"]["autostart"] is True
    assert [one["description"] for one in bench.quadruple(state="inactive")["actions"]] == ["stop the network pool"]
    assert bench.network().autostart()
    assert not bench.network().isActive()


def test_everything_at_once_and_taken_back(bench: Bench) -> None:
    options = {
        "vlan": 42,
        "portgroups": [
            {"name": "storage", "vlan": 43, "default": True},
            {"name": "profile", "virtualport": {"type": "802.1Qbh", "profileid": "p"}},
        ],
    }
    # The VLAN of the network and the profile of the group do not go together.
    error = bench.fails(pf=PF, **options)
    assert codes(error) == ["virtualport_vlan"]
    assert "port group profile has both the VLAN 42" in str(error)

    done = bench.quadruple(pf=PF, **{**options, "vlan": None}, managed=True)
    assert done["network"]["portgroups"] == [
        {
            "name": "profile",
            "default": False,
            "vlan": None,
            "virtualport": {"type": "802.1Qbh", "profileid": "p"},
        },
        {"name": "storage", "default": True, "vlan": 43, "virtualport": None},
    ]
    uuid = bench.network().UUIDString()
    # What is not given stays.
    assert not bench.run(pf=PF)["changed"]
    done = bench.quadruple(vlan=7, portgroups=[{"name": "storage", "vlan": 44}])
    assert (done["network"]["vlan"], len(done["network"]["portgroups"])) == (7, 1)
    done = bench.quadruple(vlan=0, portgroups=[], virtualport={"type": "802.1Qbh", "profileid": "q"})
    assert (done["network"]["vlan"], done["network"]["portgroups"]) == (None, [])
    done = bench.quadruple(virtualport={"type": "none"})
    assert done["network"]["virtualport"] is None
    assert bench.network().UUIDString() == uuid
    assert bench.config().pool == NetworkDefinition(f"<network><name>pool</name>{POOL}</network>").pool


def test_vfs_in_place_of_a_pf_and_back(bench: Bench) -> None:
    bench.run(pf=PF)
    done = bench.quadruple(devices=[VFS[0]])
    assert (done["network"]["pf"], done["network"]["addresses"]) == (None, [VFS[0]])
    assert "<pf" not in bench.config().text
    assert [one["address"] for one in done["vfs"]] == [VFS[0]]
    done = bench.quadruple(pf=PF)
    assert (done["network"]["pf"], done["network"]["addresses"]) == ("enp10s0", None)
    # Neither is lost, which is what libvirt does with both in one definition.
    assert "<address" not in bench.config().text


def test_what_else_the_definition_says_stays(bench: Bench) -> None:
    metadata = "<metadata><app:note xmlns:app='https://example.com/app'>kept</app:note></metadata>"
    defined = bench.define(
        f"{metadata}{POOL}<port isolated='yes'/><portgroup name='a' trustGuestRxFilters='yes'/>",
    )
    uuid = defined.UUIDString()
    bench.quadruple(vlan=9, portgroups=[{"name": "a", "vlan": 3}], state="present")
    text = bench.config().text
    assert uuid in text
    assert "kept</app:note>" in text
    assert '<port isolated="yes"/>' in text
    assert 'trustGuestRxFilters="yes"' in text
    assert "autostart" not in text


def test_a_pool_that_was_started_with_fewer_vfs_is_started_anew(bench: Bench) -> None:
    bench.run(pf=PF)
    extra = "0000:0a:10.4"
    bench.tree.add_device(extra, ids="8086:10ca", pci_class=0x020000, driver="igbvf", group=22)
    links = (
        (f"{bench.tree.device_path(extra)}/physfn", bench.tree.device_path(PF)),
        (f"{bench.tree.device_path(PF)}/virtfn2", bench.tree.device_path(extra)),
    )
    for link, to in links:
        bench.tree.link(link, to)
    try:
        done = bench.quadruple(pf=PF)
        assert [action["description"] for action in done["actions"]] == [
            "stop the network pool",
            "start the network pool",
        ]
        live = NetworkDefinition(bench.network().XMLDesc(0))
        assert [str(address) for address in live.pool.addresses or ()] == [*VFS, extra]
    finally:
        bench.tree.path(links[1][0]).unlink()
        bench.tree.vanish(extra)
        bench.tree.path(f"/sys/bus/pci/devices/{extra}").unlink()
        bench.tree.path(f"/sys/kernel/iommu_groups/22/devices/{extra}").unlink()


# -- in use -------------------------------------------------------------------------------------------------


@pytest.fixture
def used(bench: Bench) -> Bench:
    """A pool with two guests: libvirt's QEMU driver asks for a port in the same way when it starts one."""
    bench.run(pf=PF)
    for number, name in enumerate(["web02", "web01"]):
        bench.libvirt.connect_guest("pool", name, number)
    return bench


def test_a_pool_in_use_is_changed_for_its_next_start_only(used: Bench) -> None:
    done = used.quadruple(pf=PF, vlan=42)
    assert [action["description"] for action in done["actions"]] == ["change the definition of the network pool"]
    assert done["restart_required"]
    assert (done["connections"], done["used_by"]) == (2, ["web01", "web02"])
    assert [(vf["address"], vf["used_by"]) for vf in done["vfs"]] == [(VFS[0], "web02"), (VFS[1], "web01")]
    assert "used by web01, web02, so that it goes on as it was started" in done["warnings"][0]
    assert (
        undocumented(
            {key: done[key] for key in done.keys() - {"warnings", "diff", "changed"}}, documented("hostdev_network")
        )
        == []
    )
    with pytest.raises(libvirt.libvirtError, match="requires exclusive access to interfaces, but none are available"):
        used.libvirt.connect_guest("pool", "web03", 3)
    assert "<vlan" not in used.network().XMLDesc(0)
    assert "<vlan" in used.network().XMLDesc(INACTIVE)
    # Once nobody uses it, it is started anew.
    for port in used.network().listAllPorts():
        port.delete()
    done = used.quadruple(pf=PF, vlan=42)
    assert [action["description"] for action in done["actions"]] == ["stop the network pool", "start the network pool"]
    assert not done["restart_required"]
    assert "<vlan" in used.network().XMLDesc(0)


@pytest.mark.parametrize(("state", "word"), [("absent", "removed"), ("inactive", "stopped")])
def test_a_pool_in_use_is_not_stopped(used: Bench, state: str, word: str) -> None:
    error = used.fails(state=state)
    assert codes(error) == ["network_in_use"]
    assert f"cannot be {word}: web01, web02 have 2 interfaces of it" in str(error)
    assert error.problems[0].details["domains"] == ["web01", "web02"]


def test_a_guest_that_comes_while_the_module_plans_keeps_its_network(used: Bench) -> None:
    step = SetActive(used.libvirt.connect(), "", "pool", False)
    with pytest.raises(PassthroughError) as caught:
        step.apply(used.tree.host())
    assert caught.value.code == "network_in_use"
    assert used.network().isActive()


def test_a_libvirt_that_does_not_tell_whose_the_connections_are(used: Bench) -> None:
    class Older(LibvirtNetwork):
        def port_xmls(self) -> None:
            return None

    assert [port.owner for port in users_of(Older(used.network()))] == ["a guest", "a guest"]


def test_domains_that_name_the_network(bench: Bench) -> None:
    bench.libvirt.define_domain("<interface type='network'><source network='pool'/></interface>")
    bench.libvirt.define_domain("<interface type='network'><source network='other'/></interface>", "web02")
    done = bench.run(pf=PF)
    assert done["referenced_by"] == ["web01"]
    gone = bench.run(state="absent")
    assert gone["warnings"] == [
        "The definition of web01 names the network pool, without which a domain does not start."
    ]


# -- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected", "words"),
    [
        ({}, ["pool_empty"], "no VF and no PF"),
        ({"devices": []}, ["pool_empty"], "devices is an empty list"),
        ({"pf": PF, "devices": VFS}, ["pf_with_devices"], "forgets the PF"),
        ({"pf": PLAIN}, ["not_a_pf"], "no SR-IOV capability"),
        ({"pf": {"vendor_id": "8086", "device_id": "10c9", "count": "all"}}, ["not_a_pf"], "3 devices are meant"),
        ({"pf": "enp99s0"}, ["no_match"], "enp99s0"),
        ({"pf": EMPTY_PF}, ["pf_without_vfs"], "enp11s0 (0000:0b:00.0) has no VFs"),
        ({"pf": PF, "name": "a/b"}, ["network_name_invalid"], "without slashes"),
        ({"pf": PF, "name": ""}, ["network_name_invalid"], "without slashes"),
        ({"pf": PF, "uri": "qemu+ssh://a/system"}, ["uri_invalid"], "another machine"),
        ({"pf": PF, "vlan": 4095}, ["hostdev_value_invalid"], "from 1 to 4094, or 0 for none"),
        ({"pf": PF, "driver_model": "mlx5_vfio_pci"}, ["libvirt_too_old"], "driver_model needs libvirt 10.0.0"),
        ({"pf": PF, "driver_model": "a b"}, ["hostdev_value_invalid"], "name of a kernel driver"),
        (
            {"pf": PF, "virtualport": {"type": "802.1Qbh", "profileid": None}},
            ["hostdev_value_invalid"],
            "it needs a profileid",
        ),
        (
            {"pf": PF, "virtualport": {"type": "none", "profileid": "x"}},
            ["hostdev_value_invalid"],
            "there is no profileid",
        ),
        (
            {"pf": PF, "virtualport": {"type": "802.1Qbh", "profileid": "x" * 40}},
            ["hostdev_value_invalid"],
            "1 to 39 characters",
        ),
        (
            {"pf": PF, "portgroups": [{"name": "a b"}, {"name": "b", "vlan": -1}], "vlan": -2},
            ["hostdev_value_invalid"] * 3,
            "portgroups[1]: vlan -1",
        ),
        (
            {"pf": PF, "portgroups": [{"name": "a", "default": True}, {"name": "b", "default": True}, {"name": "a"}]},
            ["portgroup_duplicate", "portgroup_defaults"],
            "2 port groups have the name a",
        ),
        ({"devices": [PLAIN]}, ["not_a_vf"], "the device is no VF"),
        ({"devices": [VFS[0], VFS[0]]}, ["selected_twice"], VFS[0]),
        ({"devices": [VFS[0]], "managed": False}, ["device_not_bound"], "bound to igbvf, not to a VFIO driver"),
    ],
)
def test_what_is_refused(bench: Bench, options: dict[str, Any], expected: list[str], words: str) -> None:
    error = bench.fails(**options)
    assert codes(error) == expected
    assert words in str(error)
    assert all(problem.message.endswith(".") or "What comes nearest:" in problem.text for problem in error.problems)


def test_a_pool_without_vfs_may_be_defined_for_later(bench: Bench) -> None:
    assert bench.quadruple(pf=EMPTY_PF, state="inactive")["vfs"] == []
    assert codes(bench.fails(autostart=True, state="present")) == ["pf_without_vfs"]


def test_networks_that_are_no_pools_are_left_alone(bench: Bench) -> None:
    bench.define("<forward mode='bridge'/><bridge name='br0'/>", "bridged")
    bench.define("<forward/><bridge name='br1'/><ip address='192.0.2.1' netmask='255.255.255.0'/>", "nat")
    bench.define("", "alone")
    for name, words in (("bridged", "by bridge"), ("nat", "by nat"), ("alone", "does not forward")):
        for state in ("active", "absent"):
            error = bench.fails(name=name, pf=PF, state=state)
            assert codes(error) == ["network_not_a_pool"]
            assert words in str(error)


def test_a_transient_network(bench: Bench) -> None:
    bench.libvirt.handle.networkCreateXML(f"<network><name>pool</name>{POOL}</network>")
    for state in ("active", "absent"):
        assert codes(bench.fails(pf=PF, state=state)) == ["network_transient"]


def test_devices_that_others_have(bench: Bench) -> None:
    bench.run(pf=PF)
    bench.libvirt.define_domain(hostdev_xml(VFS[0]))
    source = "<source><address type='pci' domain='0' bus='0x0a' slot='0x10' function='0x2'/></source>"
    bench.libvirt.define_domain(f"<interface type='hostdev'>{source}</interface>", "web02")
    error = bench.fails(name="second", pf=PF)
    assert [(problem.code, problem.details["device"], problem.details["owner"]) for problem in error.problems] == [
        ("device_elsewhere", VFS[0], "the network pool"),
        ("device_elsewhere", VFS[0], "the domain web01"),
        ("device_elsewhere", VFS[1], "the network pool"),
        ("device_elsewhere", VFS[1], "the domain web02"),
    ]
    assert codes(bench.fails(name="second", devices=[VFS[1]])) == ["device_elsewhere"] * 2


def test_definitions_that_no_guest_can_use(bench: Bench) -> None:
    trunk = "<vlan trunk='yes'><tag id='1'/><tag id='2' nativeMode='untagged'/></vlan>"
    virtualport = "<virtualport type='openvswitch'/>"
    bench.define(f"{POOL}<portgroup name='g'>{virtualport}</portgroup>", "other")
    error = bench.fails(name="other")
    assert codes(error) == ["virtualport_unsupported"]
    assert "port group g has a virtualport of type openvswitch, but a VF can have 802.1Qbh only" in str(error)
    bench.network("other").undefine()
    bench.define(f"{POOL}<vlan><tag id='4095'/></vlan>", "other")
    assert codes(bench.fails(name="other")) == ["vlan_reserved"]
    bench.network("other").undefine()
    bench.define(f"{POOL}{trunk}<portgroup name='g'/>")
    error = bench.fails()
    assert codes(error) == ["vlan_trunk", "vlan_trunk"]
    assert "the network has the VLANs trunk of 1, 2 (untagged), but a VF can have one only" in str(error)
    done = bench.quadruple(vlan=1, portgroups=[{"name": "g"}])
    assert (done["network"]["vlan"], done["network"]["portgroups"][0]["virtualport"]) == (1, None)


def test_a_vf_that_shares_its_group(bench: Bench) -> None:
    bench.tree.link(f"{bench.tree.device_path(VFS[0])}/iommu_group", "/sys/kernel/iommu_groups/21")
    for vf in VFS:
        bench.tree.link(f"/sys/kernel/iommu_groups/21/devices/{vf}", bench.tree.device_path(vf))
    try:
        error = bench.fails(devices=VFS)
        assert codes(error) == ["group_not_viable", "group_not_viable"]
        assert f"IOMMU group 21 of the VF also has {VFS[1]}, held by igbvf of the host" in str(error)
    finally:
        bench.tree.join_group(VFS[0], 20)
        bench.tree.path(f"/sys/kernel/iommu_groups/21/devices/{VFS[0]}").unlink()


def test_a_pf_that_is_not_there_any_more(bench: Bench) -> None:
    bench.define(POOL.replace("enp10s0", "enp99s0"))
    error = bench.fails(vlan=5)
    assert codes(error) == ["pf_not_found"]
    assert "its PF enp99s0 is no network interface of a PCI device on this host now" in str(error)


def test_a_vf_that_is_no_network_card(bench: Bench) -> None:
    bench.tree.set_attribute(VFS[0], "class", "0x010802")
    try:
        error = bench.fails(devices=[VFS[0]])
    finally:
        bench.tree.set_attribute(VFS[0], "class", "0x020000")
    assert codes(error) == ["not_a_network_device"]
    assert "the device is a VF, but no network card (class 010802)" in str(error)


def test_a_pf_without_an_interface(bench: Bench) -> None:
    """As long as it is bound to VFIO, or its driver makes none."""
    interface = bench.tree.path("/sys/class/net/enp10s0")
    parked = interface.with_name("parked")
    interface.rename(parked)
    try:
        by_vfs, by_pf = bench.fails(devices=VFS), bench.fails(pf=PF)
    finally:
        parked.rename(interface)
    assert codes(by_vfs) == ["pf_without_interface"] * 2
    assert f"its PF {PF} has no network interface, through which libvirt sets MAC address and VLAN" in str(by_vfs)
    assert codes(by_pf) == ["pf_without_interface"]


def test_all_problems_are_reported_together(bench: Bench) -> None:
    error = bench.fails(name="a/b", devices=[PLAIN, "01:20.0", {"mac": "x"}], vlan=5000)
    assert codes(error) == ["network_name_invalid", "hostdev_value_invalid", "address_out_of_range", "selector_invalid"]


# -- failures -----------------------------------------------------------------------------------------------


def test_a_start_that_fails_is_undone(bench: Bench) -> None:
    """libvirt finds no VFs, since they vanish between planning and starting."""
    bench.define(POOL)
    before = bench.everything()
    options = {name: option.get("default") for name, option in argument_spec().items()}
    host = bench.tree.host()
    procedure = build(host, {**options, "name": "pool", "vlan": 42, "autostart": True}, bench.libvirt.connect)
    links = [bench.tree.path(f"{bench.tree.device_path(PF)}/virtfn{index}") for index in range(2)]
    targets = [link.readlink() for link in links]
    plan = procedure.plan

    def plan_and_pull_out(observed: Any) -> Any:
        planned = plan(observed)
        for link in links:
            link.unlink()
        return planned

    procedure.plan = plan_and_pull_out  # type: ignore[method-assign]
    try:
        with pytest.raises(PassthroughError) as caught:
            execute(host, procedure, module="hostdev_network", check_mode=False)
    finally:
        for link, target in zip(links, targets):
            link.symlink_to(target)
    assert caught.value.code == "libvirt_refused"
    assert "Failed to start the network pool: libvirt did not start the network pool: " in str(caught.value)
    assert caught.value.extra["not_undone"] == []
    bench.tree.path("/run/kvm-passthrough.lock").unlink()
    assert bench.everything() == before


def test_a_change_by_somebody_else_is_not_overwritten(bench: Bench) -> None:
    defined = bench.define(POOL)
    host = bench.tree.host()
    options = {name: option.get("default") for name, option in argument_spec().items()}
    procedure = build(host, {**options, "name": "pool", "vlan": 42}, bench.libvirt.connect)
    plan = procedure.plan(procedure.observe())
    bench.define(f"<uuid>{defined.UUIDString()}</uuid>{POOL}<vlan><tag id='5'/></vlan>")
    step = next(action for action in plan.actions if isinstance(action, DefineNetwork))
    with pytest.raises(PassthroughError) as caught:
        step.apply(host)
    assert caught.value.code == "network_changed_meanwhile"
    vlan = bench.config().pool.vlan
    assert vlan is not None
    assert vlan.shown == 5


def test_a_setting_that_libvirt_drops_is_seen_and_undone(bench: Bench) -> None:
    """libvirt 9 drops the model of a driver without a word when it does not validate."""
    if bench.libvirt.connect().version >= (10, 0, 0):
        pytest.skip("this libvirt knows the model of a driver")
    bench.define(POOL)
    before = bench.config().text
    wanted = NetworkDefinition(before.replace('managed="yes">', 'managed="yes"><driver model="vfio-x"/>'))
    handle = bench.libvirt.handle

    class Lenient(LibvirtConnection):
        def define_network(self, xml: str) -> None:
            handle.networkDefineXML(xml)

    step = DefineNetwork(Lenient(handle), "", "pool", before, wanted.text, wanted.pool)
    with pytest.raises(PassthroughError) as caught:
        step.apply(bench.tree.host())
    assert caught.value.code == "libvirt_changed_setting"
    assert "its driver_model is then None and not 'vfio-x'" in str(caught.value)
    assert bench.config().text == before


def test_a_device_of_another_kind_is_not_in_the_way(bench: Bench) -> None:
    bench.libvirt.define_domain(hostdev_xml(NIC))
    assert bench.run(pf=PF)["changed"]


# -- taking it back -----------------------------------------------------------------------------------------


def reverted(bench: Bench, check: bool = False, **options: Any) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in argument_spec().items()}
    host = bench.tree.host()
    procedure = build_networks(host, {**defaults, "revert": True, **options}, (), bench.libvirt.connect)
    return execute(host, procedure, module="hostdev_network", check_mode=check)


def networks(bench: Bench) -> Any:
    return bench.everything()[0]


def given_back(bench: Bench) -> dict[str, Any]:
    """check, run, check, run."""
    files = bench.everything()
    predicted = reverted(bench, check=True)
    assert bench.everything() == files
    done = reverted(bench)
    assert done == predicted
    for check in (True, False):
        assert not reverted(bench, check)["changed"]
    assert not bench.tree.path(STATE_PATH).exists()
    return done


def test_a_network_of_ours_is_removed_again(bench: Bench) -> None:
    bench.run(pf="enp10s0", vlan=5)
    bench.run(pf="enp10s0", vlan=6)
    done = given_back(bench)
    assert done["changed"]
    assert networks(bench) == {}


@pytest.mark.parametrize("active", [False, True])
def test_a_network_of_somebody_else_is_as_it_was(bench: Bench, active: bool) -> None:
    network = bench.define(POOL)
    if active:
        network.create()
    before = networks(bench)
    bench.run(vlan=7, state="inactive", autostart=True)
    bench.run(vlan=8, state="active" if not active else "inactive")
    assert networks(bench) != before
    assert given_back(bench)["changed"]
    assert networks(bench) == before


def test_a_network_that_we_removed_comes_back(bench: Bench) -> None:
    network = bench.define(POOL)
    network.create()
    network.setAutostart(1)
    before = networks(bench)
    bench.run(state="absent")
    assert networks(bench) == {}
    assert given_back(bench)["changed"]
    assert networks(bench) == before


def test_a_network_that_somebody_else_changed_since_stays(bench: Bench) -> None:
    bench.run(pf="enp10s0", vlan=5)
    uuid = bench.network().UUIDString()
    bench.libvirt.handle.networkDefineXML(
        f"<network><name>pool</name><uuid>{uuid}</uuid>"
        "<forward mode='hostdev' managed='no'><pf dev='enp11s0'/></forward></network>"
    )
    before = networks(bench)
    done = given_back(bench)
    assert not done["changed"]
    (kept,) = done["kept"]
    assert kept["target"] == "The network pool"
    assert "enp11s0" in kept["found"]
    assert networks(bench) == before


@pytest.mark.parametrize("ours", [False, True])
def test_a_network_that_somebody_else_removed_stays_away(bench: Bench, ours: bool) -> None:
    if not ours:
        bench.define(POOL)
    bench.run(pf="enp10s0", vlan=5)
    bench.network().destroy()
    bench.network().undefine()
    done = given_back(bench)
    assert not done["changed"]
    assert networks(bench) == {}
    assert bool(done.get("warnings")) is not ours


def test_a_network_that_guests_use_is_not_taken_back(bench: Bench) -> None:
    bench.run(pf="enp10s0")
    bench.libvirt.connect_guest("pool", "web01", 1)
    before = bench.everything()
    for check in (True, False):
        with pytest.raises(PassthroughError) as caught:
            reverted(bench, check)
        assert caught.value.code == "network_in_use"
        assert bench.everything() == before
