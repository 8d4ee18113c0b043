# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The device tree that firmware without ACPI hands to the kernel, as far as it is about IOMMUs, PCI and interrupts.

Sources: Documentation/ABI/testing/sysfs-firmware-ofw; Devicetree Specification 2.3 (``compatible``, ``status``,
``device_type``); Documentation/devicetree/bindings/pci/pci-iommu.txt (``iommu-map``) and iommu/iommu.txt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .._core.host import Host

# /proc/device-tree is a link to the first; it is all there is in some containers.
ROOTS = ("/sys/firmware/devicetree/base", "/proc/device-tree")

_MAX_DEPTH = 12
_INTERESTING = ("#iommu-cells", "iommu-map", "iommus", "msi-controller", "#global-interrupts")


@dataclass(frozen=True)
class Node:
    """A node: its path, what it is ``compatible`` with (most specific first), and the names of its properties.

    ``is_enabled`` follows the ``status`` of the node and of those above it: without one, or with "okay", it is.
    """

    path: str
    compatible: tuple[str, ...]
    properties: frozenset[str]
    is_enabled: bool
    device_type: str | None = None

    @property
    def unit_address(self) -> int:
        """The number behind the ``@`` of its name: where its registers are; 0 without one."""
        try:
            return int(self.path.rpartition("@")[2], 16) if "@" in self.path.rpartition("/")[2] else 0
        except ValueError:
            return 0


def read(host: Host) -> list[Node]:
    """Every node that has to do with IOMMUs, PCI host bridges or interrupt controllers; empty without a tree."""
    root = next((path for path in ROOTS if host.list_dir(path)), None)
    return [] if root is None else list(_walk(host, root, "", True, 0))


def root_compatible(host: Host) -> tuple[str, ...]:
    """What the machine as a whole is compatible with (``linux,dummy-virt``); empty without a device tree."""
    return next((found for found in (_strings(host, f"{root}/compatible") for root in ROOTS) if found), ())


def _walk(host: Host, root: str, path: str, enabled: bool, depth: int) -> Iterator[Node]:
    names = host.list_dir(f"{root}{path}")
    properties = frozenset(names)
    if "status" in properties:
        status = _strings(host, f"{root}{path}/status")
        enabled = enabled and status[:1] in (("okay",), ("ok",))
    device_type = None
    if "device_type" in properties:
        device_type = (*_strings(host, f"{root}{path}/device_type"), None)[0]
    is_pci = device_type == "pci"
    if "compatible" in properties and (
        is_pci or "interrupt-controller" in properties or properties.intersection(_INTERESTING)
    ):
        compatible = _strings(host, f"{root}{path}/compatible")
        yield Node(path or "/", compatible, properties, enabled, device_type)
    if is_pci or depth >= _MAX_DEPTH:
        return  # below a host bridge are PCI devices, which the bus itself tells about
    for name in names:
        if name != "__symbols__" and host.is_dir(f"{root}{path}/{name}"):
            yield from _walk(host, root, f"{path}/{name}", enabled, depth + 1)


def _strings(host: Host, path: str) -> tuple[str, ...]:
    """A property that is a list of strings, each of which ends with a zero byte; empty when it cannot be read."""
    try:
        data = host.read_bytes(path)
    except PassthroughError:
        return ()
    return tuple(text.decode("utf-8", "replace") for text in data.split(b"\0") if text)
