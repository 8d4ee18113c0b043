#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hostdev_info
short_description: Tell which guest has which PCI device of a host, and what is wrong with that
version_added: "1.0.0"
description:
  - >-
    Describes every libvirt domain of a host with the PCI devices that it has by C(<hostdev>) or
    C(<interface type='hostdev'>), every network that gives virtual functions (VFs) to guests, and every device that one
    of them has, with all who have it.
  - >-
    Checks all of them by the rules of M(kvm.passthrough.domain_hostdevs) and M(kvm.passthrough.hostdev_network), as if
    each device was asked for now. So it finds definitions that libvirt took without a word and that will not start,
    devices that are gone, devices that two domains have, devices without the rest of their IOMMU group, devices that
    the host lives on. Where M(kvm.passthrough.vfio_devices) bound a device, it also finds another one at its address.
  - >-
    With O(path) it checks definitions in files instead, without libvirt, by what can be known without the host that
    they are for. So it can run on the controller, or in continuous integration.
  - It fails only when nothing can be said at all. What is wrong is in RV(problems).
requirements:
  - the Python modules C(libvirt) (not with O(path)) and C(lxml) for a Python of the host
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.info_module
  - kvm.passthrough.attributes.actiongroup
  - kvm.passthrough.libvirt
options:
  uri:
    description:
      - How to reach libvirt's QEMU driver on this host. It is not used with O(path).
  path:
    description:
      - >-
        Files, or folders, whose files that end in C(.xml) are read, and those of the folders in them. Each file has one
        C(<domain>) or one C(<network>). What else is in a folder is left out.
    type: list
    elements: path
notes:
  - Run it as root. Without root rights it answers what libvirt tells it; RV(unreadable) has what it could not read.
seealso:
  - module: kvm.passthrough.domain_hostdevs
  - module: kvm.passthrough.hostdev_network
  - module: kvm.passthrough.pci_device_info
author:
  - kvm.passthrough contributors (@kvm-passthrough)
"""

EXAMPLES = r"""
- name: See who has what
  kvm.passthrough.hostdev_info:
  become: true
  register: found

- name: Fail with everything that is wrong
  ansible.builtin.assert:
    that: found.ok
    fail_msg: "{{ found.problems | map(attribute='message') | join('\n') }}"

- name: Check the definitions of a repository, on the controller
  kvm.passthrough.hostdev_info:
    path: "{{ playbook_dir }}/domains"
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
domains:
  description: The domains, by name (with O(path), by path).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      returned: success
      type: str
      sample: web01
    uuid:
      description: The UUID; null where a file has none.
      returned: success
      type: str
      sample: 5e8a0f66-2b1f-4a3f-9d65-1f2a3c4d5e6f
    path:
      description: The file, with O(path); otherwise null.
      returned: success
      type: str
      sample: null
    active:
      description: Whether it runs; null with O(path).
      returned: success
      type: bool
      sample: true
    persistent:
      description: Whether it has a definition that outlives it; null with O(path).
      returned: success
      type: bool
      sample: true
    hostdevs:
      description: >-
        The PCI devices of the host in its definition, as M(kvm.passthrough.domain_hostdevs) returns them: C(address),
        C(kind), and what else is said about each.
      returned: success
      type: list
      elements: dict
      sample: [{address: "0000:01:10.0", kind: hostdev, managed: true, guest_address: "0000:05:00.0"}]
    running_with:
      description: The addresses of the devices that it runs with, those from a network included.
      returned: success
      type: list
      elements: str
      sample: ["0000:01:10.0"]
    restart_required:
      description: Whether it runs with other devices than its definition has.
      returned: success
      type: bool
      sample: false
    networks:
      description: The names of the networks that its interfaces belong to.
      returned: success
      type: list
      elements: str
      sample: [vf-pool]
    codes:
      description: The codes of its problems.
      returned: success
      type: list
      elements: str
      sample: []
networks:
  description: The networks that are pools of VFs, by name (with O(path), by path).
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name.
      returned: success
      type: str
      sample: vf-pool
    uuid:
      description: The UUID; null where a file has none.
      returned: success
      type: str
      sample: 5e8a0f66-2b1f-4a3f-9d65-1f2a3c4d5e70
    path:
      description: The file, with O(path); otherwise null.
      returned: success
      type: str
      sample: null
    active:
      description: Whether it is started; null with O(path).
      returned: success
      type: bool
      sample: true
    autostart:
      description: Whether it is started with libvirt; null with O(path).
      returned: success
      type: bool
      sample: true
    managed:
      description: Whether libvirt binds the VFs by itself.
      returned: success
      type: bool
      sample: true
    pf:
      description: The network interface of the PF whose VFs are given, or null.
      returned: success
      type: str
      sample: enp1s0
    addresses:
      description: The addresses of the VFs that the definition lists. It is null for a pool of a PF.
      returned: success
      type: list
      elements: str
      sample: null
    driver_model:
      description: The VFIO driver that libvirt shall use, or null.
      returned: success
      type: str
      sample: null
    vlan:
      description: The VLAN, or null. Of a definition with several it is text that names them.
      returned: success
      type: raw
      sample: 42
    virtualport:
      description: The C(type) of the virtual port and its parameters, or null.
      returned: success
      type: dict
      sample: null
    portgroups:
      description: The port groups, as M(kvm.passthrough.hostdev_network) returns them.
      returned: success
      type: list
      elements: dict
      sample: []
    vfs:
      description: The addresses of the VFs that it can give; with O(path), those that it lists.
      returned: success
      type: list
      elements: str
      sample: ["0000:01:10.0", "0000:01:10.2"]
    used_by:
      description: The domains that have a VF of it now.
      returned: success
      type: list
      elements: str
      sample: [web01]
    codes:
      description: The codes of its problems.
      returned: success
      type: list
      elements: str
      sample: []
devices:
  description: Every device that a domain or a pool has, in bus order.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The address.
      returned: success
      type: str
      sample: "0000:01:10.0"
    owners:
      description: Who has it.
      returned: success
      type: list
      elements: dict
      contains:
        kind:
          description: V(domain) or V(network).
          returned: success
          type: str
          sample: domain
        name:
          description: The name.
          returned: success
          type: str
          sample: web01
        how:
          description: >-
            V(hostdev) or V(interface) of a domain, V(network) when a domain has it from a pool now, V(pool) of a pool
            that can give it.
          returned: success
          type: str
          sample: hostdev
        configured:
          description: Whether a definition says so.
          returned: success
          type: bool
          sample: true
        running:
          description: Whether the domain runs with it, or the network is started.
          returned: success
          type: bool
          sample: true
    conflict:
      description: >-
        Whether several have it that could not all have it at once. With O(path) they may be for different hosts.
      returned: success
      type: bool
      sample: false
    present:
      description: Whether the host has a device there; null with O(path), like the following fields.
      returned: success
      type: bool
      sample: true
    description:
      description: The device in one line, or null.
      returned: success
      type: str
      sample: "0000:01:10.0 [8086:10ca] Ethernet controller, driver vfio-pci, group 15"
    driver:
      description: The driver that it is bound to, or null.
      returned: success
      type: str
      sample: vfio-pci
    iommu_group:
      description: Its IOMMU group, or null.
      returned: success
      type: int
      sample: 15
problems:
  description: >-
    Everything that is wrong, each with further fields, such as C(device), C(field), C(value), where they make sense.
    docs/troubleshooting.md explains the codes.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description: What kind of problem it is, for programs.
      returned: success
      type: str
      sample: device_not_found
    message:
      description: What is wrong, and why.
      returned: success
      type: str
      sample: "web01, hostdev (0000:01:10.0): there is no such PCI device on this host."
    remedy:
      description: What to do; it may be empty.
      returned: success
      type: str
      sample: Look at kvm.passthrough.pci_device_info; addresses move when hardware is added or removed.
    where:
      description: What it is about; a file that cannot be read is V(file) and its path.
      returned: success
      type: str
      sample: domain web01
    path:
      description: The file, with O(path); otherwise null.
      returned: success
      type: str
      sample: null
ok:
  description: Whether there are no problems.
  returned: success
  type: bool
  sample: false
unreadable:
  description: What could not be read, most often for want of root rights.
  returned: success
  type: list
  elements: str
  sample: [/var/lib/kvm-passthrough/state.json]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kvm.passthrough.plugins.module_utils._core.module import require_python, run_query
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import (
    PACKAGES,
    PYTHON_MODULES,
    XML_MODULE,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_info import (
    argument_spec,
    hostdev_report,
)


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    if module.params["path"] is None:
        require_python(module, PYTHON_MODULES, PACKAGES)
    else:
        require_python(module, XML_MODULE, "python3-lxml")
    run_query(module, lambda host: hostdev_report(host, module.params))


if __name__ == "__main__":
    main()
