# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.filter.pci_address import (
    DOCUMENTATION,
    EXAMPLES,
    NOTATIONS,
    FilterModule,
    pci_address,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.element import libvirt_number
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import FIELDS, PciAddress
from ansible_collections.kvm.passthrough.tests.unit.support.jinja import rendered, rendered_by_ansible

ADDRESSES = st.builds(
    PciAddress, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7)
)


@pytest.mark.parametrize(
    "value",
    [
        "0000:01:10.0",
        "01:10.0",
        "1:10.0",
        " 0:01:10.0 ",
        "pci_0000_01_10_0",
        {"bus": "0x01", "slot": "10", "function": 0},
        {"domain": "0", "bus": 1, "slot": "0x10", "function": "0"},
    ],
)
@pytest.mark.parametrize(
    ("notation", "expected"),
    [
        ("canonical", "0000:01:10.0"),
        ("nodedev", "pci_0000_01_10_0"),
        ("mapping", {"domain": "0x0000", "bus": "0x01", "slot": "0x10", "function": "0x0"}),
        ("xml", 'domain="0x0000" bus="0x01" slot="0x10" function="0x0"'),
    ],
)
def test_any_notation_in_any_notation(value: Any, notation: str, expected: Any) -> None:
    assert pci_address(value, notation) == expected
    assert rendered("value | kvm.passthrough.pci_address(notation)", value=value, notation=notation) == expected


@given(ADDRESSES)
def test_every_notation_is_one_that_is_read(address: PciAddress) -> None:
    for notation in ("canonical", "nodedev", "mapping"):
        assert pci_address(pci_address(address, notation)) == str(address)


@given(ADDRESSES)
def test_libvirt_reads_the_attributes_as_they_are_meant(address: PciAddress) -> None:
    attributes = pci_address(address, "mapping")
    assert PciAddress(*(libvirt_number(attributes[name]) for name in FIELDS)) == address


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("01:20.0", "slot 0x20 of a PCI address is out of range"),
        ("", "is no PCI address"),
        (70, "is no PCI address"),
        (None, "is no PCI address"),
        ({"bus": 10, "slot": 0, "function": 0}, "in an unknown base"),
    ],
)
def test_what_is_no_address(value: Any, words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        pci_address(value)


def test_a_notation_that_does_not_exist() -> None:
    with pytest.raises(AnsibleFilterError, match="no notation 'lspci'; there is canonical, nodedev, mapping, xml"):
        pci_address("01:10.0", "lspci")


def test_the_documentation_is_that_of_this_filter() -> None:
    documented = yaml.safe_load(DOCUMENTATION)
    assert list(FilterModule().filters()) == [documented["name"]]
    assert documented["options"]["notation"]["choices"] == list(NOTATIONS)
    rendered_examples = [as_list(rendered(text)) for text in expressions(yaml.safe_load(EXAMPLES))]
    assert rendered_examples == [
        "pci_0000_01_10_0",
        'domain="0x0000" bus="0x01" slot="0x10" function="0x0"',
        ["0000:01:10.0", "0000:01:10.2"],
    ]


def as_list(value: Any) -> Any:
    """What ``map`` gives is a generator in Jinja, and a list in Ansible."""
    return value if isinstance(value, str) else list(value)


def expressions(value: Any) -> list[str]:
    """The Jinja expressions anywhere in YAML."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [found for one in value for found in expressions(one)]
    return [value.split("{{")[1].split("}}")[0].strip()] if "{{" in str(value) else []


def test_ansible_finds_it(tmp_path: Path) -> None:
    status, values, printed = rendered_by_ansible(
        {"one": "address | kvm.passthrough.pci_address", "all": "list | map('kvm.passthrough.pci_address', 'nodedev')"},
        tmp_path,
        address="01:10.0",
        list=["01:10.2", {"bus": "1", "slot": "10", "function": 4}],
    )
    assert status == 0, printed
    assert values == {"one": "0000:01:10.0", "all": ["pci_0000_01_10_2", "pci_0000_01_10_4"]}


def test_ansible_shows_the_error(tmp_path: Path) -> None:
    status, values, printed = rendered_by_ansible({"one": "'01:20.0' | kvm.passthrough.pci_address"}, tmp_path)
    assert status
    assert not values
    assert "slot 0x20 of a PCI address is out of range" in " ".join(printed.split())
    assert "Traceback" not in printed
