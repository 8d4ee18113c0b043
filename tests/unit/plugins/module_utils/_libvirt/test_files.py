# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Definitions in files: nothing changes but the devices, whatever libvirt or a person wrote there."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, StateStore
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.change import RECORD_KIND
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import Definition
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import argument_spec, build
from ansible_collections.kvm.passthrough.tests.unit.support.domains import BOUND, BRIDGE, CARD, DOMAIN, NIC, hostdev_xml
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import EmbeddedLibvirt, require_emulator
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree
from ansible_collections.kvm.passthrough.tests.unit.support.tree import tree_hash

pytest.importorskip("lxml.etree")

PATH = "/srv/domains/web01.xml"
VF = "0000:0a:10.0"
WANTED: list[dict[str, Any]] = [
    {"device": NIC},
    {"device": VF, "kind": "interface", "mac": "52:54:00:12:34:56", "vlan": 42},
    {"device": f"{CARD}.0"},
    *({"device": f"{CARD}.{function}", "assigned": False} for function in (1, 2, 3)),
]
PASSWORD = "<graphics type='vnc' passwd='secret'/>"


class Bench:
    """A file, a machine, and the module's procedure between them."""

    def __init__(self, tree: SysfsTree, content: str | bytes) -> None:
        self.tree = tree
        self.write(content)

    def write(self, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        path = self.tree.path(PATH)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def read(self) -> bytes:
        return self.tree.path(PATH).read_bytes()

    def run(self, *hostdevs: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        parameters = {
            **{name: option.get("default") for name, option in argument_spec().items()},
            "path": PATH,
            "hostdevs": [{"managed": True, "assigned": True, **one} for one in hostdevs],
            **options,
        }
        host = self.tree.host()
        return execute(host, build(host, parameters), module="domain_hostdevs", check_mode=check)

    def quadruple(self, *hostdevs: dict[str, Any], **options: Any) -> dict[str, Any]:
        """check, run, check, run."""
        files = tree_hash(self.tree.root)
        predicted = self.run(*hostdevs, check=True, **options)
        assert tree_hash(self.tree.root) == files
        done = self.run(*hostdevs, **options)
        assert done == predicted
        assert done["changed"]
        json.dumps(done)
        files = tree_hash(self.tree.root)
        for check in (True, False):
            again = self.run(*hostdevs, check=check, **options)
            assert (again["changed"], again["actions"], again["diff"]) == (False, [], [])
        assert tree_hash(self.tree.root) == files
        return done

    def fails(self, *hostdevs: dict[str, Any], **options: Any) -> PassthroughError:
        files = tree_hash(self.tree.root)
        with pytest.raises(PassthroughError) as caught:
            self.run(*hostdevs, **options)
        assert tree_hash(self.tree.root) == files
        return caught.value


@pytest.fixture
def bench(tree: SysfsTree) -> Bench:
    return Bench(tree, DOMAIN.format(devices=PASSWORD, boot="", arch="x86_64"))


def test_devices_come_and_go(bench: Bench) -> None:
    before = bench.read()
    bench.tree.path(PATH).chmod(0o640)
    done = bench.quadruple(*WANTED)
    assert [one["address"] for one in done["hostdevs"]] == [
        NIC,
        VF,
        *(f"{CARD}.{function}" for function in range(4)),
    ]
    assert done["path"] == PATH
    assert len(done["actions"]) == 1
    assert done["actions"][0]["description"].endswith(f"add {CARD}.3 in {PATH}")
    assert os.stat(bench.tree.path(PATH)).st_mode & 0o777 == 0o640
    interface = next(one for one in done["hostdevs"] if one["kind"] == "interface")
    assert interface == {
        "address": VF,
        "kind": "interface",
        "guest_address": None,
        "managed": True,
        "mac": "52:54:00:12:34:56",
        "vlan": 42,
    }
    done = bench.quadruple(state="exact")
    assert done["hostdevs"] == []
    assert bench.read() == before
    assert not bench.tree.path(STATE_PATH).exists()


def test_no_secret_is_shown_or_remembered(bench: Bench) -> None:
    done = bench.run(*WANTED)
    assert "secret" not in json.dumps(done)
    assert "<hostdev" in done["diff"][0]["after"]
    state = bench.tree.path(STATE_PATH).read_text()
    assert "secret" not in state
    assert b"secret" in bench.read()
    keys = [one.key for one in StateStore(bench.tree.host()).all(RECORD_KIND)]
    assert f"file:{PATH} {NIC}" in keys


def test_a_device_changes_in_its_place_and_its_kind(bench: Bench) -> None:
    marked = f"<!-- before -->{hostdev_xml(VF)}<!-- after -->"
    bench.write(DOMAIN.format(devices=marked + PASSWORD, boot="", arch="x86_64"))
    before = bench.read()
    done = bench.quadruple({"device": VF, "kind": "interface", "mac": "52:54:00:12:34:56"})
    assert done["actions"][0]["description"] == f"change {VF} in {PATH}"
    head, rest = before.split(hostdev_xml(VF).encode())
    assert bench.read().startswith(head + b'<interface type="hostdev" managed="yes">')
    assert bench.read().endswith(b"</interface>" + rest)
    bench.quadruple({"device": VF, "vlan": 7})  # it stays an interface
    assert b'<tag id="7"/>' in bench.read()
    bench.quadruple({"device": VF, "kind": "hostdev"})
    assert b"<interface" not in bench.read()
    assert b"52:54:00:12:34:56" not in bench.read()


@pytest.mark.parametrize(
    ("arch", "pattern"), [("x86_64", "pc"), ("x86_64", "q35"), ("aarch64", "virt"), ("s390x", "ccw")]
)
def test_what_libvirt_writes_for_every_machine(
    libvirt: EmbeddedLibvirt, tree: SysfsTree, arch: str, pattern: str
) -> None:
    require_emulator(arch)
    listed = subprocess.run(
        [f"qemu-system-{arch}", "-machine", "help"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    machines = [name for name in (line.split()[0] for line in listed.splitlines()) if pattern in name.split("-")[:2]]
    assert len(machines) > 3
    for machine in machines:
        libvirt.clean()
        text = MACHINE.format(arch=arch, machine=machine)
        before = libvirt.handle.defineXML(text).XMLDesc(SECURE_AND_INACTIVE)
        bench = Bench(tree, before)
        bench.run(*WANTED)
        # libvirt takes it, and what it makes of it is as it was asked for.
        defined = libvirt.handle.defineXMLFlags(bench.read().decode(), VALIDATE).XMLDesc(SECURE_AND_INACTIVE)
        assert {one.source for one in Definition(defined).hostdevs} == {
            one.source for one in Definition(bench.read().decode()).hostdevs
        }
        bench.run(state="exact")
        assert bench.read() == before.encode(), machine
        bench.write(defined)
        assert not bench.run(*WANTED)["changed"], machine


SECURE_AND_INACTIVE = 3
VALIDATE = 1
MACHINE = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>guest</name>
  <metadata><app:note xmlns:app='https://example.com/app'>ä &lt; <app:b/></app:note></metadata>
  <memory unit='MiB'>64</memory>
  <os><type arch='{arch}' machine='{machine}'>hvm</type></os>
  <devices>
    <emulator>/usr/bin/qemu-system-{arch}</emulator>
    <disk type='file'><source file='/a'/><target dev='vda' bus='virtio'/></disk>
    <interface type='user'><model type='virtio'/></interface>
    <graphics type='vnc' passwd='secret'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
  <qemu:commandline><qemu:arg value='-no-reboot'/></qemu:commandline>
</domain>"""


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("<domain>", "domain_xml_invalid", f"{PATH}: The XML is malformed"),
        ("<network></network>", "domain_xml_invalid", "its outermost element is 'network'"),
        ("<!DOCTYPE domain><domain></domain>", "domain_xml_invalid", "document type declaration"),
        (b"<domain>\xff</domain>", "domain_xml_invalid", "is not in UTF-8"),
    ],
)
def test_a_file_that_is_no_definition(bench: Bench, content: str | bytes, code: str, words: str) -> None:
    bench.write(content)
    error = bench.fails({"device": NIC})
    assert error.code == code
    assert words in str(error)
    assert PATH in str(error)


def test_a_file_that_is_not_there(bench: Bench) -> None:
    bench.tree.path(PATH).unlink()
    error = bench.fails({"device": NIC})
    assert error.code == "file_not_found"
    assert f"{PATH} does not exist, so there is no definition to be changed." in str(error)


def test_options_that_a_file_does_not_go_with(bench: Bench) -> None:
    error = bench.fails({"device": NIC}, path="web01.xml", scope="both", timeout=0)
    assert [problem.text for problem in error.problems] == [
        "path 'web01.xml' is no absolute path. Give the whole path of the file.",
        "scope is both, but a file (web01.xml) does not run. Give domain instead of path, or leave scope out.",
        "timeout: 0 is no time limit; it has to be 1 second or more.",
    ]


def test_the_rules_hold_for_files(bench: Bench) -> None:
    error = bench.fails({"device": BRIDGE}, {"device": f"{CARD}.0"}, {"device": NIC, "guest_address": "00:00.1"})
    assert [problem.code for problem in error.problems] == [
        "guest_address_impossible",
        "guest_function_0_missing",
        "bridge",
        "functions_undeclared",
    ]


def test_a_change_of_somebody_else_meanwhile(bench: Bench) -> None:
    host = bench.tree.host()
    parameters = {
        **{name: option.get("default") for name, option in argument_spec().items()},
        "path": PATH,
        "hostdevs": [{"device": NIC, "managed": True}],
    }
    procedure = build(host, parameters)
    plan = procedure.plan(procedure.observe())  # type: ignore[arg-type]
    bench.write(bench.read().replace(b"65536", b"131072"))
    with pytest.raises(PassthroughError) as caught:
        plan.actions[0].apply(host)
    assert caught.value.code == "file_changed_meanwhile"
    assert b"131072" in bench.read()
    assert b"hostdev" not in bench.read()


def test_a_definition_without_line_ends_and_one_of_windows(bench: Bench) -> None:
    plain = DOMAIN.format(devices=PASSWORD, boot="", arch="x86_64")
    for text in ("".join(line.strip() for line in plain.splitlines()), plain.replace("\n", "\r\n")):
        bench.write(text)
        bench.quadruple({"device": BOUND, "rom": {"bar": False}})
        bench.quadruple({"device": BOUND}, state="absent")
        assert bench.read() == text.encode()


def test_the_machine_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    """Only the file and the record of the change are written."""
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    bench.run({"device": NIC})
    after = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert {str(path).rpartition("/")[2] for path in after - before} <= {"state.json", "lock", "kvm-passthrough.lock"}
