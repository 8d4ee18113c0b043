# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.schema import SCHEMA_DIRECTORY, Schema
from ansible_collections.kvm.passthrough.tests.unit.support.domains import hostdev_xml

etree = pytest.importorskip("lxml.etree")


@pytest.fixture(scope="module")
def schema() -> Schema:
    """The real one of this machine."""
    found = Schema(Host())
    if not found.installed:
        pytest.skip(f"libvirt's schema is not installed in {SCHEMA_DIRECTORY}")
    return found


@pytest.mark.parametrize(
    "inner",
    [
        "",
        "<address type='unassigned'/>",
        "<address type='pci' bus='0x05' slot='0x00' function='0x0' multifunction='on'/>",
        "<address type='pci'><zpci uid='0x0001' fid='0x00000000'/></address>",
        "<boot order='1'/><rom bar='off' file='/a'/><alias name='ua-a'/><acpi index='3'/>",
    ],
)
def test_what_the_schema_allows(schema: Schema, inner: str) -> None:
    assert schema.check_part(etree.fromstring(hostdev_xml("01:00.0", inner))) == []


@pytest.mark.parametrize(
    ("xml", "named"),
    [
        (hostdev_xml("01:00.0", attributes="managed='true'"), "managed"),
        (hostdev_xml("01:00.0", attributes="assigned='no'"), "assigned"),
        (hostdev_xml("01:00.0").replace("slot='0x00'", "slot='0x20'"), "slot"),
        (hostdev_xml("01:00.0").replace("bus='0x01'", "bus='0x100'"), "bus"),
        (hostdev_xml("01:00.0", "<rom bar='yes'/>"), "rom"),
        (hostdev_xml("01:00.0", "<rom file='a'/>"), "rom"),
        (hostdev_xml("01:00.0", "<boot order='0'/>"), "boot"),
        (hostdev_xml("01:00.0", "<driver name='vfio' speed='9'/>"), "speed"),
        (hostdev_xml("01:00.0", "<colour/>"), "colour"),
        (hostdev_xml("01:00.0", "<address type='usb' bus='0' port='1'/>"), "address"),
    ],
)
def test_what_the_schema_does_not_allow_is_named(schema: Schema, xml: str, named: str) -> None:
    found = schema.check_part(etree.fromstring(xml))
    assert found
    assert named in " ".join(found)


def test_an_element_is_looked_at_and_left_alone(schema: Schema) -> None:
    parent = etree.fromstring(f"<devices>{hostdev_xml('01:00.0')} text </devices>")
    before = etree.tostring(parent)
    assert schema.check_part(parent[0]) == []
    assert etree.tostring(parent) == before


def test_whole_documents(schema: Schema) -> None:
    text = "<domain type='kvm'><name>a</name><memory>1</memory><os><type>hvm</type></os>{}</domain>"
    assert schema.check_domain(etree.fromstring(text.format(""))) == []
    assert schema.check_domain(etree.fromstring(text.format(f"<devices>{hostdev_xml('01:00.0')}</devices>"))) == []
    assert schema.check_domain(etree.fromstring(text.format("<colour/>")))
    assert schema.check_domain(etree.fromstring(text.format("<devices><hostdev type='pci'/></devices>")))


# -- any schema ---------------------------------------------------------------------------------------------

GRAMMAR = "<grammar xmlns='http://relaxng.org/ns/structure/1.0'>{}</grammar>"
HOSTDEV = "<define name='hostdev'><element name='hostdev'>{}</element></define>"


def made(root: Path, **files: str) -> Schema:
    directory = root / SCHEMA_DIRECTORY.lstrip("/")
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / f"{name}.rng").write_text(GRAMMAR.format(text))
    return Schema(Host(str(root)))


def verdict(schema: Schema, text: str) -> bool:
    return schema.check_part(etree.fromstring(text)) == []


def test_includes_overrides_and_combinations(tmp_path: Path) -> None:
    schema = made(
        tmp_path,
        domainoverrides="<include href='common.rng'><define name='colour'><value>red</value></define></include>"
        "<define name='size' combine='choice'><value>big</value></define>",
        common="<include href='basic.rng'/>"
        + HOSTDEV.format(
            "<attribute name='colour'><ref name='colour'/></attribute>"
            "<attribute name='size'><ref name='size'/></attribute>"
        ),
        basic="<define name='colour'><value>blue</value></define>"
        "<define name='size' combine='choice'><value>small</value></define>"
        "<define name='unused'><ref name='missing'/></define>",
    )
    assert verdict(schema, "<hostdev colour='red' size='big'/>")
    assert verdict(schema, "<hostdev colour='red' size='small'/>")
    assert not verdict(schema, "<hostdev colour='blue' size='small'/>")


def test_a_file_that_is_included_twice(tmp_path: Path) -> None:
    schema = made(
        tmp_path,
        domainoverrides="<include href='one.rng'/><include href='two.rng'/>",
        one="<include href='basic.rng'/>" + HOSTDEV.format("<ref name='colour'/>"),
        two="<include href='basic.rng'/>",
        basic="<define name='colour'><value>blue</value></define>",
    )
    assert verdict(schema, "<hostdev>blue</hostdev>")


@pytest.mark.parametrize(
    "files",
    [
        {"domainoverrides": "<broken"},
        {"domainoverrides": "<include href='domainoverrides.rng'/>"},
        {"domainoverrides": "<include href='missing.rng'/>"},
        {"domainoverrides": ""},
        {"domainoverrides": HOSTDEV.format("<ref name='missing'/>")},
    ],
)
def test_a_schema_that_cannot_be_used(tmp_path: Path, files: dict[str, str]) -> None:
    with pytest.raises(PassthroughError) as caught:
        made(tmp_path, **files).check_part(etree.fromstring("<hostdev/>"))
    assert caught.value.code in ("schema_unreadable", "file_unreadable")


def test_no_schema(tmp_path: Path) -> None:
    assert not Schema(Host(str(tmp_path))).installed
