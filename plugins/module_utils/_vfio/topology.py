# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which block devices and network interfaces hang below a PCI function."""

from __future__ import annotations

from functools import cached_property

from .._core.host import Host
from .._pci.device import PciDevice

CLASS_BLOCK = "/sys/class/block"
CLASS_NET = "/sys/class/net"
CLASS_NVME_SUBSYSTEM = "/sys/class/nvme-subsystem"


class Topology:
    """The devices of the kernel's classes, by their place in the device tree.

    A class device belongs to a PCI function when its real path lies below the function's. That holds through every
    layer in between (SCSI hosts, USB, virtio, NVMe controllers), without knowing any of them.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def block_devices(self, device: PciDevice) -> list[str]:
        """The kernel names of the disks and partitions a PCI function gives access to (``nvme0n1``, ``sda1``)."""
        found = set(self._below(device, self._block_paths))
        found.update(self._nvme_heads(device))
        return sorted(found)

    def interfaces(self, device: PciDevice) -> list[str]:
        """The network interfaces a PCI function gives the host, in the network namespace of this process."""
        return self._below(device, self._net_paths)

    def _below(self, device: PciDevice, paths: dict[str, str]) -> list[str]:
        prefix = self._host.real_path(device.path) + "/"
        return sorted(name for name, path in paths.items() if path.startswith(prefix))

    @cached_property
    def _block_paths(self) -> dict[str, str]:
        return self._real_paths(CLASS_BLOCK)

    @cached_property
    def _net_paths(self) -> dict[str, str]:
        return self._real_paths(CLASS_NET)

    def _real_paths(self, directory: str) -> dict[str, str]:
        return {name: self._host.real_path(f"{directory}/{name}") for name in self._host.list_dir(directory)}

    def _nvme_heads(self, device: PciDevice) -> list[str]:
        """With NVMe multipath, the disk that is used is a virtual device of the subsystem, over all its controllers.

        Source: drivers/nvme/host/multipath.c, ``nvme_mpath_alloc_disk`` (the head's parent is the subsystem).
        """
        prefix = self._host.real_path(device.path) + "/"
        heads: list[str] = []
        for subsystem in self._host.list_dir(CLASS_NVME_SUBSYSTEM):
            directory = f"{CLASS_NVME_SUBSYSTEM}/{subsystem}"
            real = self._host.real_path(directory) + "/"
            entries = [f"{directory}/{name}" for name in self._host.list_dir(directory)]
            if any(self._host.real_path(entry).startswith(prefix) for entry in entries):
                heads += [name for name, path in self._block_paths.items() if path.startswith(real)]
        return heads
