# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who has what on a host with the real libvirt, and definitions in files."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import (
    Domain,
    LibvirtConnection,
    LibvirtDomain,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_info import hostdev_report
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.text import MAX_BYTES
from ansible_collections.kvm.passthrough.tests.unit.support.domains import DOMAIN, SCHEMAS, hostdev_xml, show_schemas
from ansible_collections.kvm.passthrough.tests.unit.support.pools import PF, PLAIN, VFS, machine_with_vfs
from ansible_collections.kvm.passthrough.tests.unit.support.private_libvirt import PrivateLibvirt
from ansible_collections.kvm.passthrough.tests.unit.support.query import documented, undocumented, unreturned
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

pytest.importorskip("lxml.etree")

GONE = "0000:0f:00.0"
BOOT_DISK = "0000:0e:00.0"
FUNCTION = "<address type='pci' domain='0' bus='0x0a' slot='0x10' function='0x2'/>"
POOL = "<forward mode='hostdev' managed='yes'><pf dev='enp10s0'/></forward>"


# -- a host -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> SysfsTree:
    tree = machine_with_vfs(tmp_path_factory.mktemp("machine"))
    tree.add_device(BOOT_DISK, driver="nvme", nvme="nvme0", pci_class=0x010802, group=30)
    tree.write("/proc/self/mountinfo", "1 0 259:0 / / rw - ext4 /dev/nvme0n1 rw\n").write("/proc/swaps", "")
    return tree


@pytest.fixture
def libvirt(daemon: PrivateLibvirt, machine: SysfsTree) -> Iterator[PrivateLibvirt]:
    daemon.clean()
    shutil.rmtree(machine.path(STATE_PATH).parent, ignore_errors=True)
    yield daemon
    daemon.clean()


def ask(libvirt: PrivateLibvirt, tree: SysfsTree) -> dict[str, Any]:
    """The report, which changes nothing and has the documented fields."""
    before = tree_hash(tree.root)
    found = hostdev_report(tree.host(), {"uri": "qemu:///system", "path": None}, libvirt.connect)
    assert tree_hash(tree.root) == before
    json.dumps(found)
    assert _undocumented(found) == []
    return found


def _undocumented(found: dict[str, Any]) -> list[str]:
    documentation = documented("hostdev_info")
    further = dict.fromkeys(("warnings",))
    stripped = {name: value for name, value in found.items() if name not in further}
    known = documentation["problems"]["contains"]
    stripped["problems"] = [
        {name: value for name, value in problem.items() if name in known} for problem in found["problems"]
    ]
    return undocumented(stripped, documentation)


def problems(found: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    return [(problem["where"], problem["code"], problem.get("device")) for problem in found["problems"]]


def test_a_host_without_anything(libvirt: PrivateLibvirt, machine: SysfsTree) -> None:
    assert ask(libvirt, machine) == {
        "domains": [],
        "networks": [],
        "devices": [],
        "problems": [],
        "ok": True,
        "unreadable": [],
    }


def test_who_has_what(libvirt: PrivateLibvirt, machine: SysfsTree) -> None:
    libvirt.define_domain(hostdev_xml(PLAIN))
    libvirt.define_domain("<interface type='network'><source network='pool'/></interface>", "web02")
    libvirt.handle.networkDefineXML(f"<network><name>pool</name>{POOL}</network>").create()
    libvirt.connect_guest("pool", "web02", 1)
    found = ask(libvirt, machine)
    assert found["problems"] == []
    assert found["ok"]
    assert [
        (one["name"], [dev["address"] for dev in one["hostdevs"]], one["networks"]) for one in found["domains"]
    ] == [
        ("web01", [PLAIN], []),
        ("web02", [], ["pool"]),
    ]
    assert [(one["name"], one["active"], one["vfs"], one["used_by"]) for one in found["networks"]] == [
        ("pool", True, VFS, ["web02"])
    ]
    assert [(one["address"], one["driver"], one["conflict"], one["owners"]) for one in found["devices"]] == [
        (
            VFS[0],
            "igbvf",
            False,
            [{"kind": "network", "name": "pool", "how": "pool", "configured": True, "running": True}],
        ),
        (
            VFS[1],
            "igbvf",
            False,
            [{"kind": "network", "name": "pool", "how": "pool", "configured": True, "running": True}],
        ),
        (
            PLAIN,
            "igb",
            False,
            [{"kind": "domain", "name": "web01", "how": "hostdev", "configured": True, "running": False}],
        ),
    ]
    assert (
        unreturned({name: entry for name, entry in documented("hostdev_info").items() if name != "problems"}, [found])
        == []
    )


def test_conflicts_between_domains_and_pools(libvirt: PrivateLibvirt, machine: SysfsTree) -> None:
    libvirt.define_domain(hostdev_xml(VFS[0]))
    libvirt.define_domain(hostdev_xml(VFS[0]), "web02")
    libvirt.handle.networkDefineXML(f"<network><name>pool</name>{POOL}</network>")
    found = ask(libvirt, machine)
    assert problems(found) == [
        ("domain web01", "device_in_other_domain", VFS[0]),
        ("domain web02", "device_in_other_domain", VFS[0]),
        ("network pool", "device_elsewhere", VFS[0]),
        ("network pool", "device_elsewhere", VFS[0]),
    ]
    assert [one["conflict"] for one in found["devices"]] == [True, False]
    assert [one["codes"] for one in found["domains"]] == [["device_in_other_domain"]] * 2
    assert found["problems"][0]["message"].startswith(f"web01, hostdev ({VFS[0]}): the definition of the domain web02 ")


def test_definitions_that_do_not_start(libvirt: PrivateLibvirt, machine: SysfsTree) -> None:
    libvirt.define_domain(
        hostdev_xml(GONE)
        + hostdev_xml(PF)
        + hostdev_xml(BOOT_DISK)
        + hostdev_xml(PLAIN, attributes="managed='no'")
        + "<interface type='network'><source network='gone'/></interface>"
        + "<interface type='network'><source network='pool' portgroup='b'/></interface>"
    )
    libvirt.handle.networkDefineXML(
        f"<network><name>pool</name>{POOL}<vlan trunk='yes'><tag id='1'/></vlan><portgroup name='a'/></network>"
    )
    found = ask(libvirt, machine)
    assert sorted(problems(found), key=str) == sorted(
        [
            ("domain web01", "device_not_found", GONE),
            ("domain web01", "has_vfs", PF),
            ("domain web01", "boot_disk", BOOT_DISK),
            ("domain web01", "device_not_bound", PLAIN),
            ("domain web01", "network_not_found", None),
            ("domain web01", "portgroup_not_found", None),
            ("network pool", "vlan_trunk", None),
            ("network pool", "vlan_trunk", None),
        ],
        key=str,
    )
    assert "has a; the interface gets the settings of the network itself" in str(found["problems"])
    gone = next(one for one in found["devices"] if one["address"] == GONE)
    assert (gone["present"], gone["description"]) == (False, None)


def test_a_device_in_the_place_of_another_one(libvirt: PrivateLibvirt, machine: SysfsTree) -> None:
    libvirt.define_domain(hostdev_xml(PLAIN) + hostdev_xml(VFS[0]))
    records = [
        {"kind": "driver", "key": f"{address} {ids}", "before": None, "after": None}
        for address, ids in ((PLAIN, "15b3:1018"), (VFS[0], "8086:10ca"))
    ]
    machine.write(STATE_PATH, json.dumps({"version": 1, "records": records}))
    found = ask(libvirt, machine)
    assert problems(found) == [("domain web01", "device_drifted", PLAIN)]
    assert "a device 15b3:1018 was bound there for a guest" in found["problems"][0]["message"]


def test_a_definition_that_cannot_be_read_hides_no_other(libvirt: PrivateLibvirt, machine: SysfsTree) -> None:
    libvirt.define_domain(hostdev_xml(PLAIN))
    libvirt.define_domain(hostdev_xml(GONE), "web02")

    class Unreadable(LibvirtDomain):
        def config_xml(self) -> str:
            return "<domain>" if self.name == "web01" else super().config_xml()

    class Broken(LibvirtConnection):
        def domains(self) -> Sequence[Domain]:
            return [Unreadable(handle) for handle in libvirt.handle.listAllDomains()]

    found = hostdev_report(machine.host(), {"uri": "qemu:///system", "path": None}, lambda _uri: Broken(libvirt.handle))
    assert problems(found) == [
        ("domain web01", "domain_xml_invalid", None),
        ("domain web02", "device_not_found", GONE),
    ]


def test_what_runs_beside_what_is_defined(libvirt: PrivateLibvirt, machine: SysfsTree) -> None:
    """A guest takes hardware when it runs, so what libvirt says of one that does is made up here."""
    mac = "<mac address='52:54:00:00:01:01'/>"
    libvirt.define_domain(f"<interface type='network'>{mac}<source network='pool'/></interface>{hostdev_xml(PLAIN)}")
    libvirt.handle.networkDefineXML(f"<network><name>pool</name>{POOL}</network>").create()
    libvirt.connect_guest("pool", "web01", 1)
    given = f"<interface type='hostdev'>{mac}<source>{FUNCTION}</source></interface>"

    class Running(LibvirtDomain):
        active = True

        def live_xml(self) -> str:
            return domain(given + hostdev_xml(BOOT_DISK))

    class Connected(LibvirtConnection):
        def domains(self) -> Sequence[Domain]:
            return [Running(handle) for handle in libvirt.handle.listAllDomains()]

    parameters = {"uri": "qemu:///system", "path": None}
    found = hostdev_report(machine.host(), parameters, lambda _uri: Connected(libvirt.handle))
    assert found["problems"] == []
    [web01] = found["domains"]
    assert (web01["active"], web01["running_with"], web01["restart_required"]) == (True, [BOOT_DISK, VFS[1]], True)
    owners = {
        one["address"]: [
            (owner["kind"], owner["how"], owner["configured"], owner["running"]) for owner in one["owners"]
        ]
        for one in found["devices"]
    }
    assert owners == {
        VFS[0]: [("network", "pool", True, True)],
        VFS[1]: [("domain", "network", False, True), ("network", "pool", True, True)],
        PLAIN: [("domain", "hostdev", True, False)],
        BOOT_DISK: [("domain", "hostdev", False, True)],
    }
    assert not any(one["conflict"] for one in found["devices"])


# -- files --------------------------------------------------------------------------------------------------


def check(tmp_path: Path, *paths: str) -> dict[str, Any]:
    found = hostdev_report(Host(str(tmp_path)), {"uri": "", "path": list(paths) or ["/"]})
    json.dumps(found)
    assert _undocumented(found) == []
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    show_schemas(tmp_path)
    (tmp_path / "domains").mkdir()
    return tmp_path


def write(folder: Path, name: str, text: str) -> str:
    path = folder / "domains" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return f"/domains/{name}"


def domain(devices: str) -> str:
    return DOMAIN.format(devices=devices, boot="", arch="x86_64")


def test_a_folder_of_definitions(folder: Path) -> None:
    write(folder, "a.xml", domain(hostdev_xml(PLAIN)))
    write(folder, "deeper/b.xml", domain(hostdev_xml(PLAIN, guest="01:05.0")).replace("web01", "web02"))
    write(folder, "deeper/pool.xml", f"<network><name>p</name>{POOL}<vlan><tag id='1'/><tag id='2'/></vlan></network>")
    write(folder, "default.xml", "<network><name>default</name><forward mode='nat'/></network>")
    write(folder, "snapshot.xml", "<domainsnapshot/>")
    write(folder, "README.md", "no XML")
    os.symlink(folder / "domains" / "a.xml", folder / "domains" / "again.xml")
    os.symlink("..", folder / "domains" / "deeper" / "loop")
    found = check(folder, "/domains")
    assert [one["path"] for one in found["domains"]] == ["/domains/a.xml", "/domains/deeper/b.xml"]
    assert [one["path"] for one in found["networks"]] == ["/domains/deeper/pool.xml"]
    assert [(one["where"], one["path"], one["code"]) for one in found["problems"]] == [
        ("domain web02", "/domains/deeper/b.xml", "guest_address_impossible"),
        ("network p", "/domains/deeper/pool.xml", "vlan_trunk"),
    ]
    assert [(one["address"], one["conflict"], one["present"]) for one in found["devices"]] == [(PLAIN, True, None)]


def test_a_pool_with_half_a_port_profile(folder: Path) -> None:
    path = write(folder, "p.xml", f"<network><name>p</name>{POOL}<virtualport type='802.1Qbh'/></network>")
    assert "virtualport_incomplete" in [one["code"] for one in check(folder, path)["problems"]]


@pytest.mark.skipif(not Path(SCHEMAS).is_dir(), reason="libvirt's schemas are not installed")
def test_what_libvirt_would_drop_without_a_word(folder: Path) -> None:
    path = write(folder, "a.xml", domain(hostdev_xml(PLAIN, attributes="managed='yes' colour='red'")))
    found = check(folder, path)
    assert [one["code"] for one in found["problems"]] == ["schema_violation"]
    assert "colour" in found["problems"][0]["message"]
    path = write(folder, "p.xml", f"<network><name>p</name>{POOL}<colour/></network>")
    assert [one["code"] for one in check(folder, path)["problems"]] == ["schema_violation"]


def test_without_the_schema_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(domain(hostdev_xml(PLAIN)), encoding="utf-8")
    found = check(tmp_path, "/a.xml")
    assert found["ok"]
    assert "is not installed here" in found["warnings"][0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "malformed"),
        ("<domain>", "malformed"),
        ("<pool/>", "no definition of a domain or a network: its outermost element is 'pool'"),
        ("<!DOCTYPE domain [<!ENTITY a 'b'>]><domain>&a;</domain>", "document type declaration"),
        (f"<domain>{'<a>' * 300}{'</a>' * 300}</domain>", "Excessive depth in document"),
        (f"<domain>{' ' * MAX_BYTES}</domain>", "libvirt takes 4194304 at most"),
        (domain("<hostdev type='pci'><source><address bus='300'/></source></hostdev>"), "cannot be read"),
        (f"<network><name>p</name>{POOL}<vlan><tag id='x'/></vlan></network>", "cannot be read"),
        (f"<network><name>p</name>{POOL}<portgroup/><portgroup name='a'/></network>", "a port group has no name"),
    ],
)
def test_files_that_cannot_be_read(folder: Path, text: str, words: str) -> None:
    path = write(folder, "a.xml", text)
    write(folder, "b.xml", domain(hostdev_xml(PLAIN)))
    found = check(folder, path, "/domains/b.xml")
    assert len(found["domains"]) == 1
    [problem] = found["problems"]
    assert (problem["where"], problem["path"]) == (f"file {path}", path)
    assert problem["code"] in ("domain_xml_invalid", "network_xml_invalid")
    assert words in problem["message"]


def test_numbers_that_are_none(folder: Path) -> None:
    """Digits to Python's isdigit(), and no number to anybody."""
    odd = "<memtune><hard_limit>\u00b2</hard_limit></memtune>"
    controller = "<controller type='pci' index='\u00b2' model='pcie-root'/>"
    text = domain(hostdev_xml(PLAIN) + controller).replace("<devices>", f"{odd}<devices>")
    found = check(folder, write(folder, "a.xml", text))
    assert [one["name"] for one in found["domains"]] == ["web01"]


def test_a_file_in_another_encoding(folder: Path) -> None:
    path = write(folder, "a.xml", "")
    (folder / path[1:]).write_bytes(b"<domain>\xff</domain>")
    assert "not in UTF-8" in check(folder, path)["problems"][0]["message"]


def test_paths_that_are_not_there(folder: Path) -> None:
    with pytest.raises(PassthroughError) as caught:
        check(folder, "/gone", "relative")
    assert [problem.code for problem in caught.value.problems] == ["path_not_found", "path_not_absolute"]


def test_one_device_twice_in_a_definition(folder: Path) -> None:
    path = write(
        folder,
        "a.xml",
        domain(hostdev_xml(VFS[1]) + f"<interface type='hostdev'><source>{FUNCTION}</source></interface>"),
    )
    codes = {one["code"] for one in check(folder, path)["problems"]}
    assert "duplicate_device" in codes
