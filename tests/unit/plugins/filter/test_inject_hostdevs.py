# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.filter.inject_hostdevs import (
    DOCUMENTATION,
    EXAMPLES,
    FilterModule,
    inject_hostdevs,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import Definition
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.tests.unit.support.domains import DOMAIN, hostdev_xml
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import Q35, EmbeddedLibvirt, open_embedded
from ansible_collections.kvm.passthrough.tests.unit.support.jinja import rendered

etree = pytest.importorskip("lxml.etree")

VALIDATE = 1  # VIR_DOMAIN_DEFINE_VALIDATE
INACTIVE = 2  # VIR_DOMAIN_XML_INACTIVE


def domain(devices: str = "", boot: str = "", arch: str = "x86_64") -> str:
    return DOMAIN.format(devices=devices, boot=boot, arch=arch)


def refusal(xml: Any, hostdevs: Any, **options: Any) -> str:
    with pytest.raises(AnsibleFilterError) as caught:
        inject_hostdevs(xml, hostdevs, **options)
    message = str(caught.value)
    assert message.startswith("kvm.passthrough.inject_hostdevs: ")
    return message


def test_what_comes_in_is_what_was_asked_for() -> None:
    text = domain()
    done = inject_hostdevs(
        text,
        [
            {"device": "01:10.0"},
            {"device": {"address": "pci_0001_09_00_0"}, "guest_address": "05:00.0", "managed": False, "boot_order": 2},
            {
                "device": {"address": {"domain": "1", "bus": "9", "slot": "0", "function": 3}},
                "guest_address": "05:00.3",
            },
            {"device": {"address": "0001:09:00.1", "name": "mate"}, "assigned": False},
        ],
    )
    found = {str(one.source): one.value.as_result() for one in Definition(done).hostdevs}
    assert list(found) == ["0000:01:10.0", "0001:09:00.0", "0001:09:00.3", "0001:09:00.1"]
    assert found["0000:01:10.0"] == {
        "address": "0000:01:10.0",
        "kind": "hostdev",
        "guest_address": None,
        "managed": True,
        "assigned": True,
    }
    # Function 0 of a guest slot with several functions says so by itself.
    assert found["0001:09:00.0"]["multifunction"] is True
    assert found["0001:09:00.0"]["managed"] is False
    assert found["0001:09:00.1"]["assigned"] is False
    assert inject_hostdevs(done, [{"device": "01:10.0"}]) == done
    lines = text.splitlines()
    assert [line for line in done.splitlines() if line in lines] == lines
    assert "\n    <hostdev" in done


def test_one_that_is_there_is_changed_in_its_place_and_keeps_what_else_it_says() -> None:
    before = hostdev_xml("01:10.0", "<rom bar='off'/><!-- kept -->", "managed='no'")
    text = domain(f"<disk/>{before}<!-- after -->")
    done = inject_hostdevs(text, [{"device": "01:10.0", "boot_order": 1}])
    start, end = text.split(before)
    assert done.startswith(start)
    assert done.endswith(end)
    changed = done[len(start) : -len(end)]
    assert "<!-- kept -->" in changed
    value = Definition(done).hostdevs[0].value
    assert (value.managed, value.boot_order, value.rom_bar) == (True, 1, False)
    assert inject_hostdevs(done, [{"device": "01:10.0", "boot_order": 1}]) == done


def test_types_are_those_of_the_module() -> None:
    done = inject_hostdevs(domain(), [{"device": "01:10.0", "managed": "no", "boot_order": "3", "rom": {"bar": "on"}}])
    value = Definition(done).hostdevs[0].value
    assert (value.managed, value.boot_order, value.rom_bar) == (False, 3, True)


@pytest.mark.parametrize(
    ("hostdevs", "words"),
    [
        ([{}], "missing required arguments: device found in hostdevs"),
        ([{"device": "01:10.0", "manged": True}], "there is no option hostdevs.manged. Supported"),
        (None, "hostdevs"),
        ("01:10.0", "hostdevs"),
        ([{"device": "01:20.0"}], "slot 0x20 of a PCI address is out of range"),
        ([{"device": "01:10.0", "guest_address": "05:00.9"}], "guest_address"),
        ([{"device": "01:10.0", "boot_order": 0}], "boot_order 0 is not possible"),
        ([{"device": "01:10.0"}, {"device": "0000:01:10.0"}], "hostdevs[1]: the device 0000:01:10.0 is meant by host"),
        ([{"device": "01:10.0", "guest_address": "00:02.0"}], "already that of the domain's controller pci pcie-root"),
        ([{"device": "01:10.0", "zpci": {"uid": 1}}], "only s390x guests have zPCI ids"),
        ([{"device": "01:10.0", "assigned": False, "alias": "ua-a"}], "does not get the device"),
        ([{"device": {"vendor_id": "8086"}}], "asks for vendor_id 8086"),
        ([{"device": "enp1s0"}], "works on the controller, which does not have them; this one asks for interface enp1"),
        ([{"device": {"address": "01:10.0", "interface": "a"}}], "Give the address alone"),
        ([{"device": {"address": "01:10.0", "expect": {"vendor_id": "8086"}}}], "expect can only be compared with"),
    ],
)
def test_what_is_refused(hostdevs: Any, words: str) -> None:
    assert words in refusal(domain(), hostdevs)


def test_all_problems_are_reported_together() -> None:
    message = refusal(
        domain(hostdev_xml("01:00.0", "<alias name='ua-x'/>"), boot="<boot dev='hd'/>"),
        [{"device": "enp1s0"}, {"device": "01:10.0", "boot_order": 1, "alias": "ua-x", "acpi_index": 0}],
        libvirt_version="new",
    )
    for code in ("selector_needs_host", "hostdev_value_invalid", "boot_order_conflict", "alias_in_use", "version_inv"):
        assert code in message


def test_settings_that_the_hosts_libvirt_does_not_know() -> None:
    hostdevs = [{"device": "01:10.0", "driver_model": "mlx5_vfio_pci"}]
    assert "driver_model needs libvirt 10.0.0, but this host has 9.0.0" in refusal(
        domain(), hostdevs, libvirt_version="9.0.0"
    )
    for version in ("10.0.0", "12.8", None):
        assert "mlx5_vfio_pci" in inject_hostdevs(domain(), hostdevs, libvirt_version=version)


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        (b"<domain/>", "but this is a bytes"),
        ("<network></network>", "outermost element is 'network'"),
        ("<!DOCTYPE domain><domain></domain>", "document type declaration"),
        (
            domain("<hostdev type='pci'><source><address bus='0x100'/></source></hostdev>"),
            "The hostdev of a PCI device cannot be read",
        ),
    ],
)
def test_what_is_no_domain(xml: Any, words: str) -> None:
    assert words in refusal(xml, [{"device": "01:10.0"}])


ITEMS = st.lists(
    st.fixed_dictionaries(
        {"device": st.builds(PciAddress, st.just(0), st.integers(0, 3), st.integers(0, 2), st.integers(0, 1)).map(str)},
        optional={
            "managed": st.booleans(),
            "driver_model": st.sampled_from(["vfio-pci", "mlx5_vfio_pci"]),
            "rom": st.fixed_dictionaries({"bar": st.booleans()}),
        },
    ),
    max_size=4,
    unique_by=lambda item: str(item["device"]),
)


@given(ITEMS, ITEMS)
@settings(max_examples=60)
def test_twice_is_once_and_the_rest_is_untouched(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    text = domain("<!-- a --><disk  x='1' /><interface type=\"user\"></interface>")
    done = inject_hostdevs(text, first)
    assert inject_hostdevs(done, first) == done
    both = inject_hostdevs(done, second)
    assert inject_hostdevs(both, second) == both
    for result in (done, both):
        without = re.sub(r"\s*<hostdev.*?</hostdev>", "", result, flags=re.DOTALL)
        assert "".join(without.split()) == "".join(text.split())
    sources = [str(one.source) for one in Definition(both).hostdevs]
    assert sorted(sources) == sorted({str(item["device"]) for item in (*first, *second)})


# -- against the real libvirt -------------------------------------------------------------------------------

MACHINES = ("q35", "pc", "pc-i440fx-2.11", "pc-q35-2.11")
HOSTDEVS: list[dict[str, Any]] = [
    {"device": "0000:01:10.0", "managed": False},
    {"device": "0000:02:00.0", "assigned": False},
    {"device": "0000:03:00.0", "rom": {"bar": False}, "alias": "ua-card"},
]


@pytest.fixture
def libvirt() -> EmbeddedLibvirt:
    opened = open_embedded()
    opened.clean()
    return opened


@pytest.mark.parametrize("machine", MACHINES)
def test_libvirt_takes_what_it_wrote_itself_with_the_devices_in_it(libvirt: EmbeddedLibvirt, machine: str) -> None:
    defined = libvirt.define(xml=Q35.replace("q35", machine))
    text = defined.XMLDesc(INACTIVE)
    done = inject_hostdevs(text, HOSTDEVS)
    libvirt.handle.defineXMLFlags(done, VALIDATE)
    taken = {str(one.source): one.value.as_result() for one in Definition(defined.XMLDesc(INACTIVE)).hostdevs}
    asked = {str(one.source): one.value.as_result() for one in Definition(done).hostdevs}
    for source, values in asked.items():
        assert {name: taken[source][name] for name in values if name != "guest_address"} == {
            name: value for name, value in values.items() if name != "guest_address"
        }
    # The rest is what it was, byte for byte and in the sense of C14N.
    without = re.sub(r"\n *<hostdev.*?</hostdev>", "", done, flags=re.DOTALL)
    assert without == text
    assert etree.tostring(etree.fromstring(without), method="c14n") == etree.tostring(
        etree.fromstring(text), method="c14n"
    )
    # What libvirt made of it is what is there a second time.
    again = defined.XMLDesc(INACTIVE)
    assert inject_hostdevs(again, HOSTDEVS) == again


# -- documentation ------------------------------------------------------------------------------------------


def test_the_documentation_is_that_of_this_filter() -> None:
    documented = yaml.safe_load(DOCUMENTATION)
    assert list(FilterModule().filters()) == [documented["name"]]
    task = yaml.safe_load(EXAMPLES)[0]
    expression = task["ansible.builtin.copy"]["content"].strip("{} ")
    expression = re.sub(r"lookup\(.*?\) \|", "xml |", expression)
    done = rendered(expression, xml=domain(), **task["vars"])
    assert done == inject_hostdevs(domain(), task["vars"]["devices"])
    assert done.count("<hostdev") == 2
