# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which block devices, network interfaces and display nodes hang below a PCI function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property

from .._core.host import Host
from .._pci.address import PciAddress
from .._pci.device import PciDevice
from .._pci.tree import functions_in

CLASS_BLOCK = "/sys/class/block"
CLASS_DRM = "/sys/class/drm"
CLASS_NET = "/sys/class/net"
CLASS_NVME_SUBSYSTEM = "/sys/class/nvme-subsystem"

# What programs open in /dev/dri; the class also has a card's connectors (card0-HDMI-A-1).
_DRM_NODE = re.compile(r"(card|renderD)\d+")


class Topology:
    """The devices of the kernel's classes, by their place in the device tree. Everything is read once and then kept.

    A class device belongs to a PCI function when its real path lies below the function's. That holds through every
    layer in between (SCSI hosts, USB, virtio, NVMe controllers), without knowing any of them. Where PCI functions
    stand behind one another (bridges, Intel VMD), it belongs to all of them, and is the nearest one's own.
    """

    def __init__(self, host: Host) -> None:
        self._host = host

    def block_devices(self, device: PciDevice) -> list[str]:
        """The kernel names of the disks and partitions a PCI function gives access to (``nvme0n1``, ``sda1``)."""
        return sorted(self._blocks.below(device) | self._nvme_heads.below(device))

    def own_block_devices(self, device: PciDevice) -> list[str]:
        """Those of :meth:`block_devices` that no other PCI function stands before."""
        return sorted(self._blocks.own(device) | self._nvme_heads.own(device))

    def interfaces(self, device: PciDevice) -> list[str]:
        """The network interfaces a PCI function gives the host, in the network namespace of this process."""
        return sorted(self._interfaces.below(device))

    def own_interfaces(self, device: PciDevice) -> list[str]:
        """Those of :meth:`interfaces` that no other PCI function stands before."""
        return sorted(self._interfaces.own(device))

    def drm_nodes(self, device: PciDevice) -> list[str]:
        """The names in /dev/dri of a graphics card (``card0``, ``renderD128``)."""
        return sorted(name for name in self._drm.own(device) if _DRM_NODE.fullmatch(name))

    @cached_property
    def _blocks(self) -> _Index:
        return _Index(self._block_paths)

    @cached_property
    def _interfaces(self) -> _Index:
        return _Index(self._real_paths(CLASS_NET))

    @cached_property
    def _drm(self) -> _Index:
        return _Index(self._real_paths(CLASS_DRM))

    @cached_property
    def _block_paths(self) -> dict[str, str]:
        return self._real_paths(CLASS_BLOCK)

    def _real_paths(self, directory: str) -> dict[str, str]:
        return {name: self._host.real_path(f"{directory}/{name}") for name in self._host.list_dir(directory)}

    @cached_property
    def _nvme_heads(self) -> _Index:
        """With NVMe multipath, the disk that is used is a virtual device of the subsystem, over all its controllers.

        Source: drivers/nvme/host/multipath.c, ``nvme_mpath_alloc_disk`` (the head's parent is the subsystem).
        """
        index = _Index()
        for subsystem in self._host.list_dir(CLASS_NVME_SUBSYSTEM):
            directory = f"{CLASS_NVME_SUBSYSTEM}/{subsystem}"
            real = self._host.real_path(directory) + "/"
            heads = [name for name, path in self._block_paths.items() if path.startswith(real)]
            for controller in self._real_paths(directory).values() if heads else ():
                for head in heads:
                    index.add(head, controller)
        return index


class _Index:
    """The names of class devices by the PCI functions in their paths."""

    def __init__(self, paths: Mapping[str, str] | None = None) -> None:
        self._below: dict[PciAddress, set[str]] = {}
        self._own: dict[PciAddress, set[str]] = {}
        for name, path in (paths or {}).items():
            self.add(name, path)

    def add(self, name: str, path: str) -> None:
        """Enter a class device by its real path, or by one more path that leads to it."""
        _unused, functions = functions_in(path)
        for function in functions:
            self._below.setdefault(function, set()).add(name)
        if functions:
            self._own.setdefault(functions[-1], set()).add(name)

    def below(self, device: PciDevice) -> set[str]:
        """Everything that a function is on the way to."""
        return self._below.get(device.address, set())

    def own(self, device: PciDevice) -> set[str]:
        """That to which no other function is on the way."""
        return self._own.get(device.address, set())
