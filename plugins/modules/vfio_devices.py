#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vfio_devices
short_description: Give PCI devices to guests, or back to the host
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - >-
    Binds PCI devices to a VFIO driver (C(vfio-pci), or one that is made for the device), so that virtual machines can
    use them, or gives them back to the driver they had.
    It does so now, and with O(persistent=true) at every boot, before the host's own driver can have them.
  - >-
    All devices of a run are one transaction. Everything that stands against it is reported before anything is
    touched; all devices are taken from their drivers before the first gets its new one; when a step fails, all devices
    are brought back to what they had, and where that is not possible, RV(ignore:not_undone) says so.
  - >-
    What is told to the kernel has a time limit (O(timeout)). A driver that does not let go of a device, mostly because
    something still uses it, makes the run fail with RV(ignore:reboot_required=true) instead of waiting for ever. When
    what used the device ends, another run goes on from there; otherwise only a reboot of the host helps.
  - >-
    A device is known by its address and its ids. Where another device is in the place of one that this module bound,
    it is refused with the code V(identity_mismatch), and no setting for the next boot touches it. A selector that says
    which device is meant (C(vendor_id) and C(device_id), C(serial) or C(mac), also in C(expect)) binds the new one.
    What is remembered of a device that is gone is returned in RV(stale), with a warning, until a run is about its
    address or has O(exclusive=true).
  - >-
    A device is refused when the host cannot do without it. The reasons have codes, which are in RV(ignore:problems).
    V(boot_disk) means that a mounted file system, swap space or an active volume is on it, through whatever layers, or
    that a program writes to its disk; V(management_network) that it carries an address, a default route or the SSH
    connection of the host, through whatever is stacked on its interface; V(console_display) that the host booted with
    it as its display, or draws its console into its memory; V(display_in_use) that a program has it open as a graphics
    card; V(usb_in_use) that all keyboards of the host are behind it; V(in_use_by_domain) that a running virtual machine
    uses it; V(has_vfs) that it is a physical function with virtual functions; V(system_device) that it is a part of the
    platform, such as a memory controller; V(bridge) that it is a PCI bridge; V(no_iommu) that it is in no IOMMU group;
    V(group_not_viable) that others of its IOMMU group are not listed.
  - >-
    Two reasons are no danger to the host, but the kernel would refuse the device when a guest is started with it.
    V(no_interrupt_remapping) means that the IOMMU does not remap interrupts and VFIO was not told to do without;
    V(reserved_region) that the firmware keeps memory mapped for a device of its IOMMU group.
  - >-
    A device that the kernel cannot reset (V(no_reset) in M(kvm.passthrough.pci_device_info)) is bound with a warning.
    So is a device released with which a domain is defined that does not start while the host has it (C(managed='no')).
  - >-
    Where the IOMMU group of a device shows only when a driver probes the device (Arm, before Linux 6.15), this module
    says so in a warning, binds the device, looks at its group, and takes everything back when the group is not
    complete or there is none.
  - >-
    The kernel is told by C(driver_override), per device, so identical devices are told apart and no vendor and device
    ids are claimed as a whole.
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.change_module
  - kvm.passthrough.attributes.actiongroup
  - kvm.passthrough.selector
  - kvm.passthrough.selector.grammar
options:
  devices:
    description:
      - The devices of O(state), as a list of selectors. The notes describe what a selector is.
      - >-
        An empty list is of use with O(exclusive=true), which then gives back everything.
      - >-
        A device that this module took from the host is still found by the network interface and the MAC address
        it had there.
    type: list
    elements: raw
    required: true
  state:
    description:
      - With V(bound), the devices are bound to O(driver).
      - >-
        With V(released), they go back to the driver they had before this collection bound them, or to the one the
        kernel chooses where this collection did not bind them or that driver is gone (a warning says so), and are no
        longer bound at boot. A device that somebody else gave back meanwhile keeps the driver it has.
    type: str
    choices: [bound, released]
    default: bound
  driver:
    description:
      - >-
        The VFIO driver to bind to, V(vfio-pci) or the name of a variant driver for the devices, such as
        V(mlx5_vfio_pci). C(-) and C(_) are the same here.
      - >-
        With V(auto), each device gets the best driver there is for it, by the rule libvirt has since version 10.0 for
        C(managed='yes'). That is the variant driver whose line in C(modules.alias) fits the device most narrowly, or
        V(vfio-pci) where no line of another driver does, or where that driver's module is not installed. Such drivers
        can do what V(vfio-pci) cannot, such as migrate a running guest.
      - >-
        With V(auto), a device that already has a VFIO driver, whichever, keeps it, also at every boot. A warning says
        when it has V(vfio-pci) and there is a better one; to name that one here changes it.
    type: str
    default: auto
  exclusive:
    description:
      - >-
        Also release every device that this collection bound before and O(devices) does not name, and forget those that
        are gone (RV(stale)).
        Devices that somebody else bound are left alone.
      - Only with O(state=bound).
    type: bool
    default: false
  group:
    description:
      - >-
        What becomes of the other devices of an IOMMU group (bridges aside), which cannot be used by the host and
        a guest at the same time.
      - >-
        With V(require), they have to be listed, or bound to a VFIO driver or C(pci-stub) already; an error names those
        that are not.
      - With V(include), they are taken as well, unless something stands against one of them. With O(state=released),
        those that this collection took are given back as well.
    type: str
    choices: [require, include]
    default: require
  persistent:
    description:
      - >-
        Whether the devices are bound at every boot, too. That takes udev rules, which match address and ids of each
        device, settings of modprobe that keep the host's drivers from it, and an initramfs that has both and the
        driver. It is built for all installed kernels by initramfs-tools, dracut or mkinitcpio, and opened to see that
        it has all of it; a kernel that is installed later gets the same. A host that uses no initramfs is supported,
        too.
      - With V(false), the devices keep their binding until the next boot, and rules for them are removed.
    type: bool
    default: true
  force:
    description:
      - Codes of reasons to go ahead all the same. What has no code here cannot be forced.
    type: list
    elements: str
    choices:
      - boot_disk
      - console_display
      - display_in_use
      - has_vfs
      - in_use_by_domain
      - management_network
      - no_interrupt_remapping
      - reserved_region
      - system_device
      - usb_in_use
    default: []
  timeout:
    description:
      - >-
        How many seconds a driver may take to let go of a device or to take it. When it takes longer, the module fails
        with RV(ignore:reboot_required=true), leaves that device as it is and brings the others back.
    type: int
    default: 60
  options:
    description:
      - >-
        Options of the kernel module C(vfio-pci), for all its devices. They are written to a file of modprobe, which is
        in the initramfs as well. Left out, those that this collection set stay; an empty dictionary removes them.
        They go with the last device that is bound at every boot.
      - >-
        The module is loaded again with them when no device is bound to it. Otherwise they hold after the next boot, and
        RV(reboot_required) says so.
      - Only with O(state=bound) and O(persistent=true).
    type: dict
    suboptions:
      disable_denylist:
        description: Allow devices that the kernel has on a list of those that are known to do harm.
        type: bool
      disable_idle_d3:
        description: Leave devices that no guest uses at full power, for those that do not wake up again.
        type: bool
      disable_vga:
        description: Keep guests from the ports and the memory of VGA.
        type: bool
      enable_sriov:
        description: Allow virtual functions of physical functions that are bound to C(vfio-pci).
        type: bool
      nointxmask:
        description: Do not trust the devices' own way of masking their INTx interrupts.
        type: bool
      ids:
        description:
          - >-
            Vendor and device ids that C(vfio-pci) takes by itself, with those of the subsystem if you like. Devices of
            O(devices) are bound without; this is for devices that are plugged in later.
          - >-
            Refused with V(ids_catch_unlisted) when a device of the host has these ids and is not bound at every boot.
        type: list
        elements: str
seealso:
  - module: kvm.passthrough.iommu_info
  - module: kvm.passthrough.pci_device_info
  - module: kvm.passthrough.kernel_parameters
"""

EXAMPLES = r"""
- name: Two virtual functions for guests, now and at every boot
  kvm.passthrough.vfio_devices:
    devices:
      - pf: {address: "0000:01:00.0"}
        vf: [0, 1]
  become: true

- name: A graphics card with its audio function, and nothing else any more
  kvm.passthrough.vfio_devices:
    devices:
      - name: gpu
        address: "0000:0b:00.0"
        expect: {vendor_id: "10de", device_id: "2484"}
    group: include
    exclusive: true
  become: true

- name: A virtual function with the driver that can migrate guests, wherever the module is installed
  kvm.passthrough.vfio_devices:
    devices:
      - pf: {interface: enp65s0f0np0}
        vf: 0
    driver: mlx5_vfio_pci
  become: true

- name: The card that was put into the place of another one
  kvm.passthrough.vfio_devices:
    devices:
      - address: "0000:0b:00.0"
        expect: {vendor_id: "10de", device_id: "2684"}
    group: include
  become: true

- name: A card that does not wake up again when it was put to sleep
  kvm.passthrough.vfio_devices:
    devices: ["0000:0b:00.0"]
    options: {disable_idle_d3: true}
  become: true

- name: The card whose display the host booted with, reached by SSH anyway
  kvm.passthrough.vfio_devices:
    devices: ["0000:0b:00.0", "0000:0b:00.1"]
    force: [console_display]
  become: true

- name: Back to the host
  kvm.passthrough.vfio_devices:
    devices:
      - interface: enp1s0f1
    state: released
  become: true
"""

RETURN = r"""
devices:
  description: >-
    The devices of this run in the order of their addresses (then those that O(exclusive=true) releases). In check mode
    it is what a run would return.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: The PCI address.
      type: str
      sample: "0000:01:10.0"
    name:
      description: The name its selector has, or null.
      type: str
      sample: uplink
    ids:
      description: Vendor and device id.
      type: str
      sample: "8086:10ca"
    iommu_group:
      description: >-
        The number of its IOMMU group, which may be another one after the next boot; null without a group, and where
        the group was not known before the run.
      type: int
      sample: 15
    before:
      description: What it had before.
      type: dict
      contains: &binding
        driver:
          description: >-
            The driver it is bound to, or null. V(auto) stands for whichever driver the kernel chooses by the ids of
            a released device.
          type: str
          sample: igbvf
        driver_override:
          description: The only driver that may have it; null when any may that knows its ids.
          type: str
          sample: vfio-pci
    after:
      description: What it has now.
      type: dict
      contains: *binding
    persistent:
      description: Whether it is bound at every boot.
      type: bool
      sample: true
stale:
  description: >-
    The devices that this collection bound before the run, or binds at every boot, and that are not in their places any
    more, in the order of their addresses. They may come back (virtual functions that are not enabled yet).
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: Where the device was.
      type: str
      sample: "0000:05:00.0"
    ids:
      description: >-
        Its vendor and device id, and in brackets those of the card (the subsystem) where only these tell the two
        devices apart.
      type: str
      sample: "8086:10d3"
    found:
      description: The ids of the device that is there now, or null when there is none.
      type: str
      sample: "8086:1520"
    driver:
      description: The VFIO driver it was given.
      type: str
      sample: vfio-pci
    persistent:
      description: Whether there is a rule that binds it at every boot, should it come back.
      type: bool
      sample: true
actions:
  description: What was done, or in check mode would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    description:
      description: The step in words.
      type: str
      sample: bind 0000:01:10.0 to vfio-pci
    target:
      description: What is changed, a PCI address, a driver or a file.
      type: str
      sample: "0000:01:10.0"
    before:
      description: What was there before.
      type: raw
      sample: {driver: null, driver_override: vfio-pci}
    after:
      description: What is there afterwards.
      type: raw
      sample: {driver: vfio-pci, driver_override: vfio-pci}
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
      sample: boot_disk
    message:
      description: What is wrong, with which value, and why.
      type: str
      sample: "The host uses the disk nvme0n1 behind 0000:03:00.0: mounted at / (vg-root on nvme0n1p3)."
    remedy:
      description: What to do about it.
      type: str
    device:
      description: The PCI address of the device, for problems that are about one.
      type: str
      sample: "0000:03:00.0"
    forcible:
      description: Whether O(force) can overrule it, for reasons of the host against a device.
      type: bool
      sample: true
options:
  description: The options of C(vfio-pci) that this collection has set, as modprobe takes them.
  returned: success
  type: dict
  sample: {disable_idle_d3: "Y"}
reboot_required:
  description:
    - >-
      On success, whether the running kernel has other O(options) until the host is rebooted. Nothing else of a run that
      ends well is left to the next boot.
    - >-
      On failure, V(true) says that the kernel did not finish what it was told in O(timeout) seconds, or still hangs
      over a device from before. It hangs until what uses the device ends, or until the host is rebooted.
  returned: success, and failure when it is V(true)
  type: bool
  sample: false
failed_action:
  description: The step that failed, in words; null when all steps were made but did not hold.
  returned: failure, after something was changed
  type: str
  sample: bind 0000:01:10.0 to vfio-pci
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
  contains:
    code:
      description: Always V(not_undone).
      type: str
      sample: not_undone
    message:
      description: Which step it is, and why it could not be undone.
      type: str
      sample: "Could not undo 'detach 0000:01:10.0 from igbvf': The kernel hangs over 0000:01:10.0."
    target:
      description: What is left changed, a PCI address, a driver or a file.
      type: str
      sample: "0000:01:10.0"
    before:
      description: What was there before, and is not there now.
      type: raw
      sample: {driver: igbvf, driver_override: null}
    after:
      description: What the step was to leave.
      type: raw
      sample: {driver: null, driver_override: vfio-pci}
    reboot_required:
      description: Whether it can be undone only when the kernel does not hang any more. Only there when it is V(true).
      type: bool
      sample: true
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._core.module import run_procedure
from ..module_utils._pci.grammar import selector_argument
from ..module_utils._vfio.devices import build
from ..module_utils._vfio.guards.registry import FORCIBLE_CODES
from ..module_utils._vfio.persistence.options import SWITCHES


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "devices": selector_argument(),
            "state": {"type": "str", "choices": ["bound", "released"], "default": "bound"},
            "driver": {"type": "str", "default": "auto"},
            "exclusive": {"type": "bool", "default": False},
            "group": {"type": "str", "choices": ["require", "include"], "default": "require"},
            "persistent": {"type": "bool", "default": True},
            "force": {"type": "list", "elements": "str", "choices": list(FORCIBLE_CODES), "default": []},
            "timeout": {"type": "int", "default": 60},
            "options": {
                "type": "dict",
                "options": {
                    **{name: {"type": "bool"} for name in SWITCHES},
                    "ids": {"type": "list", "elements": "str"},
                },
            },
        },
        supports_check_mode=True,
    )
    run_procedure(module, lambda host: build(host, module.params), name="vfio_devices")


if __name__ == "__main__":
    main()
