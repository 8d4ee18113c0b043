#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hostdev_network
short_description: A libvirt network that gives virtual functions of network cards to guests
version_added: "1.0.0"
description:
  - >-
    Defines, changes, starts, stops and removes a libvirt network that is a pool of SR-IOV virtual functions (VFs),
    C(<forward mode='hostdev'>). A guest with C(<interface type='network'><source network='…'/></interface>) gets a free
    VF of it when it starts, with the MAC address of its definition, so that the definition names no device and works on
    every host that has such a pool.
  - >-
    libvirt accepts many pools that no guest can use, and says so only when one is started. This module checks what is
    asked for before it changes anything, and reports all problems together, each with a code, the value, and what to
    do. It looks at the options, at the schema of the libvirt that is installed on the host, and at the host itself.
    There, each device has to be a VF of a network card whose PF has a network interface, nothing else in its IOMMU
    group may be held by a driver of the host, the host must not live on it (the connection that Ansible comes in by),
    it has to be bound to a VFIO driver where O(managed=false), and no domain's definition and no other pool may have
    it. Afterwards the definition is read back and compared.
  - >-
    A network that is there keeps its UUID and whatever else is in its definition. It is never removed to be made anew.
    Networks of other kinds (NAT, bridges) are left alone, with an error.
  - >-
    A pool that guests are using is not stopped. Its definition is changed, and RV(restart_required) says that what is
    active is still the old one. The next run for which no guest uses it starts it anew.
requirements:
  - libvirt 4.10 or newer with its network driver, on the host
  - the Python modules C(libvirt) and C(lxml) for a Python of the host
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.change_module
  - kvm.passthrough.attributes.actiongroup
  - kvm.passthrough.libvirt
  - kvm.passthrough.selector.grammar
options:
  name:
    description:
      - The name of the network. Required unless O(revert=true).
    type: str
  state:
    description:
      - With V(active) the network is defined as given, and started.
      - With V(inactive) it is defined as given, and stopped, which is an error while guests use it.
      - With V(present) it is defined as given, and stays started or stopped as it is; a new one is not started.
      - With V(absent) it is stopped and its definition removed, which is an error while guests use it.
    type: str
    choices: [present, absent, active, inactive]
    default: active
  autostart:
    description:
      - >-
        Whether the network is started together with libvirt, at boot. When it is not given, it stays as it is, and a
        new network is started then exactly with O(state=active).
      - The VFs have to be there by then.
    type: bool
  pf:
    description:
      - >-
        A selector of the physical function (PF) whose VFs are given, all that it has when the network is started. The
        notes describe it; a string is an address, ids, or the name of its network interface.
      - >-
        One of O(pf) and O(devices) is needed for a new network. The given one takes the place of what the network has;
        when neither is given, that stays. They exclude each other, since libvirt forgets the PF of a network that also
        lists VFs.
    type: raw
  devices:
    description:
      - >-
        Selectors of the VFs that are given, and no others. The notes describe what a selector is. One that means
        several devices, as V({pf: {interface: enp1s0}, vf: [0, 1]}), gives them all.
    type: list
    elements: raw
  managed:
    description:
      - >-
        Whether libvirt binds a VF to a VFIO driver when a guest gets it, and gives it back to the host's driver
        afterwards. With V(false), the VFs have to be bound already (see M(kvm.passthrough.vfio_devices)).
    type: bool
    default: true
  driver_model:
    description:
      - The VFIO driver that libvirt binds the VFs to, where it shall not choose by itself (libvirt 10.0).
    type: str
  vlan:
    description:
      - >-
        The number of the VLAN, from 1 to 4094, that the card puts the guests' packets into. V(0) takes a VLAN out of
        the definition. When it is not given, it stays as it is.
      - >-
        libvirt's definition may have several VLANs, a trunk and native modes, but for a VF it then refuses to start the
        guest. So there is one number here, and a definition with more is an error until O(vlan) is given.
    type: int
  virtualport:
    description:
      - >-
        The port profile of the switch, where that sets the network up (IEEE 802.1Qbh, as of Cisco VM-FEX). It excludes
        O(vlan). libvirt refuses to start a guest with a VF that has a profile of another kind. When it is not given, it
        stays as it is.
    type: dict
    suboptions:
      type:
        description:
          - The kind; V(none) takes it out of the definition.
        type: str
        choices: ["802.1Qbh", none]
        default: "802.1Qbh"
      profileid:
        description:
          - The name of the port profile.
        type: str
  portgroups:
    description:
      - >-
        Port groups, all that the network shall have. A guest's interface may name one
        (C(<source network='…' portgroup='…'/>)) and then has its settings in place of those of the network. When it is
        not given, they stay as they are.
    type: list
    elements: dict
    suboptions:
      name:
        description:
          - The name.
        type: str
        required: true
      default:
        description:
          - Whether interfaces that name no port group have this one.
        type: bool
        default: false
      vlan:
        description:
          - The number of the VLAN; without it that of the network holds.
        type: int
      virtualport:
        description:
          - The port profile of the switch; without it that of the network holds.
        type: dict
        suboptions:
          type:
            description:
              - The kind.
            type: str
            choices: ["802.1Qbh", none]
            default: "802.1Qbh"
          profileid:
            description:
              - The name of the port profile.
            type: str
  revert:
    description:
      - >-
        Take back what this module did on the host, all of its runs. Networks that are there because of it are removed,
        and others get the definition, the autostart and the activity they had before the first of them. What somebody
        else changed since is left alone, with a warning, and is in RV(kept).
      - It is an error while guests use a network that would have to be stopped.
      - Other options must be left out. O(uri) does not matter; all libvirts are meant.
    type: bool
    default: false
seealso:
  - module: kvm.passthrough.domain_hostdevs
  - module: kvm.passthrough.pci_device_info
  - name: Network XML format
    description: libvirt's description of networks.
    link: https://libvirt.org/formatnetwork.html
author:
  - kvm.passthrough contributors (@kvm-passthrough)
"""

EXAMPLES = r"""
- name: Give all VFs of a card to whatever guest asks for one
  kvm.passthrough.hostdev_network:
    name: vf-pool
    pf: enp1s0
  become: true

- name: A pool of two VFs, with a VLAN for most guests and another one for those that ask for it
  kvm.passthrough.hostdev_network:
    name: vf-pool
    devices:
      - pf:
          address: "0000:01:00.0"
          expect:
            vendor_id: "8086"
            device_id: "10c9"
        vf: [0, 1]
    vlan: 42
    portgroups:
      - name: storage
        vlan: 43
  become: true

- name: Take back everything that this module has changed on the host
  kvm.passthrough.hostdev_network:
    revert: true
  become: true

- name: Remove the pool
  kvm.passthrough.hostdev_network:
    name: vf-pool
    state: absent
  become: true
"""

RETURN = r"""
network:
  description: The network, as it then is. It is null with O(state=absent) and with O(revert=true).
  returned: success
  type: dict
  contains:
    name:
      description: Its name.
      returned: success
      type: str
      sample: vf-pool
    uuid:
      description: Its UUID. It is null for a network that is new, since libvirt chooses it.
      returned: success
      type: str
      sample: 5e8a0f66-2b1f-4a3f-9d65-1f2a3c4d5e6f
    active:
      description: Whether it is started.
      returned: success
      type: bool
      sample: true
    autostart:
      description: Whether it is started with libvirt.
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
      sample: {type: 802.1Qbh, profileid: web}
    portgroups:
      description: The port groups, by name, each with C(name), C(default), C(vlan) and C(virtualport).
      returned: success
      type: list
      elements: dict
      sample: [{name: storage, default: false, vlan: 43, virtualport: null}]
vfs:
  description: The VFs that guests can get, in bus order. Empty with O(state=absent).
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The address of the VF on the host.
      returned: success
      type: str
      sample: "0000:01:10.0"
    pf:
      description: The address of its PF.
      returned: success
      type: str
      sample: "0000:01:00.0"
    driver:
      description: The driver it is bound to, or null.
      returned: success
      type: str
      sample: igbvf
    iommu_group:
      description: Its IOMMU group, or null.
      returned: success
      type: int
      sample: 15
    used_by:
      description: The domain that has it from this network now, or null. A libvirt before 5.5 does not tell.
      returned: success
      type: str
      sample: web01
connections:
  description: The number of guest interfaces that have a VF of the network, when the module looked.
  returned: success
  type: int
  sample: 1
used_by:
  description: >-
    The domains whose interfaces these are. A libvirt before 5.5 does not tell; each of them is C(a guest) then.
  returned: success
  type: list
  elements: str
  sample: [web01]
referenced_by:
  description: The domains whose definitions have an interface of the network, running or not.
  returned: success
  type: list
  elements: str
  sample: [web01, web02]
kept:
  description: With O(revert=true), what was not taken back because somebody else changed it since.
  returned: success, with O(revert=true)
  type: list
  elements: dict
  contains:
    target:
      description: What it is.
      returned: success
      type: str
      sample: The network vf-pool
    left:
      description: The XML that this module had left there, or null for none.
      returned: success
      type: str
      sample: null
    found:
      description: The XML that is there now, or null for none.
      returned: success
      type: str
      sample: <network/>
restart_required:
  description:
    - >-
      Whether the active network is not what is defined, since guests are using it. It is started anew by the next run
      for which none does.
  returned: success
  type: bool
  sample: false
actions:
  description: What was done, or in check mode would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    description:
      description: The step in words.
      returned: success
      type: str
      sample: define the network vf-pool
    target:
      description: What is changed.
      returned: success
      type: str
      sample: network vf-pool
    before:
      description: The definition before the step (null for none), C(active) or C(inactive), or whether it autostarts.
      returned: success
      type: raw
      sample: null
    after:
      description: The same after the step; of a definition, as it is handed to libvirt.
      returned: success
      type: raw
      sample: |-
        <network>
          <name>vf-pool</name>
          <forward mode="hostdev" managed="yes">
            <pf dev="enp1s0"/>
          </forward>
        </network>
problems:
  description: >-
    Everything that stands against the request, or what went wrong. docs/troubleshooting.md explains the codes.
  returned: failure
  type: list
  elements: dict
  contains:
    code:
      description: What kind of problem it is, for programs.
      type: str
      sample: network_in_use
    message:
      description: What is wrong, with which value, and why.
      type: str
      sample: "The network vf-pool cannot be stopped: web01 has an interface of it."
    remedy:
      description: What to do about it.
      type: str
    device:
      description: The PCI address of the device, for problems that are about one.
      type: str
      sample: "0000:01:10.0"
    field:
      description: The option, for problems that are about one.
      type: str
    value:
      description: The value that option has.
      type: raw
failed_action:
  description: The step that failed, in words; null when all steps were made but did not hold.
  returned: failure, after something was changed
  type: str
  sample: define the network vf-pool
undone:
  description: The steps that were undone, in words, in that order.
  returned: failure, after something was changed
  type: list
  elements: str
not_undone:
  description: >-
    The steps that could not be undone. C(message) says which it is and why, C(target) what is left changed, C(before)
    what was there, and C(after) what the step was to leave.
  returned: failure, after something was changed
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.kvm.passthrough.plugins.module_utils._core.module import (
    prefer_python,
    require_python,
    run_procedure,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import PACKAGES, PYTHON_MODULES
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_network import (
    REQUIRED_IF,
    argument_spec,
    build,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.revert import build_networks


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), required_if=REQUIRED_IF, supports_check_mode=True)
    if module.params["revert"]:
        missing = prefer_python(PYTHON_MODULES)
        run_procedure(module, lambda host: build_networks(host, module.params, missing), name="hostdev_network")
    require_python(module, PYTHON_MODULES, PACKAGES)
    run_procedure(module, lambda host: build(host, module.params), name="hostdev_network")


if __name__ == "__main__":
    main()
