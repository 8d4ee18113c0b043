#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: sriov_vfs
short_description: Make and set the virtual functions of SR-IOV devices
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - >-
    Sets how many virtual functions (VFs) the physical functions (PFs) of a host have, and MAC address, VLAN, trust and
    the like of each. It does so now, and with O(persistent=true) at every boot, before the network is configured and
    before libvirt starts.
  - >-
    All PFs of a run are one transaction. Everything that stands against it is reported before anything is
    touched; when a step fails, all PFs are brought back to what they had.
  - >-
    The kernel changes a number of VFs only by removing all that a PF has. So this is refused while one of them is
    in use, with the codes of M(kvm.passthrough.vfio_devices). V(in_use_by_domain) means that a running virtual machine
    has it; V(management_network) that its interface carries an address, a default route or the SSH connection of the
    host; V(boot_disk) that the host uses a disk behind it.
    Changing settings of a VF is refused for the same reasons, but trust, spoof check, rates and link state may be
    changed while a virtual machine runs. Domains that are defined with a VF that will be gone are named in a warning.
  - >-
    Afterwards VFs are addressed by their PF and their index, as in V({pf: {address: "0000:01:00.0"}, vf: [0, 1]}).
    M(kvm.passthrough.vfio_devices) binds them to VFIO.
  - >-
    No IOMMU is needed for this, since containers can use VFs, too.
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.change_module
  - kvm.passthrough.attributes.actiongroup
  - kvm.passthrough.selector.grammar
options:
  pfs:
    description:
      - The physical functions, and what each is to have. Others are left alone.
      - Required unless O(revert=true).
    type: list
    elements: dict
    suboptions:
      pf:
        description:
          - >-
            A selector of the physical function. The notes describe what a selector is. One with C(count) means several,
            all of which get the same.
        type: raw
        required: true
      count:
        description:
          - How many VFs it has. V(0) removes them all.
          - >-
            When the number changes, all VFs are made anew, and what is not in O(pfs[].vfs) is as the driver has it.
        type: int
        required: true
      drivers_autoprobe:
        description:
          - >-
            Whether drivers of the host may have VFs that are made from now on (C(sriov_drivers_autoprobe)). For VFs
            that containers or the host itself use, set this to V(true).
          - >-
            Without it, they may not as long as O(pfs[].count) is not V(0), so that no driver of the host ever touches a
            VF that is meant for a guest. A VFIO driver may have them even so. With O(pfs[].count=0), it becomes what it
            was before this module changed it.
        type: bool
      vfs:
        description:
          - >-
            Settings of VFs of a network card or an NVMe drive. What is left out is left as it is. Several entries may
            name the same VF, as long as they do not contradict each other.
        type: list
        elements: dict
        default: []
        suboptions:
          vf:
            description:
              - Which VFs, as an index from 0 on, a list of indices, or V(all).
            type: raw
            required: true
          mac:
            description:
              - >-
                The MAC address, in quotes. A guest finds it in its VF and, unless O(pfs[].vfs[].trust), cannot change
                it. Where the host sets none, most drivers choose another one at random every time the VF is made.
            type: str
          vlan:
            description:
              - >-
                The VLAN that the card adds to all packets of the VF and takes away from those to it, V(1) to V(4094),
                or V(0) for none. The guest sees nothing of it.
            type: int
          vlan_qos:
            description:
              - The priority in the VLAN's tag, V(0) to V(7). V(0) where it is left out beside O(pfs[].vfs[].vlan).
            type: int
          vlan_protocol:
            description:
              - The kind of the VLAN's tag. V(802.1q) where it is left out beside O(pfs[].vfs[].vlan).
            type: str
            choices: [802.1q, 802.1ad]
          trust:
            description:
              - Whether the guest may do more with the VF, such as changing its MAC address or receiving all packets.
            type: bool
          spoof_check:
            description:
              - Whether the card drops packets whose sender is another address than that of the VF.
            type: bool
          min_tx_rate:
            description:
              - The rate in Mbit/s that the VF may send at least, V(0) for none.
            type: int
          max_tx_rate:
            description:
              - The rate in Mbit/s that the VF may send at most, V(0) for no limit.
            type: int
          link_state:
            description:
              - >-
                The link that the VF sees. With V(auto) it is that of the card. With V(enable) it is always up, so that
                VFs of a card without a cable reach each other.
            type: str
            choices: [auto, enable, disable]
          queues:
            description:
              - >-
                Of an NVMe drive, how many queues the VF has (VQ resources), one of which is for administration.
                With O(pfs[].vfs[].interrupts) they are what a VF of a drive with flexible resources needs before a
                guest can use it; it is then brought online. V(0) takes all from it. Needs C(nvme) (nvme-cli).
            type: int
          interrupts:
            description:
              - Of an NVMe drive, how many interrupts the VF has (VI resources). Goes with O(pfs[].vfs[].queues).
            type: int
  persistent:
    description:
      - >-
        Whether all this is so at every boot, too. That takes a unit of systemd, C(kvm-passthrough-sriov.service), which
        knows a PF by its address and ids.
      - With V(false), it is so until the next boot, and what an earlier run made persistent for these PFs is removed.
    type: bool
    default: true
  force:
    description:
      - Codes of reasons to go ahead all the same. What has no code here cannot be forced.
    type: list
    elements: str
    choices:
      - boot_disk
      - in_use_by_domain
      - management_network
    default: []
  timeout:
    description:
      - >-
        How many seconds a driver may take to make or remove the VFs of a PF. When it takes longer, the module fails
        with RV(ignore:reboot_required=true) and leaves that PF as it is.
    type: int
    default: 120
  revert:
    description:
      - >-
        Take back what this module did on the host, all of its runs. Each PF gets the number of VFs it had before the
        first of them, and its VFs the settings they had, and nothing of it is left for the next boot. What somebody
        else changed since is left alone, with a warning, and is in RV(kept).
      - O(pfs) must be left out.
    type: bool
    default: false
seealso:
  - module: kvm.passthrough.pci_device_info
  - module: kvm.passthrough.vfio_devices
"""

EXAMPLES = r"""
- name: Four virtual functions for guests, now and at every boot
  kvm.passthrough.sriov_vfs:
    pfs:
      - pf: {address: "0000:01:00.0", expect: {vendor_id: "8086", device_id: "10c9"}}
        count: 4
        vfs:
          - {vf: all, spoof_check: true}
          - {vf: 0, mac: "52:54:00:00:01:00", vlan: 100}
          - {vf: 1, mac: "52:54:00:00:01:01", vlan: 100, trust: true}
  become: true

- name: Two of them to VFIO
  kvm.passthrough.vfio_devices:
    devices:
      - pf: {address: "0000:01:00.0"}
        vf: [0, 1]
  become: true

- name: Eight on each card of a kind, for containers
  kvm.passthrough.sriov_vfs:
    pfs:
      - pf: {vendor_id: "15b3", device_id: "1017", count: all}
        count: 8
        drivers_autoprobe: true
  become: true

- name: Take back everything that this module has changed on the host
  kvm.passthrough.sriov_vfs:
    revert: true
  become: true

- name: Two virtual NVMe controllers with a queue and an interrupt for each of two processors
  kvm.passthrough.sriov_vfs:
    pfs:
      - pf: {vendor_id: "144d", device_id: "a824"}
        count: 2
        vfs:
          - {vf: all, queues: 3, interrupts: 2}
  become: true

- name: None any more
  kvm.passthrough.sriov_vfs:
    pfs:
      - pf: {interface: enp1s0}
        count: 0
  become: true
"""

RETURN = r"""
pfs:
  description: The PFs of this run in the order of O(pfs). In check mode it is what a run would return.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The PCI address.
      type: str
      sample: "0000:01:00.0"
    name:
      description: The name its selector has, or null.
      type: str
      sample: uplink
    ids:
      description: Vendor and device id.
      type: str
      sample: "8086:10c9"
    interface:
      description: The network interface through which its VFs are set, or null.
      type: str
      sample: enp1s0
    controller:
      description: The NVMe controller through which its VFs are set, or null.
      type: str
      sample: nvme0
    totalvfs:
      description: How many VFs it can have.
      type: int
      sample: 7
    before:
      description: What it had before.
      type: dict
      contains: &state
        count:
          description: How many VFs it has.
          type: int
          sample: 4
        drivers_autoprobe:
          description: Whether drivers of the host may have new VFs.
          type: bool
          sample: false
    after:
      description: What it has now.
      type: dict
      contains: *state
    vfs:
      description: The VFs it has now.
      type: list
      elements: dict
      contains:
        vf:
          description: Its index.
          type: int
          sample: 0
        address:
          description: >-
            The PCI address; in check mode, of a VF that is still to be made, what the card announces. Null where that
            is not known.
          type: str
          sample: "0000:01:10.0"
        settings:
          description: >-
            The settings that were asked for, under the names of O(pfs[].vfs), with what goes with them.
          type: dict
          sample: {mac: "52:54:00:00:01:00", vlan: 100, vlan_qos: 0, vlan_protocol: 802.1q}
    persistent:
      description: Whether all this is made at every boot.
      type: bool
      sample: true
kept:
  description: With O(revert=true), what was not taken back because somebody else changed it since.
  returned: success, with O(revert=true)
  type: list
  elements: dict
  contains:
    target:
      description: What it is.
      type: str
      sample: The number of virtual functions of 0000:01:00.0
    left:
      description: What this module had left there.
      type: raw
      sample: {count: 4, drivers_autoprobe: false}
    found:
      description: What is there now.
      type: raw
      sample: {count: 2, drivers_autoprobe: false}
actions:
  description: What was done, or in check mode would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    description:
      description: The step in words.
      type: str
      sample: make 4 virtual functions of 0000:01:00.0
    target:
      description: What is changed, a PF, a VF or a file.
      type: str
      sample: "0000:01:00.0"
    before:
      description: What was there before; of a VF that is made in this run, null.
      type: raw
      sample: {count: 0, drivers_autoprobe: true}
    after:
      description: What is there afterwards.
      type: raw
      sample: {count: 4, drivers_autoprobe: false}
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
      sample: count_exceeds_totalvfs
    message:
      description: What is wrong, with which value, and why.
      type: str
      sample: "pfs[0]: 8 virtual functions of 0000:01:00.0 are asked for, and it can have 7 (sriov_totalvfs)."
    remedy:
      description: What to do about it.
      type: str
    device:
      description: The PCI address of the device, for problems that are about one.
      type: str
      sample: "0000:01:00.0"
    vf:
      description: The index of the VF, for problems that are about settings of one.
      type: int
      sample: 0
    settings:
      description: The names of the settings it is about.
      type: list
      elements: str
      sample: [min_tx_rate]
    forcible:
      description: Whether O(force) can overrule it, for reasons of the host against a device.
      type: bool
      sample: true
reboot_required:
  description:
    - The kernel did not finish what it was told in O(timeout) seconds. The device hangs until the host is rebooted.
  returned: failure, when that is so
  type: bool
  sample: true
failed_action:
  description: The step that failed, in words; null when all steps were made but did not hold.
  returned: failure, after something was changed
  type: str
  sample: make 4 virtual functions of 0000:01:00.0
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

from ..module_utils._core.module import run_procedure
from ..module_utils._sriov.revert import build_any
from ..module_utils._sriov.settings import LINK_STATES, VLAN_PROTOCOLS
from ..module_utils._sriov.virtual_functions import FORCIBLE_CODES


def main() -> None:
    """Run the module."""
    vf = {
        "vf": {"type": "raw", "required": True},
        "mac": {"type": "str"},
        "vlan": {"type": "int"},
        "vlan_qos": {"type": "int"},
        "vlan_protocol": {"type": "str", "choices": list(VLAN_PROTOCOLS)},
        "trust": {"type": "bool"},
        "spoof_check": {"type": "bool"},
        "min_tx_rate": {"type": "int"},
        "max_tx_rate": {"type": "int"},
        "link_state": {"type": "str", "choices": list(LINK_STATES)},
        "queues": {"type": "int"},
        "interrupts": {"type": "int"},
    }
    pf = {
        "pf": {"type": "raw", "required": True},
        "count": {"type": "int", "required": True},
        "drivers_autoprobe": {"type": "bool"},
        "vfs": {"type": "list", "elements": "dict", "default": [], "options": vf},
    }
    module = AnsibleModule(
        argument_spec={
            "pfs": {"type": "list", "elements": "dict", "options": pf},
            "persistent": {"type": "bool", "default": True},
            "force": {"type": "list", "elements": "str", "choices": list(FORCIBLE_CODES), "default": []},
            "timeout": {"type": "int", "default": 120},
            "revert": {"type": "bool", "default": False},
        },
        required_if=[("revert", False, ("pfs",))],
        supports_check_mode=True,
    )
    run_procedure(module, lambda host: build_any(host, module.params), name="sriov_vfs")


if __name__ == "__main__":
    main()
