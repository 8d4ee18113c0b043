#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pci_device_info
short_description: Describe PCI devices and tell what stands against giving them to a guest
version_added: "0.1.0"
description:
  - Describes the PCI devices that selectors mean, or every PCI device of the host. For each it tells the identity,
    driver, IOMMU group and the other devices in it, SR-IOV relations, network interfaces and disks behind it.
  - For each device it tells whether it could be given to a guest, and by code every reason that stands against it.
    These are the very guards that M(kvm.passthrough.vfio_devices) refuses by.
author:
  - kvm.passthrough contributors (@kvm-passthrough)
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.info_module
  - kvm.passthrough.attributes.actiongroup
  - kvm.passthrough.selector
  - kvm.passthrough.selector.grammar
options:
  devices:
    description:
      - Without this option every PCI device is described. An empty list describes none.
  count:
    description:
      - The C(count) of those selectors that give neither C(count) nor C(index), a number or V(all).
      - It does not change what a selector with C(vf) means.
    type: str
  index:
    description:
      - The C(index) of those selectors that give neither C(count) nor C(index).
    type: int
notes:
  - Run it as root. Without root rights some reasons cannot be looked for; RV(devices[].obstacles[].certain) tells.
seealso:
  - module: kvm.passthrough.iommu_info
  - module: kvm.passthrough.vfio_devices
"""

EXAMPLES = r"""
# At a shell: ansible kvm_hosts -b -m kvm.passthrough.pci_device_info -a 'devices=8086:10ca count=all'

- name: Describe every PCI device
  kvm.passthrough.pci_device_info:
  become: true
  register: pci

- name: List the devices that could be given to a guest
  ansible.builtin.debug:
    msg: "{{ pci.devices | selectattr('assignable') | map(attribute='address') }}"

- name: See that the second VF of a port is the expected kind of device
  kvm.passthrough.pci_device_info:
    devices:
      - name: nic
        pf:
          interface: enp1s0f0
        vf: 1
        expect:
          vendor_id: "8086"
          device_id: "10ca"
  become: true

- name: Describe all graphics cards of a vendor
  kvm.passthrough.pci_device_info:
    devices:
      - vendor_id: "10de"
        pci_class: display
        count: all
  become: true
"""

RETURN = r"""
summary:
  description: Each device in one line, in the order of RV(devices).
  returned: success
  type: list
  elements: str
  sample:
    - "0000:01:10.0 [8086:10ca] Ethernet controller, 82576 Virtual Function, driver igbvf, group 15, assignable"
devices:
  description:
    - The devices, each once, in the order of the selectors, or in the order of their addresses when all are described.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name that the selector gives the device.
      type: str
      sample: nic
    address:
      description: The PCI address.
      type: str
      sample: "0000:01:10.0"
    nodedev_name:
      description: The name of libvirt's node device.
      type: str
      sample: pci_0000_01_10_0
    ids:
      description: Vendor and device id.
      type: str
      sample: "8086:10ca"
    vendor_id:
      description: The vendor id, four hexadecimal digits.
      type: str
      sample: "8086"
    device_id:
      description: The device id, four hexadecimal digits.
      type: str
      sample: 10ca
    subsystem_vendor_id:
      description: The subsystem's vendor id, four hexadecimal digits.
      type: str
      sample: "8086"
    subsystem_device_id:
      description: The subsystem's device id, four hexadecimal digits.
      type: str
      sample: a02c
    vendor_name:
      description: The vendor's name from the host's C(pci.ids), or null when the file or the name is not there.
      type: str
      sample: Intel Corporation
    device_name:
      description: The device's name from the host's C(pci.ids), or null when the file or the name is not there.
      type: str
      sample: 82576 Virtual Function
    pci_class:
      description: The class code, six hexadecimal digits.
      type: str
      sample: "020000"
    class_name:
      description: What the class is called.
      type: str
      sample: Ethernet controller
    driver:
      description: The driver that is bound, or null.
      type: str
      sample: igbvf
    driver_override:
      description: The only driver the kernel may bind to the device, or null when it chooses by ids.
      type: str
      sample: vfio-pci
    assignable:
      description:
        - Whether nothing stands against giving the device, together with its IOMMU group, to a guest.
        - >-
          Null when nothing is known to stand against it, but not everything could be looked at, or the IOMMU group
          shows only once a driver has probed the device (Arm, before Linux 6.15).
      type: bool
      sample: true
    obstacles:
      description: >-
        What stands against it or is to be known before, for the device and for those of its IOMMU group that would
        have to go with it.
      type: list
      elements: dict
      contains:
        code:
          description: The code of the guard.
          type: str
          sample: management_network
        device:
          description: The address of the device the guard speaks for.
          type: str
          sample: "0000:01:00.0"
        severity:
          description: >-
            V(error) for what stands against it, V(warning) for what is only to be known, such as a device that the
            kernel cannot reset.
          type: str
          sample: error
        message:
          description: What was found.
          type: str
        remedy:
          description: What to do about it.
          type: str
        forcible:
          description: Whether O(kvm.passthrough.vfio_devices#module:force) can override it.
          type: bool
        certain:
          description: >-
            Whether it is known. False for an error that is only feared because something could not be read, and for a
            warning about what shows only once the device is bound.
          type: bool
    iommu_group:
      description: The IOMMU group, or null when the device is in none, as without an active IOMMU.
      type: dict
      contains:
        number:
          description: The number of the group. It changes between boots.
          type: int
          sample: 15
        type:
          description: The type of the default domain, null before Linux 5.11.
          type: str
          sample: DMA-FQ
        devices:
          description: The addresses of all PCI devices in the group, this one included.
          type: list
          elements: str
          sample: ["0000:01:10.0"]
        viable:
          description: Whether VFIO could use the group as it is, since no driver of the host holds an endpoint in it.
          type: bool
        isolated:
          description: Whether all endpoints in the group are of one device, so that no other has to go with it.
          type: bool
        bound_to_host:
          description: The endpoints that drivers of the host hold, with C(address) and C(driver).
          type: list
          elements: dict
        reserved_regions:
          description: The reserved regions, with C(start), C(end) and C(type).
          type: list
          elements: dict
    numa_node:
      description: The NUMA node, or null when the platform names none.
      type: int
      sample: 0
    is_bridge:
      description: Whether the device is a PCI bridge, which can never be given to a guest.
      type: bool
    boot_vga:
      description: Whether the firmware used the device as the console display.
      type: bool
    multifunction:
      description: Whether other functions share the device's slot.
      type: bool
    siblings:
      description: The addresses of the other functions of the slot.
      type: list
      elements: str
    pf:
      description: The address of the physical function when the device is a virtual function, else null.
      type: str
      sample: "0000:01:00.0"
    vf:
      description: The index of the virtual function, else null.
      type: int
      sample: 0
    vfs:
      description: The addresses of the device's virtual functions, by index.
      type: list
      elements: str
    sriov_numvfs:
      description: How many virtual functions are enabled, or null when the device is no physical function.
      type: int
    sriov_totalvfs:
      description: How many virtual functions are possible, or null when the device is no physical function.
      type: int
    reset_methods:
      description: How the kernel can reset the device, in its order of preference. Empty before Linux 5.15.
      type: list
      elements: str
      sample: [flr, bus]
    interfaces:
      description: The network interfaces behind the device, with C(name) and C(mac).
      type: list
      elements: dict
      sample: [{name: enp1s16, mac: "52:54:00:12:34:56"}]
    block_devices:
      description: The disks behind the device.
      type: list
      elements: str
      sample: [nvme0n1]
    xml:
      description: >-
        The attributes C(domain), C(bus), C(slot) and C(function) of an C(<address>) element in libvirt's XML.
      type: dict
      sample: {domain: "0x0000", bus: "0x01", slot: "0x10", function: "0x0"}
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._core.module import run_query
from ..module_utils._pci.selector import selector_argument
from ..module_utils._vfio.info import devices_report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": selector_argument(required=False),
            "count": {"type": "str"},
            "index": {"type": "int"},
        },
        mutually_exclusive=[("count", "index")],
        required_by={"count": "devices", "index": "devices"},
        supports_check_mode=True,
    )
    run_query(
        module,
        lambda host: devices_report(host, module.params["devices"], module.params["count"], module.params["index"]),
    )


if __name__ == "__main__":
    main()
