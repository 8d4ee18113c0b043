# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m …tests.benchmark.scan ROOT``: what ``lspci -vmmkD`` prints, from the collection's own scan of a machine.

The names, too, come from where the collection has them: pci.ids, but the classes' names from its own table.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus, PciDevice


def fields(device: PciDevice, bus: Bus) -> Iterator[str]:
    """The lines of one device."""
    yield f"Slot:\t{device.name}"
    yield f"Class:\t{device.class_name}"
    yield f"Vendor:\t{device.vendor_name or f'Vendor {device.vendor_id:04x}'}"
    yield f"Device:\t{device.device_name or f'Device {device.device_id:04x}'}"
    if device.subsystem_vendor_id not in (0, 0xFFFF):
        yield f"SVendor:\t{bus.names.vendor(device.subsystem_vendor_id) or f'Vendor {device.subsystem_vendor_id:04x}'}"
        yield f"SDevice:\t{device.subsystem_name or f'Device {device.subsystem_device_id:04x}'}"
    if device.physical_slot is not None:
        yield f"PhySlot:\t{device.physical_slot}"
    if device.revision:
        yield f"Rev:\t{device.revision:02x}"
    yield f"ProgIf:\t{device.pci_class & 0xFF:02x}"
    if device.driver is not None:
        yield f"Driver:\t{device.driver}"
    if device.numa_node is not None:
        yield f"NUMANode:\t{device.numa_node}"
    if device.iommu_group is not None:
        yield f"IOMMUGroup:\t{device.iommu_group}"


def main() -> None:
    bus = Bus(Host(sys.argv[1]))
    sys.stdout.write("".join("\n".join(fields(device, bus)) + "\n\n" for device in bus.devices()))


if __name__ == "__main__":
    main()
