#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: pci_device_info
short_description: Describe PCI devices and tell what stands against giving them to a guest
version_added: "1.0.0"
description:
  - Describes the PCI devices that selectors mean, or every PCI device of the host. For each it tells the identity,
    drivers, IOMMU group and the other devices in it, SR-IOV relations, place in the machine, and the network interfaces
    and disks it gives the host, with what they are used for.
  - For each device it tells whether it could be given to a guest, and by code every reason that stands against it.
    These are the very guards that M(kvm.passthrough.vfio_devices) refuses by.
  - It can show the devices as the hierarchy of buses, with the IOMMU groups beside.
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
  obstacles:
    description:
      - Whether to find out what the host uses the devices for, and what stands against giving them to a guest.
      - With V(false) it reads what the devices are and where, but no mounts, routes or processes, which is quicker.
        RV(devices[].assignable), RV(devices[].obstacles), RV(devices[].held_by) and the C(uses) of interfaces and disks
        are null then.
    type: bool
    default: true
  tree:
    description:
      - Whether to show the devices also as the hierarchy of buses, in RV(tree) and RV(tree_lines).
      - With O(devices), the tree has the devices that are meant, and the bridges on the way to them.
    type: bool
    default: false
notes:
  - Run it as root. Without root rights it answers what it can. RV(unreadable) lists what it could not read, and
    RV(devices[].obstacles[].certain) tells which reasons could not be looked for.
seealso:
  - module: kvm.passthrough.iommu_info
  - module: kvm.passthrough.vfio_devices
"""

EXAMPLES = r"""
# At a shell: ansible kvm_hosts -b -m kvm.passthrough.pci_device_info -a 'devices=8086:10ca count=all'

# The devices as a tree: ansible kvm_hosts -b -m kvm.passthrough.pci_device_info -a 'obstacles=false tree=true'

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

- name: Read the hierarchy of buses, with the IOMMU groups
  kvm.passthrough.pci_device_info:
    obstacles: false
    tree: true
  become: true
  register: pci

- name: Print it
  ansible.builtin.debug:
    var: pci.tree_lines
"""

RETURN = r"""
msg:
  description: How many devices there are, and how many of them could be given to a guest.
  returned: success
  type: str
  sample: "14 PCI devices: 5 assignable, 9 not."
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
    revision:
      description: The revision, two hexadecimal digits.
      type: str
      sample: "01"
    vendor_name:
      description: The vendor's name from the host's C(pci.ids), or null when the file or the name is not there.
      type: str
      sample: Intel Corporation
    device_name:
      description: The device's name from the host's C(pci.ids), or null when the file or the name is not there.
      type: str
      sample: 82576 Virtual Function
    subsystem_name:
      description:
        - What the card with the chip is called, from the host's C(pci.ids), or null when the file or the name is not
          there.
      type: str
      sample: Gigabit ET Dual Port Server Adapter
    pci_class:
      description: The class code, six hexadecimal digits.
      type: str
      sample: "020000"
    class_name:
      description: What the class is called.
      type: str
      sample: Ethernet controller
    serial:
      description:
        - The PCI Express device serial number, as C(lspci -v) prints it. The functions of a card share it.
        - Null when the device has none, or when it cannot be read (see RV(unreadable)).
      type: str
      sample: 00-1b-21-ff-ff-aa-bb-cc
    zpci:
      description:
        - What the function is on IBM Z, null elsewhere. C(uid) and C(fid) are what the element C(<zpci>) of libvirt's
          XML takes.
      type: dict
      contains:
        uid:
          description: The user-defined id, which is also the PCI domain when it is unique.
          type: str
          sample: "0x0001"
        fid:
          description: The function id.
          type: str
          sample: "0x00000000"
        pchid:
          description: The physical channel id, which is the place of the adapter.
          type: str
          sample: "0x01c0"
        vfn:
          description: The number of the virtual function, from 1 on. It is 0 for a physical function.
          type: int
        uid_is_unique:
          description:
            - Whether the machine sees to it that no two functions have the same C(uid). Null before Linux 5.13.
          type: bool
    driver:
      description: The driver that is bound, or null.
      type: str
      sample: igbvf
    driver_override:
      description: The only driver the kernel may bind to the device, or null when it chooses by ids.
      type: str
      sample: vfio-pci
    modules:
      description:
        - The kernel modules that are made for the device, of those that can be loaded. Null when the running kernel's
          C(modules.alias) cannot be read.
      type: list
      elements: str
      sample: [igbvf]
    variant_drivers:
      description:
        - The VFIO drivers of the running kernel that are made for this device, best first. libvirt since 10.0 takes the
          first of them with C(managed='yes'). Empty when C(vfio-pci) is the only one; null as RV(devices[].modules).
      type: list
      elements: str
      sample: [mlx5_vfio_pci]
    vfio_device:
      description:
        - The file by which IOMMUFD opens the device, while a VFIO driver is bound and since Linux 6.6, else null.
      type: str
      sample: /dev/vfio/devices/vfio3
    assignable:
      description:
        - Whether nothing stands against giving the device, together with its IOMMU group, to a guest.
        - >-
          Null when nothing is known to stand against it, but not everything could be looked at, or the IOMMU group
          shows only once a driver has probed the device (Arm, before Linux 6.15). Null with O(obstacles=false).
      type: bool
      sample: true
    obstacles:
      description: >-
        What stands against it or is to be known before, for the device and for those of its IOMMU group that would
        have to go with it. Null with O(obstacles=false).
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
    held_by:
      description:
        - The processes that use the device, or another one of its IOMMU group, through VFIO.
        - Null when that cannot be seen, and with O(obstacles=false).
      type: list
      elements: dict
      contains:
        pid:
          description: The process id.
          type: int
          sample: 4711
        command:
          description: The name of the program.
          type: str
          sample: qemu-system-x86
        domain:
          description: The name of the libvirt domain, or null when it is none.
          type: str
          sample: web01
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
          description: The endpoints that drivers of the host hold.
          type: list
          elements: dict
          contains:
            address:
              description: The address of the endpoint.
              type: str
              sample: "0000:01:10.0"
            driver:
              description: The driver that holds it.
              type: str
              sample: igbvf
        reserved_regions:
          description: The ranges of addresses that are not free for the DMA of these devices.
          type: list
          elements: dict
          contains:
            start:
              description: The first address.
              type: str
              sample: "0xfee00000"
            end:
              description: The last address.
              type: str
              sample: "0xfeefffff"
            type:
              description: The kernel's word for its kind. V(direct) keeps the group with the host.
              type: str
              sample: msi
    physical_slot:
      description: The name of the machine's slot that the device is in, or null when firmware names none.
      type: str
      sample: "3"
    link:
      description: The PCI Express link, or null when nothing is known of one, as for virtual functions.
      type: dict
      contains:
        speed:
          description: The speed now, per lane.
          type: str
          sample: 5.0 GT/s
        width:
          description: The number of lanes now.
          type: int
          sample: 4
        max_speed:
          description: The speed the device is capable of.
          type: str
          sample: 8.0 GT/s
        max_width:
          description: The number of lanes the device is capable of.
          type: int
          sample: 8
        below_maximum:
          description:
            - Whether the link is slower or narrower than the device is capable of. The slot may be the reason, or
              power saving, as with graphics cards that have nothing to do.
          type: bool
    power_state:
      description: The power state, V(D0) when it is on. Null before Linux 5.11.
      type: str
      sample: D0
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
      description: The network interfaces that the device gives the host.
      type: list
      elements: dict
      contains:
        name:
          description: The name.
          type: str
          sample: enp1s16
        mac:
          description: The MAC address it has now.
          type: str
          sample: "52:54:00:12:34:56"
        operstate:
          description: The kernel's word for its state.
          type: str
          sample: up
        uses:
          description:
            - What it carries for the host, itself or through bonds, bridges and VLANs. Empty when nothing is known.
            - Null when that cannot be found out, and with O(obstacles=false).
          type: list
          elements: str
          sample: ["the IPv4 default route (through br0)"]
    block_devices:
      description: The disks that the device gives the host.
      type: list
      elements: dict
      contains:
        name:
          description: The name.
          type: str
          sample: nvme0n1
        size:
          description: The size in bytes.
          type: int
          sample: 512110190592
        model:
          description: The model, or null when the disk names none.
          type: str
          sample: Samsung SSD 970 PRO 512GB
        uses:
          description:
            - What it and its partitions are used for, through LVM, md, dm-crypt and the like. Empty when nothing is
              known.
            - Null when that cannot be found out, and with O(obstacles=false).
          type: list
          elements: str
          sample: ["mounted at / (on vg0-root on nvme0n1p3)"]
    drm:
      description: The names in C(/dev/dri) of a graphics card.
      type: list
      elements: str
      sample: [card0, renderD128]
    xml:
      description: >-
        The attributes C(domain), C(bus), C(slot) and C(function) of an C(<address>) element in libvirt's XML.
      type: dict
      sample: {domain: "0x0000", bus: "0x01", slot: "0x10", function: "0x0"}
undescribed:
  description: Devices that could not be described, most often since they were removed meanwhile.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The address of the device.
      type: str
      sample: "0000:01:10.0"
    code:
      description: V(device_vanished), V(device_not_found), or what else went wrong.
      type: str
      sample: device_vanished
    message:
      description: What was found.
      type: str
unreadable:
  description: What could not be found out, and why; most often root rights are missing.
  returned: success
  type: list
  elements: str
  sample: ["serial: only root can read the configuration space of a device beyond its first 64 bytes"]
tree:
  description: The devices as the hierarchy of buses. Its elements are the root buses.
  returned: when O(tree=true)
  type: list
  elements: dict
  contains:
    bus:
      description: The kernel's name of the root bus.
      type: str
      sample: pci0000:00
    children:
      description:
        - The devices on it, by address. Each has C(address), C(line) (the device in one line), C(iommu_group) (the
          number, or null), C(selected) (false for a bridge that is only on the way to a device that is meant), and
          C(children), which are the devices behind it.
      type: list
      elements: dict
tree_lines:
  description:
    - RV(tree) as lines to print. What is not meant, but on the way to a device that is, stands in parentheses.
  returned: when O(tree=true)
  type: list
  elements: str
  sample:
    - "pci0000:00"
    - "  +- 0000:00:1c.0 [8086:9d10] PCI bridge, driver pcieport, group 4"
    - "  |   +- 0000:01:00.0 [8086:10c9] Ethernet controller, driver igb, interface enp1s0f0, group 12"
    - "  +- 0000:00:1f.0 [8086:9d48] ISA bridge, no driver, group 7"
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._core.module import run_query
from ..module_utils._pci.grammar import selector_argument
from ..module_utils._vfio.info import devices_report


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "devices": selector_argument(required=False),
            "count": {"type": "str"},
            "index": {"type": "int"},
            "obstacles": {"type": "bool", "default": True},
            "tree": {"type": "bool", "default": False},
        },
        mutually_exclusive=[("count", "index")],
        required_by={"count": "devices", "index": "devices"},
        supports_check_mode=True,
    )
    run_query(module, lambda host: devices_report(host, **module.params))


if __name__ == "__main__":
    main()
