# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our verdict and libvirt's own, on several thousand definitions; and what is in a definition beside hostdevs."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import Problem
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import Definition
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.document import spliced
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import against_schema
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev import given, parse
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.rules.context import Context
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.rules.registry import WITHIN, broken
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.schema import Schema
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.target import (
    PRESENT,
    Wanted,
    subjects_of,
    targets_of,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import EmbeddedLibvirt, require_emulator
from ansible_collections.kvm.passthrough.tests.unit.support.hostdev_cases import ARCHITECTURES, Case, base, case

etree = pytest.importorskip("lxml.etree")

BATCHES = 8
DOMAINS_PER_BATCH = 80

MADE_UP = re.compile(r"zPCI [uf]id \d+ is already reserved")

VALIDATE = 1
INACTIVE = 2

TEAMING = "<teaming type='transient' persistent='ua-stays'/>"


def device(options: dict[str, Any], inside: str, address: str = "0000:10:00.0") -> Case:
    """A device as it is asked for, and what the XML has beside its source."""
    source = " ".join(f"{name}='{value}'" for name, value in PciAddress.parse(address).xml_attributes.items())
    return Case({"device": address, "managed": True, "assigned": True, **options}, inside=inside, source=source)


def interface(options: dict[str, Any], inside: str) -> Case:
    """As :func:`device`."""
    return device({"kind": "interface", **options}, inside)


# Where libvirt takes what we refuse: code and option, why, and a guest and a device that show it.
STRICTER: dict[tuple[str, str], tuple[str, str, list[Case]]] = {
    ("hostdev_value_invalid", "alias"): (
        "libvirt drops an alias that does not start with ua-, so that nobody finds it",
        "q35",
        [device({"alias": "net0"}, "<alias name='net0'/>")],
    ),
    ("hostdev_value_invalid", "acpi_index"): (
        "QEMU takes 16383 at most, and does not start",
        "q35",
        [device({"acpi_index": 16384}, "<acpi index='16384'/>")],
    ),
    ("hostdev_value_invalid", "vlan"): (
        "802.1Q: 0 is no VLAN, 4095 is reserved",
        "q35",
        [interface({"vlan": 4095}, "<vlan><tag id='4095'/></vlan>")],
    ),
    ("hostdev_value_invalid", "mac"): (
        "a card with an address of zeros has none",
        "q35",
        [interface({"mac": "00:00:00:00:00:00"}, "<mac address='00:00:00:00:00:00'/>")],
    ),
    ("guest_address_impossible", "guest_address"): (
        "libvirt takes 00:00.0 for no address, and chooses one",
        "q35",
        [device({"guest_address": "00:00.0"}, "<address type='pci' bus='0' slot='0' function='0'/>")],
    ),
    ("guest_function_0_missing", "guest_address"): (
        "a guest that finds no function 0 looks for no other",
        "pc",
        [device({"guest_address": "00:09.1"}, "<address type='pci' bus='0' slot='9' function='1'/>")],
    ),
    ("guest_multifunction_off", "guest_address.multifunction"): (
        "as without function 0",
        "pc",
        [
            device(
                {"guest_address": {"bus": "0", "slot": "9", "function": "0", "multifunction": False}},
                "<address type='pci' bus='0' slot='9' function='0' multifunction='off'/>",
            ),
            device({"guest_address": "00:09.1"}, "<address type='pci' bus='0' slot='9' function='1'/>", "0000:11:00.0"),
        ],
    ),
    ("acpi_index_in_use", "acpi_index"): (
        "QEMU does not start",
        "q35",
        [
            device({"acpi_index": 2}, "<acpi index='2'/>"),
            device({"acpi_index": 2}, "<acpi index='2'/>", "0000:11:00.0"),
        ],
    ),
    ("acpi_index_unsupported", "acpi_index"): (
        "there is no ACPI on IBM Z",
        "s390x",
        [device({"acpi_index": 2}, "<acpi index='2'/>")],
    ),
    ("mac_in_use", "mac"): (
        "libvirt finds interfaces by it when it takes one out",
        "q35",
        [interface({"mac": "52:54:00:00:00:01"}, "<mac address='52:54:00:00:00:01'/>")],
    ),
    ("teaming_peer_missing", "teaming.persistent"): (
        "QEMU does not start, or the guest has no team",
        "q35",
        [device({"teaming": {"persistent": "ua-nobody"}}, "<teaming type='transient' persistent='ua-nobody'/>")],
    ),
    ("teaming_mac_differs", "mac"): (
        "the guest finds the two of a team by their MAC address",
        "q35",
        [
            interface(
                {"mac": "52:54:00:00:00:02", "teaming": {"persistent": "ua-stays"}},
                "<mac address='52:54:00:00:00:02'/><teaming type='transient' persistent='ua-stays'/>",
            )
        ],
    ),
    ("virtualport_vlan", "vlan"): (
        "libvirt refuses it when the domain is started",
        "q35",
        [
            interface(
                {"vlan": 42, "virtualport": {"profileid": "web"}},
                "<vlan><tag id='42'/></vlan><virtualport type='802.1Qbh'><parameters profileid='web'/></virtualport>",
            )
        ],
    ),
    **{
        ("unassigned_conflict", name): (
            "a guest does not see it, so that it would mean nothing",
            "q35",
            [device({"assigned": False, **options}, f"{inside}<address type='unassigned'/>")],
        )
        for name, options, inside in (
            ("alias", {"alias": "ua-a"}, "<alias name='ua-a'/>"),
            ("boot_order", {"boot_order": 2}, "<boot order='2'/>"),
            ("rom.enabled", {"rom": {"enabled": True}}, "<rom enabled='yes'/>"),
            ("rom.bar", {"rom": {"bar": True}}, "<rom bar='on'/>"),
            ("rom.file", {"rom": {"file": "/a"}}, "<rom file='/a'/>"),
            ("teaming.persistent", {"teaming": {"persistent": "ua-stays"}}, TEAMING),
        )
    },
    **{
        ("zpci_incomplete", f"zpci.{missing}"): (
            "whether it works depends on what libvirt makes up",
            "s390x",
            [
                device({"zpci": {known: 5}}, f"<address type='pci'><zpci {known}='5'/></address>"),
                device({"zpci": {missing: 5}}, f"<address type='pci'><zpci {missing}='5'/></address>", "0000:11:00.0"),
            ],
        )
        for known, missing in (("uid", "fid"), ("fid", "uid"))
    },
}


def verdict(libvirt: EmbeddedLibvirt, schema: Schema, before: str, cases: list[Case]) -> tuple[list[Problem], str]:
    """Our problems with these devices in that definition, and the definition with them."""
    problems: list[Problem] = []
    wanted = []
    for number, one in enumerate(cases):
        settings, wrong = given(one.options, f"hostdevs[{number}]")
        problems += wrong
        source = PciAddress.parse(one.options["device"])
        wanted.append(Wanted(f"hostdevs[{number}]", replace(settings, source=source)))
    if problems:
        return problems, ""
    definition = Definition(before)
    targets = targets_of(definition, wanted, PRESENT)
    host = Host()
    context = Context(
        subjects=subjects_of(targets),
        removed=frozenset(),
        definition=definition,
        others=(),
        version=libvirt.connect().version,
        host=host,
        bus=Bus(host),
    )
    problems = broken(context, WITHIN) + against_schema(schema, definition, targets, "the domain", "")
    if problems:
        return problems, ""
    ordered = sorted(targets, key=lambda target: target.rank)
    return problems, spliced(before, {target.source: target.text for target in ordered})


def with_devices(before: str, cases: list[Case]) -> str:
    return before.replace("</devices>", "".join(one.xml for one in cases) + "</devices>")


def refusal(libvirt: EmbeddedLibvirt, xml: str) -> str | None:
    """What libvirt has against a definition; None when it takes it."""
    try:
        libvirt.handle.defineXMLFlags(xml, VALIDATE)
    except libvirt.error as error:
        return str(error)
    return None


@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_our_verdict_is_that_of_libvirt(libvirt: EmbeddedLibvirt, kind: str, batch: int) -> None:
    require_emulator(ARCHITECTURES[kind][0])
    rng = random.Random(f"{kind} {batch}")
    schema = Schema(Host())
    accepted = 0
    for number in range(DOMAINS_PER_BATCH):
        if number % 20 == 0:
            libvirt.clean()
            before = libvirt.handle.defineXML(base("guest", kind, rng)).XMLDesc(INACTIVE)
        cases = [case(kind, which, rng) for which in range(rng.choice([1, 1, 2, 3]))]
        text = "\n".join(one.xml for one in cases)
        theirs = refusal(libvirt, with_devices(before, cases))
        problems, ours = verdict(libvirt, schema, before, cases)
        if problems:
            if theirs is None:
                keys = {(problem.code, problem.details.get("field", "")) for problem in problems}
                assert keys <= set(STRICTER), (keys, text)
            continue
        own = refusal(libvirt, ours)
        assert own is None, (own, ours)
        read = {str(one.source): one.value for one in Definition(ours).hostdevs}
        for one in cases:
            said = parse(etree.fromstring(one.xml))
            if said.multifunction is None:
                said = replace(said, multifunction=read[str(said.source)].multifunction)
            assert read[str(said.source)] == said, text
        # What libvirt makes up for one device may be what a later one asks for; we write those first.
        assert theirs is None or MADE_UP.search(theirs), (theirs, text)
        accepted += 1
    assert accepted > DOMAINS_PER_BATCH // 8


@pytest.mark.parametrize(("code", "option"), STRICTER)
def test_where_we_are_stricter(libvirt: EmbeddedLibvirt, code: str, option: str) -> None:
    reason, kind, cases = STRICTER[code, option]
    assert reason
    require_emulator(ARCHITECTURES[kind][0])
    before = libvirt.handle.defineXML(base("guest", kind, random.Random(2))).XMLDesc(INACTIVE)
    theirs = refusal(libvirt, with_devices(before, cases))
    assert theirs is None, theirs
    problems, _unused = verdict(libvirt, Schema(Host()), before, cases)
    assert {(problem.code, problem.details.get("field", "")) for problem in problems} == {(code, option)}
