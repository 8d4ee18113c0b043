# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import (
    Definition,
    element_text,
    parse_xml,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.tests.unit.support.domains import DOMAIN, definition, hostdev_xml

etree = pytest.importorskip("lxml.etree")

USB = "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/><product id='0x2'/></source></hostdev>"
MDEV = "<hostdev mode='subsystem' type='mdev' model='vfio-pci'><source><address uuid='1'/></source></hostdev>"
CAPS = "<hostdev mode='capabilities' type='misc'><source><char>/dev/x</char></source></hostdev>"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<domain>",
        "<domain></domains>",
        "<domain>\x00</domain>",
        "<domain a='1' a='2'/>",
        "<!DOCTYPE domain [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><domain>&a;</domain>",
        "<!DOCTYPE domain><domain/>",
        "<network/>",
        "<domain>&a;</domain>",
    ],
)
def test_a_document_that_is_no_domain(text: str) -> None:
    with pytest.raises(PassthroughError) as caught:
        Definition(text)
    assert caught.value.code == "domain_xml_invalid"


def test_a_hostdev_that_cannot_be_read() -> None:
    broken = definition(hostdev_xml("01:00.0").replace("bus='0x01'", "bus='0x100'"))
    with pytest.raises(PassthroughError, match="bus 0x100") as caught:
        assert broken.hostdevs
    assert caught.value.code == "domain_xml_invalid"


def test_the_pci_hostdevs_of_a_domain() -> None:
    found = definition(
        USB + hostdev_xml("01:00.0") + MDEV + CAPS + hostdev_xml("02:00.1").replace("mode='subsystem'", "")
    )
    assert [str(one.source) for one in found.hostdevs] == ["0000:01:00.0", "0000:02:00.1"]
    assert found.hostdev(PciAddress(0, 2, 0, 1)) is found.hostdevs[1]
    assert found.hostdev(PciAddress(0, 2, 0, 2)) is None


def test_the_devices_by_interfaces() -> None:
    found = definition(
        "<interface type='hostdev'><source><address type='pci' bus='10'/></source></interface>"
        "<interface type='hostdev'><source/></interface>"
        "<interface type='network'><source network='default'/></interface>" + hostdev_xml("01:00.0")
    )
    assert [str(one.source) for one in found.hostdevs] == ["0000:0a:00.0", "0000:01:00.0"]
    assert [one.value.kind for one in found.hostdevs] == ["interface", "hostdev"]
    assert [str(source) for source in found.sources] == ["0000:0a:00.0", "0000:01:00.0"]


def test_what_a_guest_that_runs_has_from_a_network_is_no_hostdev_of_its_own() -> None:
    interface = (
        "<interface type='hostdev'><mac address='52:54:0:0:0:{}'/>"
        "<source><address type='pci' bus='{}'/></source></interface>"
    )
    xml = DOMAIN.format(devices=interface.format(1, 1) + interface.format(2, 2), boot="", arch="x86_64")
    found = Definition(xml, pooled=frozenset({"52:54:00:00:00:02"}))
    assert [str(one.source) for one in found.hostdevs] == ["0000:01:00.0"]
    assert [str(source) for source in found.pooled_sources] == ["0000:02:00.0"]
    assert [str(source) for source in found.sources] == ["0000:01:00.0", "0000:02:00.0"]
    assert [occupant.mac for occupant in found.occupants if occupant.mac] == ["52:54:00:00:00:02"]


def test_the_buses_of_a_guest() -> None:
    found = definition(hostdev_xml("01:00.0", guest="02:00.0"))
    assert found.pci_controllers == {0: "pcie-root", 1: "pcie-root-port", 2: "pcie-root-port"}
    assert found.used_buses == {0, 2}
    assert found.pci_controller_text(9) is None
    assert 'index="2"' in (found.pci_controller_text(2) or "")


def test_the_boot_order() -> None:
    assert definition(boot="<boot dev='hd'/>").boots_by_os_element
    assert not definition(boot="<bootmenu enable='no'/>").boots_by_os_element


def test_a_domain_without_anything() -> None:
    found = Definition("<domain/>")
    assert (found.hostdevs, found.occupants, found.arch, found.pci_controllers) == ([], [], "", {})


def test_element_text_ignores_white_space_and_quotes_only() -> None:
    one = parse_xml("<a  b='1'>\n  <c/>\n\n</a>")
    assert element_text(one) == element_text(parse_xml('<a b="1"><c/></a>'))
    assert element_text(one) != element_text(parse_xml("<a b='1'><c> x </c></a>"))
    assert one[0].tail is not None  # the original is left alone


def test_other_hostdevs_in_a_document() -> None:
    before = definition(USB + hostdev_xml("01:00.0") + "<!-- kept -->" + hostdev_xml("02:00.0"))
    text = etree.tostring(before.root)
    first, second, third = (PciAddress(0, bus, 0, 0) for bus in (1, 2, 3))
    root = before.with_hostdevs({first: None, third: hostdev_xml("03:00.0")})
    after = Definition(etree.tostring(root, encoding="unicode"))
    assert [one.source for one in after.hostdevs] == [second, third]
    assert etree.tostring(before.root) == text
    assert b"<!-- kept -->" in etree.tostring(root)
    assert b'type="usb"' in etree.tostring(root)
