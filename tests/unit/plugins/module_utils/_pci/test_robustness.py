# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A scan of what sysfs is not supposed to look like, and sometimes does: an answer, never a traceback."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import (
    UNREADABLE_DEVICE,
    Bus,
    PciDevice,
    ReservedRegion,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.grammar import parse_selector
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree

# What a device that is there always has; everything else may be missing.
IDENTITY = ("vendor_id", "device_id", "subsystem_vendor_id", "subsystem_device_id", "pci_class", "revision")
PROPERTIES = tuple(
    name
    for name, value in vars(PciDevice).items()
    if not name.startswith("_") and (isinstance(value, property) or hasattr(value, "attrname"))
)


def everything(device: PciDevice) -> dict[str, Any]:
    """Every property of a device; the code where it cannot be told."""
    found: dict[str, Any] = {"mac_addresses": device.mac_addresses()}
    for name in PROPERTIES:
        try:
            found[name] = getattr(device, name)
        except PassthroughError as error:
            if error.code not in UNREADABLE_DEVICE:
                raise
            found[name] = error.code
    return found


def test_a_host_without_pci(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    bus = Bus(Host(str(tmp_path)))
    assert (bus.addresses, bus.devices(), bus.groups(), bus.group_members(1), bus.reserved_regions(1)) == ([],) * 5
    with pytest.raises(PassthroughError, match="no PCI device matches"):
        parse_selector({"pci_class": "network"}).select(bus)


def test_a_container_that_shows_devices_without_details(tree: SysfsTree) -> None:
    for name in ("0000:00:02.0", "0000:01:00.0"):
        tree.path(f"/sys/bus/pci/devices/{name}").mkdir()
    bus = Bus(tree.host())
    assert [device.name for device in bus.devices()] == ["0000:00:02.0", "0000:01:00.0"]
    for device in bus.devices():
        found = everything(device)
        assert {found[name] for name in IDENTITY} == {"device_vanished"}
        assert (found["driver"], found["iommu_group"], found["serial"], found["link"]) == (None,) * 4
        assert (found["interfaces"], found["vfs"], found["line"]) == ([], [], device.name)
    with pytest.raises(PassthroughError, match="no PCI device matches vendor_id 8086"):
        parse_selector({"vendor_id": "8086"}).select(bus)
    assert [device.name for device in parse_selector("01:00.0").select(bus)] == ["0000:01:00.0"]


def test_a_domain_beyond_16_bits(tree: SysfsTree) -> None:
    """Intel VMD: its devices are in a domain of their own, from 0x10000 on, below the VMD controller."""
    tree.add_device("00:0e.0", ids="8086:9a0b", driver="vmd", pci_class=0x010400)
    tree.add_device("10000:e1:00.0", ids="144d:a80a", pci_class=0x010802, group=9, driver="nvme", nvme="nvme0")
    bus = Bus(tree.host())
    device = parse_selector({"address": "10000:e1:00.0", "pci_class": "nvme"}).select(bus)[0]
    assert device.address.nodedev_name == "pci_10000_e1_00_0"
    assert device.group_members == [device.address]
    assert [found.name for found in bus.devices()] == ["0000:00:0e.0", "10000:e1:00.0"]


def test_a_device_that_disappears_during_the_scan(tree: SysfsTree) -> None:
    tree.add_device("00:02.0", ids="8086:10c9", group=3, totalvfs=4).add_device("00:03.0", ids="8086:10c9", group=3)
    tree.add_vfs("00:02.0", 2)
    bus = Bus(tree.host())
    assert len(bus.addresses) == 4
    tree.vanish("00:02.0")
    gone, left = bus.devices()[:2]
    assert {everything(gone)[name] for name in IDENTITY} == {"device_vanished"}
    assert (gone.line, gone.vfs, gone.driver) == ("0000:00:02.0", [], None)
    assert everything(left)["vendor_id"] == 0x8086
    assert gone.address in left.group_members  # as the group still says
    assert parse_selector({"vendor_id": "8086", "device_id": "10c9"}).select(bus) == [left]
    vf = bus.devices()[2]
    assert (vf.pf, vf.vf_index) == (gone.address, None)


@pytest.mark.parametrize(
    ("attribute", "content", "name", "value"),
    [
        ("numa_node", "", "numa_node", None),
        ("numa_node", "none", "numa_node", None),
        ("numa_node", "-1", "numa_node", None),
        ("sriov_numvfs", "two", "sriov_numvfs", None),
        ("sriov_totalvfs", "", "sriov_totalvfs", None),
        ("sriov_totalvfs", "-3", "sriov_totalvfs", None),
        ("boot_vga", "?", "boot_vga", False),
        ("driver_override", "", "driver_override", None),
        ("reset_method", "", "reset_methods", []),
        ("function_id", "0xzz", "zpci", None),
        ("current_link_speed", "", "link", None),
        ("current_link_width", "", "link", None),
        ("modalias", "pci:v0000", "vendor_id", 0x1234),
        ("modalias", "", "pci_class", 0x00FF00),
        ("vendor", "", "vendor_id", "attribute_invalid"),
        ("class", "0xno", "pci_class", "attribute_invalid"),
        ("revision", "", "revision", "attribute_invalid"),
    ],
)
def test_garbage_in_an_attribute(tree: SysfsTree, attribute: str, content: str, name: str, value: Any) -> None:
    tree.add_device("00:02.0").set_attribute("00:02.0", attribute, content)
    assert everything(Bus(tree.host()).devices()[0])[name] == value


@given(
    attribute=st.sampled_from(["numa_node", "sriov_numvfs", "modalias", "vendor", "function_id", "uid", "config"]),
    content=st.binary(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_an_attribute(tree: SysfsTree, attribute: str, content: bytes) -> None:
    if not tree.path("/sys/bus/pci/devices/0000:00:02.0").exists():
        tree.add_device("00:02.0")
    tree.write(f"{tree.device_path('00:02.0')}/{attribute}", content)
    assert everything(Bus(tree.host()).devices()[0])["driver"] is None


def test_nonsense_among_the_names(tree: SysfsTree) -> None:
    tree.add_device("00:02.0", group=1, totalvfs=2).add_device("00:03.0")
    for name in (
        "0000:00:02",
        "0000:00:20.0",
        "00:02.0",
        "pci0000:00",
        "0000:00:02.8",
        "0000:00:02.0~",
        "ABCD:00:00.0",
    ):
        tree.path(f"/sys/bus/pci/devices/{name}").mkdir()
    tree.link("/sys/kernel/iommu_groups/1/devices/arm-smmu.0", "/sys/devices")
    tree.path("/sys/kernel/iommu_groups/one").mkdir()
    base = tree.device_path("00:02.0")
    tree.link(f"{base}/virtfn0", "/sys/devices").link(f"{base}/virtfnX", base).link(f"{base}/virtfn²", base)
    tree.link(f"{tree.device_path('00:03.0')}/physfn", "/sys/devices")
    tree.link(f"{tree.device_path('00:03.0')}/iommu_group", "/sys/devices")
    bus = Bus(tree.host())
    assert [device.name for device in bus.devices()] == ["0000:00:02.0", "0000:00:03.0"]
    assert (bus.groups(), bus.group_members(1)) == ([1], [bus.addresses[0]])
    assert (bus.devices()[0].vfs, bus.devices()[1].pf, bus.devices()[1].iommu_group) == ([], None, None)


def test_reserved_regions_with_malformed_lines(tree: SysfsTree) -> None:
    tree.add_group(
        1, reserved=["", "0x0 0xfff direct", "0x0 0xfff", "0x0 zz msi", "0x1 0x2 msi more", "-1 0x2 msi", "?"]
    )
    assert Bus(tree.host()).reserved_regions(1) == [ReservedRegion(0, 0xFFF, "direct")]


@given(st.text())
def test_any_line_is_a_region_or_none(line: str) -> None:
    region = ReservedRegion.parse(line)
    assert region is None or line.split()[2] == region.type


@pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ENODEV, errno.EINVAL])
@pytest.mark.parametrize("refused", ["open", "read"])
def test_attributes_the_kernel_refuses(
    tree: SysfsTree, monkeypatch: pytest.MonkeyPatch, error: int, refused: str
) -> None:
    tree.add_device("00:02.0", driver="igb", group=4, numa_node=1).add_device("00:03.0", ids="8086:10c9")
    refusing: set[int] = set()
    really_open, really_read, really_close = os.open, os.read, os.close

    def open_(path: str, flags: int, *more: Any, **named: Any) -> int:
        descriptor = really_open(path, flags, *more, **named)
        if "/0000:00:02.0/" in str(path):
            if refused == "open":
                os.close(descriptor)
                raise OSError(error, os.strerror(error))
            refusing.add(descriptor)
        return descriptor

    def read(descriptor: int, length: int) -> bytes:
        if descriptor in refusing:
            raise OSError(error, os.strerror(error))
        return really_read(descriptor, length)

    def close(descriptor: int) -> None:
        refusing.discard(descriptor)
        really_close(descriptor)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(os, "close", close)
    bus = Bus(tree.host())
    found = everything(bus.devices()[0])
    assert {found[name] for name in IDENTITY} == {"device_vanished"}
    assert (found["driver"], found["iommu_group"], found["numa_node"]) == ("igb", 4, None)
    assert [device.name for device in parse_selector({"vendor_id": "8086"}).select(bus)] == ["0000:00:03.0"]
