# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Against the real libvirt."""

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import check_uri, connect
from ansible_collections.kvm.passthrough.tests.unit.support.domains import hostdev_xml
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import EmbeddedLibvirt


@pytest.mark.parametrize(
    "uri", ["qemu:///system", "qemu:///session", "qemu+unix:///system", "qemu+unix:///system?socket=/run/a"]
)
def test_uris_of_this_machine(uri: str) -> None:
    check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("qemu+ssh://root@other/system", "names another machine, root@other"),
        ("qemu+tls://[::1]/system", "names another machine"),
        ("qemu://[::1/system", "does not name libvirt's QEMU driver"),
        ("xen:///system", "does not name libvirt's QEMU driver"),
        ("lxc:///", "does not name libvirt's QEMU driver"),
        ("system", "does not name libvirt's QEMU driver"),
        ("", "does not name libvirt's QEMU driver"),
    ],
)
def test_other_uris(uri: str, why: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        connect(uri)
    assert caught.value.code == "uri_invalid"
    assert why in str(caught.value)


def test_nobody_listens(libvirt: EmbeddedLibvirt, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    uri = f"qemu+unix:///system?socket={tmp_path}/missing"
    with pytest.raises(PassthroughError) as caught:
        connect(uri)
    assert caught.value.code == "libvirt_unreachable"
    assert f"libvirt cannot be reached at {uri}: " in str(caught.value)
    assert "systemctl status" in str(caught.value)
    assert caught.value.problems[0].details["libvirt_code"] == "VIR_ERR_SYSTEM_ERROR"
    assert capfd.readouterr() == ("", "")  # libvirt prints its errors unless it is told not to


def test_the_version(libvirt: EmbeddedLibvirt) -> None:
    assert libvirt.connect().version >= (4, 10, 0)


def test_a_domain_by_name_and_uuid(libvirt: EmbeddedLibvirt) -> None:
    made = libvirt.define()
    connection = libvirt.connect()
    for key in (made.name(), made.UUIDString(), made.UUIDString().upper(), made.UUIDString().replace("-", "")):
        found = connection.domain(key)
        assert (found.name, found.uuid) == (made.name(), made.UUIDString())
        assert (found.active, found.persistent) == (False, True)


def test_a_domain_whose_name_looks_like_a_uuid(libvirt: EmbeddedLibvirt) -> None:
    name = "00000000-0000-0000-0000-000000000001"
    libvirt.handle.defineXML(
        f"<domain type='qemu'><name>{name}</name><memory>65536</memory>"
        "<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>"
    )
    assert libvirt.connect().domain(name).name == name


@pytest.mark.parametrize("key", ["web01", "11111111-2222-3333-4444-555555555555"])
def test_a_domain_that_does_not_exist(libvirt: EmbeddedLibvirt, key: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        libvirt.connect().domain(key)
    assert caught.value.code == "domain_not_found"
    assert "There is no domain at all" in str(caught.value)

    names = [libvirt.define().name() for _unused in range(2)]
    with pytest.raises(PassthroughError) as caught:
        libvirt.connect().domain(key)
    assert f"There is no domain {key!r} at qemu:///embed" in str(caught.value)
    assert f"There are {', '.join(sorted(names))}." in str(caught.value)
    assert caught.value.problems[0].details["domains"] == sorted(names)


def test_what_libvirt_refuses(libvirt: EmbeddedLibvirt) -> None:
    domain = libvirt.connect().domain(libvirt.define().name())
    before = domain.config_xml()
    with pytest.raises(PassthroughError) as caught:
        domain.attach(hostdev_xml("01:00.0", guest="01:01.0"))
    assert caught.value.code == "libvirt_refused"
    assert "libvirt did not add a device to the definition of the domain" in str(caught.value)
    assert caught.value.problems[0].details["libvirt_code"] == "VIR_ERR_XML_ERROR"
    with pytest.raises(PassthroughError) as caught:
        domain.detach(hostdev_xml("01:00.0"))
    assert caught.value.problems[0].details["libvirt_code"] in ("VIR_ERR_DEVICE_MISSING", "VIR_ERR_OPERATION_FAILED")
    assert domain.config_xml() == before


def test_no_secrets_are_read(libvirt: EmbeddedLibvirt) -> None:
    made = libvirt.define()
    assert "secret" in made.XMLDesc(1)  # VIR_DOMAIN_XML_SECURE
    domain = libvirt.connect().domain(made.name())
    assert "secret" not in domain.config_xml() + domain.live_xml()
