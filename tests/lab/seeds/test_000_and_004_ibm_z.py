# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""PCI passthrough on IBM Z: "libvirt v4.10 released" (2019), and IBM's "Configuring PCI pass-through devices".

Is vfio-pci available, which functions are there, one of them bound, and a definition with uid and fid, as libvirt
keeps it. libvirt is the one of the machine that runs the tests, as there is none on the emulated one. A guest of the
emulated mainframe is started with the options that this libvirt has for the definition.
"""

from __future__ import annotations

import itertools
import json
import shlex
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.filter.inject_hostdevs import inject_hostdevs
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import (
    EmbeddedLibvirt,
    open_embedded,
    require_emulator,
)
from tests import lab
from tests.lab import guest, intel, small
from tests.lab.controller import Controller, quadruple
from tests.lab.small.system import KERNEL_FILE

# Its uid is its PCI domain, here and in the guest.
FUNCTION = "0002:00:00.0"

DOMAIN = """<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='s390x' machine='s390-ccw-virtio'>hvm</type></os>
  <devices><emulator>/usr/bin/qemu-system-s390x</emulator></devices>
</domain>"""


@pytest.fixture(name="libvirt")
def libvirt_fixture() -> Iterator[EmbeddedLibvirt]:
    require_emulator("s390x")
    libvirt = open_embedded()
    yield libvirt
    libvirt.clean()


@pytest.mark.lab("s390x")
def test_a_function_is_available_and_bound(small_machine: lab.Machine) -> None:
    ansible = Controller(small_machine)
    # modinfo vfio-pci, and lspci.
    state = ansible.module("iommu_info")
    assert state.status == "ok", state.result
    assert state.result["vfio"]["pci"]["available"] is True, state.result["vfio"]
    info = ansible.module("pci_device_info", {"devices": [{"uid": "0x0002"}]})
    assert [device["address"] for device in info.result["devices"]] == [FUNCTION]

    request = {"devices": [{"uid": "0x0002"}], "persistent": False}
    quadruple(ansible, "vfio_devices", request)
    assert small_machine.drivers()[FUNCTION] == "vfio-pci"
    quadruple(ansible, "vfio_devices", {**request, "state": "released"})
    assert small_machine.drivers()[FUNCTION] != "vfio-pci"


@pytest.mark.lab("s390x")
@pytest.mark.parametrize(
    ("asked", "uid", "fid"),
    [
        # "We strongly recommend not to specify a target address, and to rather rely on …"
        ({"zpci": {"uid": 1, "fid": 0}}, "0x0001", "0x00000000"),
        # IBM's example: uid and fid as they are on the host.
        ({"zpci": {"uid": "0x0002", "fid": "0x00000001"}}, "0x0002", "0x00000001"),
        # Nothing: libvirt finds the next ones itself.
        ({}, "0x0001", "0x00000000"),
    ],
)
def test_the_definition_that_libvirt_expands(
    libvirt: EmbeddedLibvirt, asked: dict[str, object], uid: str, fid: str
) -> None:
    done = inject_hostdevs(DOMAIN.format(name="vserv1"), [{"device": FUNCTION, **asked}])
    expanded = ET.fromstring(libvirt.handle.defineXMLFlags(done, 1).XMLDesc(0))
    (hostdev,) = expanded.findall("devices/hostdev")
    assert (hostdev.get("mode"), hostdev.get("type"), hostdev.get("managed")) == ("subsystem", "pci", "yes")
    source, guest = hostdev.find("source/address"), hostdev.find("address")
    assert source is not None
    assert source.attrib == {"domain": "0x0002", "bus": "0x00", "slot": "0x00", "function": "0x0"}
    assert guest is not None
    zpci = guest.find("zpci")
    assert guest.get("type") == "pci"
    assert zpci is not None
    assert zpci.attrib == {"uid": uid, "fid": fid}


GUEST_INIT = Path(intel.__file__).parent / "guest" / "init"
SERIAL = "/tmp/serial"
START_GUEST = f"/usr/lib/kvm-passthrough-lab/start-guest /tmp/vmlinuz /tmp/init {SERIAL}"


@pytest.mark.full
@pytest.mark.lab("s390x-guests")
def test_the_guest_has_the_function_under_its_uid(small_machine: lab.Machine, libvirt: EmbeddedLibvirt) -> None:
    ansible = Controller(small_machine)
    info = ansible.module("pci_device_info", {"devices": [FUNCTION]})
    request = {"devices": [FUNCTION], "persistent": False}
    quadruple(ansible, "vfio_devices", request)
    asked = [{"device": FUNCTION, "managed": False, "zpci": {"uid": 1, "fid": 0}}]
    options = device_options(libvirt, inject_hostdevs(DOMAIN.format(name="vserv2"), asked))

    kernel = (small.MACHINES["s390x-guests"].system.build() / KERNEL_FILE).read_bytes()
    for content, path in ((kernel, "/tmp/vmlinuz"), (GUEST_INIT.read_bytes(), "/tmp/init")):
        subprocess.run([*small_machine.ssh_argv(), f"cat >{path}"], input=content, timeout=120, check=True)
    words = shlex.join(options)
    small_machine.ssh(f"sudo sh -c '{START_GUEST} \"$@\" >/tmp/qemu.log 2>&1 &' sh {words}")
    seen = None
    for _unused in range(300):
        seen = guest.parse_pci_list(small_machine.ssh(f"sudo cat {SERIAL}", check=False).stdout)
        if seen is not None:
            break
        small_machine.ssh("sleep 5")
    # "The uid becomes the PCI domain, all remaining values of the address are set to zero."
    assert seen is not None, small_machine.ssh(f"cat /tmp/qemu.log; sudo tail -30 {SERIAL}", check=False).stdout
    assert [(one.address, one.ids) for one in seen] == [("0001:00:00.0", info.result["devices"][0]["ids"])]
    small_machine.wait_for("! pgrep qemu-system >/dev/null")
    quadruple(ansible, "vfio_devices", {**request, "state": "released"})


def device_options(libvirt: EmbeddedLibvirt, definition: str) -> list[str]:
    """The options with which libvirt starts QEMU, as far as they are about the hostdev."""
    # It chooses the way of assignment when it starts a domain, and not when it only tells.
    named = definition.replace("<source>", "<driver name='vfio'/><source>")
    words = shlex.split(libvirt.handle.domainXMLToNative("qemu-argv", named, 0))
    return [
        word
        for option, value in itertools.pairwise(words)
        if option == "-device" and json.loads(value)["driver"] in ("zpci", "vfio-pci")
        for word in (option, value)
    ]
