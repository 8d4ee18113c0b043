#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: domain_hostdevs
short_description: Give PCI devices of the host to a libvirt domain
version_added: "1.0.0"
description:
  - >-
    Adds, changes and removes the C(<hostdev>) and C(<interface type='hostdev'>) elements of PCI devices of the host
    in the persistent definition of a libvirt domain, in a domain that runs, or in a definition in a file. The rest
    stays as it is: byte for byte in a file, while libvirt adds PCI controllers to the definition of a guest that has no
    free port.
  - >-
    libvirt accepts many wrong hostdevs without a word and fails when the domain is started, or leaves out what it does
    not understand. This module checks what is asked for before it changes anything, and reports all problems together,
    each with a code, the device, the option, its value, and what to do. It checks the options, the whole definition
    as it would be, the schema of the libvirt that is installed on the host, and the host itself. There, the
    device has to exist, be no bridge and nothing that the host lives on (its root disk, the network card that this
    connection comes in by), be an SR-IOV virtual function where it is to be an interface, its IOMMU group and its slot
    have to be complete, no other domain may have it, and it has to be bound to a VFIO driver where
    O(hostdevs[].managed=false). Afterwards the definition is read back and compared.
  - >-
    Elements are changed one by one by libvirt itself, so that a change that somebody else makes to the same domain
    at the same time is not lost, and secrets in the definition are neither read nor shown. A domain is never undefined.
requirements:
  - libvirt 4.10 or newer with its QEMU driver, on the host; with O(path), only its schema, if there is one
  - the Python modules C(libvirt) (not for O(path)) and C(lxml) for a Python of the host
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.change_module
  - kvm.passthrough.attributes.actiongroup
  - kvm.passthrough.libvirt
  - kvm.passthrough.selector.grammar
attributes:
  diff_mode:
    details:
      - The difference shows the elements of the devices, and nothing else of the definition.
options:
  domain:
    description:
      - The name or the UUID of the domain. It has to be persistent, unless O(scope=live).
      - Exactly one of O(domain) and O(path) has to be given, unless O(revert=true).
    type: str
  path:
    description:
      - >-
        A file on the host with the definition of a domain, in UTF-8, to be changed instead of a domain of libvirt.
        libvirt is not asked, so that what other domains have is not known. The file is replaced in one step and keeps
        its mode and owner. One with a document type declaration or with entities is refused.
    type: path
  state:
    description:
      - >-
        With V(present) the domain has a hostdev for each device of O(hostdevs), with the given settings. Settings
        that are not given, and the domain's other hostdevs, stay as they are.
      - With V(absent) the domain has no hostdev for any of these devices. Only O(hostdevs[].device) counts.
      - >-
        With V(exact) the PCI devices of the host that the domain has are exactly these, and have exactly the given
        settings; an O(hostdevs[].kind), O(hostdevs[].guest_address), O(hostdevs[].mac) and O(hostdevs[].zpci) that are
        not given stay as they are. Hostdevs of other kinds (USB, mediated devices, SCSI) and other interfaces, those of
        a network that is a pool of virtual functions included, stay as they are.
    type: str
    choices: [present, absent, exact]
    default: present
  scope:
    description:
      - >-
        With V(config) the persistent definition is changed, which the domain uses from its next start on.
        A domain that runs meanwhile keeps running as it is, and RV(restart_required) says so.
      - >-
        With V(live) the guest that runs is changed, until it stops; devices are plugged in and unplugged, and a device
        whose settings change is unplugged and plugged in again. It is an error when the domain does not run.
      - With V(both) the definition is changed, and before it the guest, if the domain runs.
    type: str
    choices: [config, live, both]
    default: config
  timeout:
    description:
      - >-
        How many seconds a guest that runs has to let a device go. libvirt only asks it to; the module waits until QEMU
        has removed the device, and fails when that takes longer.
    type: int
    default: 60
  hostdevs:
    description:
      - The devices, and how the guest gets them. Required unless O(revert=true).
    type: list
    elements: dict
    suboptions:
      device:
        description:
          - >-
            A selector of the device, as a mapping or a string; the notes describe it. One that means several devices
            gives all of them the same settings.
          - With O(state=absent), an address that the host no longer has is accepted too.
        type: raw
        required: true
      kind:
        description:
          - >-
            Whether the guest gets the device as any PCI device, V(hostdev), or as a network card, V(interface), whose
            MAC address and VLAN libvirt sets up beforehand. The latter has to be an SR-IOV virtual function.
          - When it is not given, a device that the domain has stays what it is, and a new one becomes a V(hostdev).
        type: str
        choices: [hostdev, interface]
      managed:
        description:
          - >-
            Whether libvirt binds the device to a VFIO driver when the domain starts, and gives it back to the host's
            driver when it stops. With V(false), the device has to be bound already
            (see M(kvm.passthrough.vfio_devices)).
        type: bool
        default: true
      assigned:
        description:
          - >-
            With V(false) the device is taken from the host together with the others, but the guest does not get it
            (C(<address type='unassigned'/>), libvirt 6.0). Every function of a device whose functions share an IOMMU
            group has to be listed, so those that the guest shall not have are listed with V(false). An interface is
            always given to the guest.
        type: bool
        default: true
      driver_model:
        description:
          - The VFIO driver that libvirt binds the device to, where it shall not choose by itself (libvirt 10.0).
        type: str
      iommufd:
        description:
          - Whether QEMU uses the device by C(/dev/iommu) instead of by its VFIO group (libvirt 12.2).
        type: bool
      boot_order:
        description:
          - >-
            The place of the device in the boot order, from 1 on. It excludes C(<boot dev=…/>) in C(<os>), which libvirt
            adds to a definition that says nothing about booting.
        type: int
      rom:
        description:
          - The option ROM that the guest sees.
        type: dict
        suboptions:
          enabled:
            description:
              - Whether the guest sees a ROM at all (libvirt 4.3).
            type: bool
          bar:
            description:
              - Whether the device's own ROM is visible in the guest's memory map.
            type: bool
          file:
            description:
              - A file on the host with a ROM image, to be used instead of the device's own.
            type: path
      alias:
        description:
          - A name for the device in the definition. It starts with C(ua-), followed by letters, digits, C(-) and C(_).
        type: str
      acpi_index:
        description:
          - >-
            The ACPI index of the device, from 1 to 16383, after which the guest names a network interface (C(eno1))
            (libvirt 7.3).
        type: int
      guest_address:
        description:
          - >-
            The PCI address at which the guest sees the device, in any notation of a selector's C(address). A mapping
            may also have C(multifunction); without it, function 0 of a guest slot with several functions gets it by
            itself.
          - When it is not given, libvirt chooses one, and keeps it.
        type: raw
      teaming:
        description:
          - >-
            Makes the device the fast one of a pair of network cards of the guest, of which the other one stays when
            this one is unplugged, for a migration say (libvirt 7.1).
        type: dict
        suboptions:
          persistent:
            description:
              - >-
                The alias of the other one, an interface of the domain with C(<teaming type='persistent'/>) and the same
                MAC address.
            type: str
      zpci:
        description:
          - Identifiers of the PCI function in a guest on IBM Z. When they are not given, libvirt chooses them.
        type: dict
        suboptions:
          uid:
            description:
              - The user-defined identifier, hexadecimal, from 0x0001 to 0xffff. A number is its value.
            type: raw
          fid:
            description:
              - The function identifier, hexadecimal, from 0x00000000 to 0xffffffff. A number is its value.
            type: raw
      mac:
        description:
          - >-
            The MAC address of an interface. When it is not given, libvirt makes one up, and keeps it in a definition
            of its own.
        type: str
      vlan:
        description:
          - The number of the VLAN that an interface is in, from 1 to 4094; the guest does not see it.
        type: int
      virtualport:
        description:
          - The port of a switch that an interface is connected to. The switch then chooses the VLAN.
        type: dict
        suboptions:
          type:
            description:
              - The standard. libvirt can set up no other for a device that is passed through.
            type: str
            choices: [802.1Qbh]
            default: 802.1Qbh
          profileid:
            description:
              - The name of the port profile in the switch.
            type: str
            required: true
  revert:
    description:
      - >-
        Take back what this module did to definitions on the host, of libvirt's domains and in files, all of its runs.
        Each gets the hostdevs it had before the first of them, and PCI controllers that libvirt added for them go,
        where nothing else is on them. What somebody else changed since is left alone, with a warning, and is in
        RV(kept).
      - A domain that runs is not touched itself.
      - O(domain), O(path) and O(hostdevs) must be left out. O(uri) does not matter; all libvirts are meant.
    type: bool
    default: false
seealso:
  - module: kvm.passthrough.pci_device_info
  - module: kvm.passthrough.vfio_devices
  - name: Domain XML format, host device assignment
    description: libvirt's description of the element.
    link: https://libvirt.org/formatdomain.html#host-device-assignment
author:
  - kvm.passthrough contributors (@kvm-passthrough)
"""

EXAMPLES = r"""
- name: Give a virtual function to a domain
  kvm.passthrough.domain_hostdevs:
    domain: web01
    hostdevs:
      - device:
          address: "0000:01:10.0"
          expect:
            vendor_id: "8086"
            device_id: "10ca"
  become: true

- name: Give functions 0 and 3 of a card with four functions to a domain, and withhold 1 and 2
  kvm.passthrough.domain_hostdevs:
    domain: web01
    hostdevs:
      - device: "0001:09:00.0"
        guest_address: "05:00.0"
      - device: "0001:09:00.1"
        assigned: false
      - device: "0001:09:00.2"
        assigned: false
      - device: "0001:09:00.3"
        guest_address: "05:00.3"
  become: true

- name: Let the domain have this graphics card and no other PCI device of the host
  kvm.passthrough.domain_hostdevs:
    domain: workstation
    state: exact
    hostdevs:
      - device:
          address: "0a:00.0"
        rom:
          file: /usr/share/vgabios/card.rom
      - device:
          address: "0a:00.1"
  become: true

- name: Give a virtual function to a domain that runs, as a network card in VLAN 42, and to its definition
  kvm.passthrough.domain_hostdevs:
    domain: web01
    scope: both
    hostdevs:
      - device: "0000:01:10.0"
        kind: interface
        mac: "52:54:00:12:34:56"
        vlan: 42
  become: true

- name: Put a device into a definition that libvirt does not know yet
  kvm.passthrough.domain_hostdevs:
    path: /srv/domains/web02.xml
    hostdevs:
      - device: "0000:01:10.2"
  become: true

- name: Take back everything that this module has changed on the host
  kvm.passthrough.domain_hostdevs:
    revert: true
  become: true

- name: Take every PCI device from a domain
  kvm.passthrough.domain_hostdevs:
    domain: web01
    state: exact
    hostdevs: []
  become: true
"""

RETURN = r"""
domain:
  description: The domain.
  returned: with O(domain)
  type: dict
  contains:
    name:
      description: Its name.
      returned: success
      type: str
      sample: web01
    uuid:
      description: Its UUID.
      returned: success
      type: str
      sample: 5e8a0f66-2b1f-4a3f-9d65-1f2a3c4d5e6f
    active:
      description: Whether it runs.
      returned: success
      type: bool
      sample: false
path:
  description: The file.
  returned: with O(path)
  type: str
  sample: /srv/domains/web02.xml
hostdevs:
  description:
    - >-
      The PCI devices of the host that the definition then has (with O(scope=live), the guest that runs), in the order
      of their addresses, with what is said about each.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The address of the device on the host.
      returned: success
      type: str
      sample: "0000:01:10.0"
    kind:
      description: Whether it is a C(<hostdev>) or an C(<interface type='hostdev'>).
      returned: success
      type: str
      sample: hostdev
    managed:
      description: Whether libvirt binds the device by itself.
      returned: success
      type: bool
      sample: true
    assigned:
      description: Whether the guest gets the device.
      returned: for a hostdev
      type: bool
      sample: true
    guest_address:
      description:
        - >-
          Where the guest sees the device. It is null for a device that the guest does not get, and as long as
          libvirt has not chosen an address.
      returned: success
      type: str
      sample: "0000:05:00.0"
    multifunction:
      description: Whether the definition says that the guest's slot has several functions.
      returned: when the definition says it
      type: bool
      sample: true
    driver_model:
      description: The VFIO driver that libvirt shall use.
      returned: when the definition says it
      type: str
      sample: mlx5_vfio_pci
    iommufd:
      description: Whether QEMU uses it by C(/dev/iommu).
      returned: when the definition says it
      type: bool
      sample: true
    boot_order:
      description: The place in the boot order.
      returned: when the definition says it
      type: int
      sample: 1
    rom:
      description: The settings C(enabled), C(bar) and C(file) of the option ROM that the definition has.
      returned: when the definition says it
      type: dict
      sample: {bar: false}
    alias:
      description: The alias.
      returned: when the definition says it
      type: str
      sample: ua-uplink
    acpi_index:
      description: The ACPI index.
      returned: when the definition says it
      type: int
      sample: 7
    teaming:
      description: In C(persistent), the alias of the network card that stays when this one is unplugged.
      returned: when the definition says it
      type: dict
      sample: {persistent: ua-backup}
    mac:
      description: The MAC address.
      returned: for an interface that has one
      type: str
      sample: "52:54:00:12:34:56"
    vlan:
      description: The number of the VLAN; a list of them where the definition has several or a trunk.
      returned: for an interface that has one
      type: raw
      sample: 42
    virtualport:
      description: C(type) and C(profileid) of the port of a switch.
      returned: for an interface that has one
      type: dict
      sample: {type: 802.1Qbh, profileid: web}
    zpci:
      description: The identifiers C(uid) and C(fid) on IBM Z, in hexadecimal.
      returned: when the definition says it
      type: dict
      sample: {uid: "0x0001", fid: "0x00000000"}
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
      sample: add 0000:01:10.0 to the domain web01
    target:
      description: What is changed.
      returned: success
      type: str
      sample: domain web01, hostdev 0000:01:10.0
    before:
      description: The element before the step, or null.
      returned: success
      type: str
      sample: null
    after:
      description: The element after the step, as it is handed to libvirt, or null.
      returned: success
      type: str
      sample: |-
        <hostdev mode="subsystem" type="pci" managed="yes">
          <source>
            <address domain="0x0000" bus="0x01" slot="0x10" function="0x0"/>
          </source>
        </hostdev>
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
      sample: The hostdev 0000:01:10.0 of the domain web01
    left:
      description: The XML that this module had left there, or null for none.
      returned: success
      type: str
      sample: null
    found:
      description: The XML that is there now, or null for none.
      returned: success
      type: str
      sample: <hostdev mode="subsystem" type="pci" managed="no"/>
restart_required:
  description:
    - Whether the domain runs with other PCI hostdevs than are asked for, until it is shut down and started again.
  returned: success
  type: bool
  sample: false
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
      sample: schema_violation
    message:
      description: What is wrong, with which value, and why.
      type: str
      sample: "hostdevs[0] (0000:01:10.0): the schema of this host's libvirt 9.0.0 does not allow it."
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
  sample: add 0000:01:10.0 to the domain web01
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
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.connection import (
    PACKAGES,
    PYTHON_MODULES,
    XML_MODULE,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import (
    REQUIRED_IF,
    argument_spec,
    build,
)
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.revert import build_domains


def main() -> None:
    module = AnsibleModule(
        argument_spec=argument_spec(),
        mutually_exclusive=[("domain", "path")],
        required_if=REQUIRED_IF,
        supports_check_mode=True,
    )
    if module.params["revert"]:
        missing = prefer_python(PYTHON_MODULES)
        run_procedure(module, lambda host: build_domains(host, module.params, missing), name="domain_hostdevs")
    require_python(module, PYTHON_MODULES if module.params["path"] is None else XML_MODULE, PACKAGES)
    run_procedure(module, lambda host: build(host, module.params), name="domain_hostdevs")


if __name__ == "__main__":
    main()
