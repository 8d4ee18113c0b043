# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain that runs.

No machine of the unit tests has a device to plug in, so the guest's side is played by a second domain of the real
libvirt, whose definition takes and gives up devices as the guest would: what is in it went through libvirt.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.change import RECORD_KIND
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import (
    LibvirtConnection,
    LibvirtDomain,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.definition import Definition
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import argument_spec, build
from ansible_collections.kvm.passthrough.tests.unit.support.domains import BOUND, CARD, NIC, PAIR, hostdev_xml
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import EmbeddedLibvirt
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

pytest.importorskip("lxml")

PORTS = "<controller type='pci' model='pcie-root'/>" + "<controller type='pci' model='pcie-root-port'/>" * 8
VF = "0000:0a:10.0"


class Guest:
    """The guest's side, and what it does when it is asked to let a device go."""

    def __init__(self, domain: LibvirtDomain) -> None:
        self.domain = domain
        self.delay = 0
        """How often somebody looks before a device is gone."""
        self._leaving: list[tuple[int, str]] = []
        self.asked: list[str] = []

    def xml(self) -> str:
        later = []
        for left, text in self._leaving:
            if left > 0:
                later.append((left - 1, text))
            else:
                self.domain.detach(text)
        self._leaving = later
        return self.domain.config_xml()

    def attach(self, xml: str) -> None:
        self.asked.append(f"attach {Definition(f'<domain><devices>{xml}</devices></domain>').hostdevs[0].source}")
        self.domain.attach(xml)

    def detach(self, xml: str) -> None:
        self.asked.append(f"detach {Definition(f'<domain><devices>{xml}</devices></domain>').hostdevs[0].source}")
        self._leaving.append((self.delay, xml))


class RunningDomain(LibvirtDomain):
    """A domain that runs; what is live is the guest's."""

    guest: Guest

    @property
    def active(self) -> bool:
        return True

    def live_xml(self) -> str:
        return self.guest.xml()

    def attach(self, xml: str, *, live: bool = False) -> None:
        if live:
            self.guest.attach(xml)
        else:
            super().attach(xml)

    def detach(self, xml: str, *, live: bool = False) -> None:
        if live:
            self.guest.detach(xml)
        else:
            super().detach(xml)


class Bench:
    """A domain that runs, its guest, and the module's procedure."""

    def __init__(self, libvirt: EmbeddedLibvirt, tree: SysfsTree, devices: str = PORTS) -> None:
        self.libvirt = libvirt
        self.tree = tree
        self.definition = libvirt.define(devices, boot="")
        self._guest = libvirt.define(devices, boot="")
        self.guest = Guest(LibvirtDomain(self._guest))
        self.slept: list[float] = []

    def connect(self, _uri: str) -> Any:
        bench = self

        class Connection(LibvirtConnection):
            def domain(self, name_or_uuid: str) -> Any:
                domain = RunningDomain(bench.definition)
                domain.guest = bench.guest
                return domain

            def domains(self) -> Any:
                return []

        return Connection(self.libvirt.handle)

    def run(self, *hostdevs: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
        parameters = {
            **{name: option.get("default") for name, option in argument_spec().items()},
            "domain": self.definition.name(),
            "scope": "both",
            "hostdevs": [{"managed": True, "assigned": True, **one} for one in hostdevs],
            **options,
        }
        host = Host(self.tree.host().root, sleep=self.slept.append)
        return execute(host, build(host, parameters, self.connect), module="domain_hostdevs", check_mode=check)

    def quadruple(self, *hostdevs: dict[str, Any], **options: Any) -> dict[str, Any]:
        """check, run, check, run."""
        before = self.both()
        predicted = self.run(*hostdevs, check=True, **options)
        assert self.both() == before
        done = self.run(*hostdevs, **options)
        assert done == predicted
        assert done["changed"]
        json.dumps(done)
        after = self.both()
        for check in (True, False):
            again = self.run(*hostdevs, check=check, **options)
            assert (again["changed"], again["actions"]) == (False, [])
            assert not again["restart_required"]
        assert self.both() == after
        return done

    def fails(self, *hostdevs: dict[str, Any], **options: Any) -> PassthroughError:
        before = self.both()
        with pytest.raises(PassthroughError) as caught:
            self.run(*hostdevs, **options)
        assert self.both() == before
        return caught.value

    def both(self) -> tuple[list[str], list[str]]:
        """The devices in the definition, and those that the guest has."""
        found = [
            [str(one.source) for one in Definition(domain.XMLDesc(2)).hostdevs]
            for domain in (self.definition, self._guest)
        ]
        return found[0], found[1]


@pytest.fixture
def bench(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> Bench:
    return Bench(libvirt, tree)


def test_both_are_changed_the_guest_first(bench: Bench) -> None:
    name = bench.definition.name()
    done = bench.quadruple({"device": NIC})
    assert [action["description"] for action in done["actions"]] == [
        f"plug {NIC} into the running domain {name}",
        f"add {NIC} to the domain {name}",
    ]
    assert [action["target"] for action in done["actions"]] == [
        f"running domain {name}, hostdev {NIC}",
        f"domain {name}, hostdev {NIC}",
    ]
    assert bench.both() == ([NIC], [NIC])
    records = StateStore(bench.tree.host()).all(RECORD_KIND)
    assert [record.key for record in records] == [f"qemu:///system {bench.definition.UUIDString()} {NIC}"]
    done = bench.quadruple({"device": NIC}, state="absent")
    assert [action["description"] for action in done["actions"]] == [
        f"unplug {NIC} from the running domain {name}",
        f"remove {NIC} from the domain {name}",
    ]
    assert bench.both() == ([], [])


def test_only_what_runs(bench: Bench) -> None:
    done = bench.quadruple({"device": NIC}, scope="live")
    assert [one["address"] for one in done["hostdevs"]] == [NIC]
    assert bench.both() == ([], [NIC])
    assert StateStore(bench.tree.host()).all(RECORD_KIND) == []
    # Only the definition has to be brought along then.
    assert len(bench.quadruple({"device": NIC}, scope="both")["actions"]) == 1
    assert bench.run({"device": NIC}, scope="config")["restart_required"] is False
    assert bench.run(state="exact", scope="config")["restart_required"] is True
    bench.quadruple(state="exact", scope="live")
    assert bench.both() == ([], [])


def test_an_interface(bench: Bench) -> None:
    done = bench.quadruple({"device": VF, "kind": "interface", "mac": "52:54:00:12:34:56", "vlan": 42})
    assert done["hostdevs"][0]["kind"] == "interface"
    bench.quadruple({"device": VF, "vlan": 43})
    assert bench.guest.asked == [f"attach {VF}", f"detach {VF}", f"attach {VF}"]
    bench.quadruple({"device": VF, "kind": "hostdev"})
    bench.quadruple({"device": VF}, state="absent")


def test_a_guest_that_takes_its_time(bench: Bench) -> None:
    bench.run({"device": NIC})
    bench.guest.delay = 3
    bench.run({"device": NIC}, state="absent")
    assert bench.both() == ([], [])
    assert bench.slept == [0.5] * 3


def test_a_guest_that_keeps_the_device(bench: Bench) -> None:
    bench.run({"device": NIC})
    bench.guest.delay = 1000
    error = bench.fails({"device": NIC}, state="absent", timeout=2)
    assert error.code == "device_not_released"
    name = bench.definition.name()
    assert error.problems[0].text == (
        f"Failed to unplug {NIC} from the running domain {name}: The guest of the running domain {name} did not let "
        f"{NIC} go within 2 s. It may still do so later. Nothing else had been changed. See whether the guest is up "
        "and "
        "its kernel can unplug PCI devices; give it longer with timeout, or use scope: config and shut the domain down."
    )
    assert bench.slept == [0.5] * 4
    assert error.extra["undone"] == []


def test_what_was_plugged_in_is_unplugged_when_the_rest_fails(bench: Bench) -> None:
    bench.definition.attachDeviceFlags(
        hostdev_xml("0000:77:00.0", "<address type='pci' bus='3' slot='0' function='0'/>"), 2
    )
    real = bench.guest.attach

    def refuse(xml: str) -> None:
        if 'bus="0x02"' in xml.partition("</source>")[0]:
            raise PassthroughError("libvirt_refused", "libvirt did not do it.")
        real(xml)

    bench.guest.attach = refuse  # type: ignore[method-assign]
    error = bench.fails({"device": NIC}, {"device": BOUND})
    assert error.code == "libvirt_refused"
    assert len(error.extra["undone"]) == 1
    assert bench.both() == (["0000:77:00.0"], [])


def test_functions_that_the_guest_does_not_get_come_first_and_go_last(bench: Bench) -> None:
    for function in range(4):
        bench.tree.bind(f"{CARD}.{function}", "vfio-pci")
    wanted = [{"device": f"{CARD}.{function}", "assigned": function in (0, 3)} for function in range(4)]
    bench.quadruple(*wanted, scope="live")
    assert bench.guest.asked == [f"attach {CARD}.{function}" for function in (1, 2, 0, 3)]
    bench.guest.asked.clear()
    bench.run(state="exact", scope="live")
    assert bench.guest.asked == [f"detach {CARD}.{function}" for function in (0, 3, 1, 2)]


@pytest.mark.parametrize(
    ("hostdevs", "code", "text"),
    [
        (
            [{"device": NIC, "guest_address": "08:00.1"}],
            "hotplug_function",
            f"hostdevs[0] ({NIC}): guest_address 0000:08:00.1 is a function other than 0, which libvirt cannot plug "
            "into a guest that runs. Give it a slot of its own, or use scope: config and start the domain anew.",
        ),
        (
            [{"device": NIC, "guest_address": "00:09.0"}],
            "hotplug_bus",
            f"hostdevs[0] ({NIC}): guest_address 0000:00:09.0 is on bus 0x00 of the guest, which is a pcie-root, into "
            "which nothing can be plugged. Leave guest_address out, or use scope: config and start the domain anew.",
        ),
        (
            [{"device": NIC, "guest_address": "20:00.0"}],
            "hotplug_bus",
            f"hostdevs[0] ({NIC}): guest_address 0000:20:00.0 is on bus 0x20 of the guest, which does not exist while "
            "the guest runs. Leave guest_address out, or use scope: config and start the domain anew.",
        ),
        (
            [{"device": address} for address in PAIR],
            "hotplug_group_held",
            f"hostdevs[0] ({PAIR[0]}): {PAIR[1]} of the same IOMMU group would still be held by the host when this "
            "device is plugged in, since libvirt takes one after the other. Bind them all with "
            "kvm.passthrough.vfio_devices first.",
        ),
    ],
)
def test_what_cannot_be_plugged_in(bench: Bench, hostdevs: list[dict[str, Any]], code: str, text: str) -> None:
    found = {problem.code: problem.text for problem in bench.fails(*hostdevs, scope="live").problems}
    assert found[code] == text


def test_ports_that_are_left(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
    bench = Bench(libvirt, tree)
    definition = Definition(bench.definition.XMLDesc(2))
    used = len(definition.used_buses - {0})
    left = len(definition.pci_controllers) - 1 - used
    for number in range(left + 1):
        tree.add_device(f"0000:{0x50 + number:02x}:00.0", driver="vfio-pci", group=50 + number)
    wanted = [{"device": f"{0x50 + number:02x}:00.0"} for number in range(left + 1)]
    error = bench.fails(*wanted, scope="live")
    assert [problem.code for problem in error.problems] == ["no_free_port"]
    assert (
        f"the guest that runs has {left} free PCI Express ports, and {left + 1} devices are to be plugged in."
        in str(error)
    )
    bench.quadruple(*wanted[:-1], scope="live")
    # One that goes makes room for one that comes.
    bench.quadruple(*wanted[1:], scope="live", state="exact")


def test_nothing_is_unplugged_from_a_slot_of_several(bench: Bench) -> None:
    for address, function in ((NIC, 0), (BOUND, 1)):
        bench.guest.domain.attach(hostdev_xml(address, guest=f"08:00.{function}"))
    error = bench.fails({"device": BOUND}, state="absent", scope="live")
    assert error.problems[0].code == "hotplug_multifunction"
    assert error.problems[0].text == (
        f"The domain's hostdev {BOUND}: the guest has it at 0000:08:00.1, in a slot with hostdev {NIC}, and libvirt "
        "unplugs nothing from such a slot. Use scope: config and start the domain anew."
    )


def test_a_domain_that_does_not_run(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
    bench = Bench(libvirt, tree)
    bench.connect = libvirt.connect  # type: ignore[method-assign]
    error = bench.fails({"device": NIC}, scope="live")
    assert error.code == "domain_not_running"
    assert "does not run, so that there is nothing to be changed with scope: live" in str(error)
    bench.run({"device": NIC}, scope="both")
    assert bench.both() == ([NIC], [])


def test_what_the_real_libvirt_says_of_a_device_that_is_not_there(libvirt: EmbeddedLibvirt, tree: SysfsTree) -> None:
    """The guest really runs, and its host has no such device."""
    bench = Bench(libvirt, tree)
    bench.definition.createWithFlags(1)
    bench.connect = libvirt.connect  # type: ignore[method-assign]
    error = bench.fails({"device": NIC}, scope="live")
    assert error.code == "libvirt_refused"
    assert f"libvirt did not plug a device into the running domain {bench.definition.name()}" in str(error)
