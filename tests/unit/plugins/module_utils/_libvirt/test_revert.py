# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""domain_hostdevs taken back, against the real libvirt: definitions are as they were; what is others' stays."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import STATE_PATH, StateStore
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.change import RECORD_KIND
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import (
    LibvirtConnection,
    LibvirtDomain,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import (
    Definition,
    element_text,
    parse_xml,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import argument_spec, build
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.revert import (
    DOMAIN_KINDS,
    NETWORK_KINDS,
    build_domains,
    build_networks,
)
from ansible_collections.kvm.passthrough.tests.unit.support.domains import BOUND, DOMAIN, FOUR, NIC, hostdev_xml
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import EmbeddedLibvirt
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

pytest.importorskip("lxml.etree")

CONFIG = 2  # VIR_DOMAIN_AFFECT_CONFIG, VIR_DOMAIN_XML_INACTIVE


class Bench:
    """Domains, a machine, and the procedures between them."""

    def __init__(self, libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
        self.libvirt = libvirt
        self.tree = tree
        self.connect: Any = libvirt.connect

    def give(self, domain: Any, *hostdevs: dict[str, Any], state: str = "present") -> None:
        defaults = {name: option.get("default") for name, option in argument_spec().items()}
        wanted = [{"managed": True, "assigned": True, **one} for one in hostdevs]
        parameters = {**defaults, "domain": domain.name(), "hostdevs": wanted, "state": state}
        host = self.tree.host()
        execute(host, build(host, parameters, self.connect), module="domain_hostdevs", check_mode=False)

    def give_file(self, path: str, *hostdevs: dict[str, Any], state: str = "present") -> None:
        defaults = {name: option.get("default") for name, option in argument_spec().items()}
        wanted = [{"managed": True, "assigned": True, **one} for one in hostdevs]
        host = self.tree.host()
        parameters = {**defaults, "path": path, "hostdevs": wanted, "state": state}
        execute(host, build(host, parameters), module="domain_hostdevs", check_mode=False)

    def revert(self, check: bool = False, **options: Any) -> dict[str, Any]:
        parameters = {**{name: option.get("default") for name, option in argument_spec().items()}, "revert": True}
        host = self.tree.host()
        procedure = build_domains(host, {**parameters, **options}, (), self.connect)
        return execute(host, procedure, module="domain_hostdevs", check_mode=check)

    @property
    def remembers(self) -> bool:
        return self.tree.path(STATE_PATH).exists()


def not_asked(_uri: str) -> Any:
    raise AssertionError("libvirt was asked")


@pytest.fixture
def bench(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> Bench:
    return Bench(libvirt, tree)


def xml(domain: Any) -> str:
    return str(domain.XMLDesc(CONFIG))


def meaning(domain: Any) -> list[str]:
    """The definition, whatever the order of its devices."""
    root = parse_xml(xml(domain))
    for devices in root.iterfind("devices"):
        devices[:] = sorted(devices, key=element_text)
    return element_text(root).splitlines()


def test_definitions_are_as_they_were(bench: Bench) -> None:
    """With hostdevs of somebody else's that we changed and took, and controllers that libvirt added for ours."""
    first, second = bench.libvirt.define(), bench.libvirt.define()
    first.attachDeviceFlags(hostdev_xml(NIC, "<rom bar='off'/>"), CONFIG)
    first.attachDeviceFlags(hostdev_xml(BOUND), CONFIG)
    before = meaning(first), meaning(second)

    bench.give(first, {"device": NIC, "alias": "ua-a"})
    bench.give(first, {"device": NIC, "acpi_index": 2})
    bench.give(first, *FOUR, state="exact")
    bench.give(second, {"device": NIC}, {"device": BOUND})
    assert "pcie-root-port" in xml(first)
    assert (meaning(first), meaning(second)) != before

    expected, done = bench.revert(check=True), bench.revert()
    assert expected == done
    assert done["changed"]
    assert done["kept"] == []
    assert (meaning(first), meaning(second)) == before
    assert not bench.remembers
    for check in (True, False):
        assert not bench.revert(check)["changed"]


FILE = "/srv/domains/a domain.xml"


def test_a_file_is_as_it_was(bench: Bench) -> None:
    """Also beside a domain, and byte for byte where nothing of somebody else's was changed or taken."""
    path = bench.tree.path(FILE)
    path.parent.mkdir(parents=True)
    path.write_text(DOMAIN.format(devices=hostdev_xml(BOUND, "<rom bar='off'/>"), boot="", arch="x86_64"))
    before = path.read_bytes()
    domain = bench.libvirt.define()
    bench.give(domain, {"device": NIC})
    bench.give_file(FILE, {"device": NIC})
    bench.give_file(FILE, {"device": NIC, "alias": "ua-a"})

    expected, done = bench.revert(check=True), bench.revert()
    assert expected == done
    assert [action["description"] for action in done["actions"]][-1] == f"remove {NIC} in {FILE}"
    assert path.read_bytes() == before
    assert "<hostdev" not in xml(domain)
    assert not bench.remembers

    bench.give_file(FILE, {"device": BOUND, "alias": "ua-b"}, {"device": NIC}, state="exact")
    bench.revert()
    now, then = (Definition(text).hostdevs for text in (path.read_text(), before.decode()))
    assert [one.value for one in now] == [one.value for one in then]
    assert not bench.remembers


def test_what_somebody_else_changed_in_a_file_stays(bench: Bench) -> None:
    path = bench.tree.path(FILE)
    path.parent.mkdir(parents=True)
    path.write_text(DOMAIN.format(devices="", boot="", arch="x86_64"))
    bench.give_file(FILE, {"device": NIC}, {"device": BOUND})
    path.write_text(path.read_text().replace('managed="yes"', 'managed="no"', 1))
    done = bench.revert()
    (kept,) = done["kept"]
    assert kept["target"] in (f"The hostdev {NIC} of the file {FILE}", f"The hostdev {BOUND} of the file {FILE}")
    assert len(done["warnings"]) == 1
    assert len(Definition(path.read_text()).hostdevs) == 1

    bench.give_file(FILE, {"device": NIC}, {"device": BOUND}, state="absent")
    bench.give_file(FILE, {"device": NIC})
    path.unlink()
    done = bench.revert()
    assert done["warnings"] == [f"The file {FILE}, which this collection had changed, is not there any more."]
    assert not bench.remembers


def test_files_need_no_libvirt(bench: Bench) -> None:
    path = bench.tree.path(FILE)
    path.parent.mkdir(parents=True)
    path.write_text(DOMAIN.format(devices="", boot="", arch="x86_64"))
    bench.give_file(FILE, {"device": NIC})
    build_domains(bench.tree.host(), {"revert": True}, ["libvirt"])
    with pytest.raises(PassthroughError) as caught:
        build_domains(bench.tree.host(), {"revert": True}, ["libvirt", "lxml.etree"])
    assert caught.value.as_result()["missing"] == ["lxml.etree"]

    bench.connect = not_asked
    assert bench.revert()["changed"]


def test_nothing_is_asked_of_libvirt_where_nothing_was_done(bench: Bench) -> None:
    bench.connect = not_asked
    assert not bench.revert()["changed"]


def test_what_somebody_else_changed_stays(bench: Bench) -> None:
    domain = bench.libvirt.define()
    bench.give(domain, {"device": NIC}, {"device": BOUND})
    theirs = hostdev_xml(NIC, "<alias name='ua-theirs'/>")
    domain.detachDeviceFlags(hostdev_xml(NIC), CONFIG)
    domain.attachDeviceFlags(theirs, CONFIG)
    done = bench.revert()
    (kept,) = done["kept"]
    assert kept["target"] == f"The hostdev {NIC} of the domain {domain.name()}"
    assert "ua-theirs" in kept["found"]
    assert "ua-theirs" not in kept["left"]
    assert done["warnings"] == [
        f"The hostdev {NIC} of the domain {domain.name()} was changed by somebody else after this collection changed "
        "it. It is left as it is."
    ]
    assert "ua-theirs" in xml(domain)
    assert f"bus='0x{BOUND[5:7]}'" not in xml(domain).split("<hostdev", 1)[1].split("</source>")[0]
    assert not bench.remembers


def test_a_controller_that_somebody_else_uses_stays(bench: Bench) -> None:
    domain = bench.libvirt.define()
    bench.give(domain, {"device": NIC, "guest_address": "08:00.0"})
    domain.detachDeviceFlags(hostdev_xml(NIC), CONFIG)
    domain.attachDeviceFlags(hostdev_xml(BOUND, guest="08:00.0"), CONFIG)
    done = bench.revert()
    assert "index='8' model='pcie-root-port'" in xml(domain)
    assert done["kept"] == []
    # libvirt leaves out no number, so those before it have to stay.
    assert "index='7' model='pcie-root-port'" in xml(domain)


def test_a_domain_that_is_gone_is_told_and_forgotten(bench: Bench) -> None:
    domain = bench.libvirt.define()
    uuid = domain.UUIDString()
    bench.give(domain, {"device": NIC})
    domain.undefine()
    done = bench.revert()
    assert done["warnings"] == [
        f"The domain {uuid} at qemu:///system, which this collection had changed, is not there any more."
    ]
    assert not bench.remembers


def test_a_failure_leaves_everything_as_it_was_found(bench: Bench) -> None:
    domain = bench.libvirt.define()
    bench.give(domain, {"device": NIC}, {"device": BOUND})
    before = meaning(domain)

    class Second(LibvirtDomain):
        def detach(self, xml: str, *, live: bool = False) -> None:
            if f"0x{BOUND[5:7]}" in xml:
                raise PassthroughError("libvirt_refused", "told to fail")
            super().detach(xml, live=live)

    class Connection(LibvirtConnection):
        def domains(self) -> Any:
            return [Second(domain)]

    bench.connect = lambda _uri: Connection(bench.libvirt.handle)
    with pytest.raises(PassthroughError) as caught:
        bench.revert()
    assert caught.value.code == "libvirt_refused"
    assert meaning(domain) == before
    assert bench.remembers
    bench.connect = bench.libvirt.connect
    assert bench.revert()["changed"]


def test_other_options_have_no_meaning_beside_it(bench: Bench) -> None:
    with pytest.raises(PassthroughError) as caught:
        bench.revert(domain="web01", hostdevs=[{"device": NIC}])
    assert caught.value.code == "revert_excludes_options"
    assert caught.value.as_result()["options"] == ["domain", "hostdevs"]


def test_bindings_are_missed_only_where_something_is_to_be_taken_back(bench: Bench) -> None:
    parameters = {"revert": True}
    host = bench.tree.host()
    build_domains(host, parameters, ["libvirt"])
    build_networks(host, parameters, ["libvirt"])
    bench.give(bench.libvirt.define(), {"device": NIC})
    with pytest.raises(PassthroughError) as caught:
        build_domains(host, parameters, ["libvirt"])
    assert caught.value.code == "python_module_missing"
    assert "Install python3-libvirt" in str(caught.value)
    build_networks(host, parameters, ["libvirt"])
    assert {kind for kind in (*DOMAIN_KINDS, *NETWORK_KINDS) if StateStore(host).all(kind)} == {RECORD_KIND}
