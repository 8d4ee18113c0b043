# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command that modprobe runs before a driver of the host is loaded, and the soft dependencies beside ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.modprobe import (
    CLAIM,
    own_softdeps,
    render,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.rules import PersistentDevice

ADDRESS = "0000:04:00.0"
CARD = PersistentDevice(PciAddress.parse(ADDRESS), 0x8086, 0x10D3, 0x8086, 0xA01F, "vfio-pci", ("e1000e",))
ATTRIBUTES = {
    "vendor": "0x8086",
    "device": "0x10d3",
    "subsystem_vendor": "0x8086",
    "subsystem_device": "0xa01f",
    "driver_override": "(null)",
}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({}, "vfio-pci"),
        ({"device": "0x10d4"}, "(null)"),
        ({"subsystem_device": "0x0000"}, "(null)"),
        ({"driver_override": "pci-stub"}, "pci-stub"),
        ({"driver": ""}, "(null)"),
    ],
    ids=["the device", "another device", "another card", "overridden by somebody else", "it has a driver already"],
)
def test_the_command_claims_exactly_the_device(tmp_path: Path, found: dict[str, str], expected: str) -> None:
    device = tmp_path / "sys/bus/pci/devices" / ADDRESS
    device.mkdir(parents=True)
    for name, value in {**ATTRIBUTES, **found}.items():
        (device / name).write_text(f"{value}\n")
    text = render([CARD], {}, {})
    command = re.search(rf"^install {CLAIM} (.*)$", text, re.MULTILINE)
    assert command is not None
    # A device that is not there (it was pulled out) keeps the others from nothing.
    argv = ["sh", "-c", command[1].replace("/sys/", f"{tmp_path}/sys/")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (device / "driver_override").read_text().strip() == expected


def test_a_device_that_is_gone_keeps_the_others_from_nothing(tmp_path: Path) -> None:
    text = render([CARD], {}, {})
    command = re.search(rf"^install {CLAIM} (.*)$", text, re.MULTILINE)
    assert command is not None
    done = subprocess.run(
        ["sh", "-c", command[1].replace("/sys/", f"{tmp_path}/sys/")], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_soft_dependencies_of_others_stay(tmp_path: Path) -> None:
    files = {
        "etc/modprobe.d/mine.conf": "softdep e1000e pre: first \\\n second\noptions e1000e x=1\n",
        "etc/modprobe.d/kvm-passthrough.conf": f"softdep e1000e pre: {CLAIM}\n",
        "etc/modprobe.d/ignored.txt": "softdep e1000e pre: never\n",
        "lib/modules/6.1.0-20-amd64/modules.dep": "",
        "lib/modules/6.1.0-20-amd64/modules.softdep": "softdep e1000e post: later\nsoftdep r8169 pre: realtek\n",
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    found = own_softdeps(Host(str(tmp_path)), ["e1000e", "igb"])
    assert found == {"e1000e": "first second post: later"}
    assert f"softdep e1000e pre: {CLAIM} first second post: later\n" in render([CARD], {}, found)


def test_a_device_that_no_driver_of_the_host_knows_needs_no_file() -> None:
    unknown = PersistentDevice(*list(vars(CARD).values())[:-1])
    assert render([unknown], {}, {}) == ""
