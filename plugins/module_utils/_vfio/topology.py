# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which block devices and network interfaces hang below a PCI function."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cached_property

from .._core.host import Host
from .._pci.address import PciAddress
from .._pci.device import PciDevice

CLASS_BLOCK = "/sys/class/block"
CLASS_NET = "/sys/class/net"
CLASS_NVME_SUBSYSTEM = "/sys/class/nvme-subsystem"


class Topology:
    """The devices of the kernel's classes, by their place in the device tree.

    A class device belongs to a PCI function when its real path lies below the function's. That holds through every
    layer in between (SCSI hosts, USB, virtio, NVMe controllers), without knowing any of them. Each class is walked
    once, whatever the number of PCI functions.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def block_devices(self, device: PciDevice) -> list[str]:
        """The kernel names of the disks and partitions a PCI function gives access to (``nvme0n1``, ``sda1``)."""
        return sorted(self._block_devices[device.address])

    def interfaces(self, device: PciDevice) -> list[str]:
        """The network interfaces a PCI function gives the host, in the network namespace of this process."""
        return sorted(self._interfaces[device.address])

    @cached_property
    def _block_devices(self) -> Mapping[PciAddress, set[str]]:
        paths = self._real_paths(CLASS_BLOCK)
        found = _by_function((path, [name]) for name, path in paths.items())
        for function, heads in _by_function(self._nvme_heads(paths)).items():
            found[function] |= heads
        return found

    @cached_property
    def _interfaces(self) -> Mapping[PciAddress, set[str]]:
        return _by_function((path, [name]) for name, path in self._real_paths(CLASS_NET).items())

    def _real_paths(self, directory: str) -> dict[str, str]:
        return {name: self._host.real_path(f"{directory}/{name}") for name in self._host.list_dir(directory)}

    def _nvme_heads(self, block_paths: Mapping[str, str]) -> Iterable[tuple[str, list[str]]]:
        """With NVMe multipath, the disk that is used is a virtual device of the subsystem, over all its controllers.

        Source: drivers/nvme/host/multipath.c, ``nvme_mpath_alloc_disk`` (the head's parent is the subsystem).
        """
        for subsystem in self._host.list_dir(CLASS_NVME_SUBSYSTEM):
            directory = f"{CLASS_NVME_SUBSYSTEM}/{subsystem}"
            real = self._host.real_path(directory) + "/"
            heads = [name for name, path in block_paths.items() if path.startswith(real)]
            for name in self._host.list_dir(directory):
                yield self._host.real_path(f"{directory}/{name}"), heads


def _by_function(entries: Iterable[tuple[str, Iterable[str]]]) -> defaultdict[PciAddress, set[str]]:
    """Every PCI function that one of the real paths leads through -> the names that come with these paths."""
    found: defaultdict[PciAddress, set[str]] = defaultdict(set)
    for path, names in entries:
        for component in path.split("/")[1:-1]:
            function = PciAddress.from_sysfs(component)
            if function is not None:
                found[function].update(names)
    return found
