# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The udev rules: what is written is read back, and the shell command in them does what it says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence.rules import (
    RULES_NAME,
    PersistentDevice,
    parse,
    render,
)

IDS = st.integers(0, 0xFFFF)
ADDRESSES = st.builds(
    PciAddress, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFF), st.integers(0, 0x1F), st.integers(0, 7)
)
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
DEVICES = st.builds(
    PersistentDevice, ADDRESSES, IDS, IDS, IDS, IDS, NAMES, st.lists(NAMES, max_size=3, unique=True).map(tuple)
)
VF = PersistentDevice(PciAddress.parse("0000:01:10.0"), 0x8086, 0x10CA, 0x8086, 0xA03C, "vfio-pci")


@given(st.lists(DEVICES, unique_by=lambda device: device.address))
def test_what_is_rendered_is_read_back(devices: list[PersistentDevice]) -> None:
    assert parse(render(devices)) == sorted(devices)


def test_without_devices_there_is_no_file() -> None:
    assert render([]) == ""
    assert parse("") == []


def test_a_rule_that_was_spoilt_by_hand_is_not_seen() -> None:
    text = render([VF])
    for address in ("::", "0000:01:10.9", "0000:01:ff.0"):
        assert parse(text.replace("0000:01:10.0", address) + text) == [VF]


def test_a_rule_matches_address_and_ids_when_the_device_is_added() -> None:
    text = re.sub(r"\\\n\s*", "", render([VF]))
    rule = next(line for line in text.splitlines() if line.startswith("ACTION"))
    matches = re.findall(r'(\w+(?:\{\w+\})?)=="([^"]*)"', rule)
    assert matches == [
        ("ACTION", "add"),
        ("SUBSYSTEM", "pci"),
        ("KERNEL", "0000:01:10.0"),
        ("ATTR{vendor}", "0x8086"),
        ("ATTR{device}", "0x10ca"),
        ("ATTR{subsystem_vendor}", "0x8086"),
        ("ATTR{subsystem_device}", "0xa03c"),
    ]
    assert ', ATTR{driver_override}="vfio-pci", ' in rule
    assert rule.index('RUN{builtin}+="kmod load vfio-pci"') < rule.index('RUN+="/bin/sh')


def test_the_rules_come_before_udev_loads_modules() -> None:
    assert RULES_NAME < "80-drivers.rules"


@pytest.mark.parametrize("driver", [None, "igbvf", "vfio-pci"])
def test_the_command_of_a_rule(tmp_path: Path, driver: str | None) -> None:
    """Run by a shell, on files in the place of the kernel's."""
    match = re.search(r"RUN\+=\"/bin/sh -c '(.*)'\"", render([VF]))
    assert match is not None
    address = "0000:01:10.0"
    for name in ("igbvf", "vfio-pci"):
        (tmp_path / "bus/pci/drivers" / name).mkdir(parents=True)
    (tmp_path / "bus/pci/devices" / address).mkdir(parents=True)
    if driver is not None:
        (tmp_path / "bus/pci/drivers" / driver / address).symlink_to(f"../../devices/{address}")
        (tmp_path / "bus/pci/devices" / address / "driver").symlink_to(f"../../drivers/{driver}")

    command = match[1].replace("$kernel", address).replace("/sys/", f"{tmp_path}/")
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    unbind, probe = tmp_path / "bus/pci/drivers/igbvf/unbind", tmp_path / "bus/pci/drivers_probe"
    assert unbind.exists() == (driver == "igbvf")
    assert probe.exists() == (driver != "vfio-pci")
    for written in (unbind, probe):
        assert not written.exists() or written.read_text() == f"{address}\n"
