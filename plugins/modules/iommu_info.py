#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
---
module: iommu_info
short_description: Tell whether a host has an active IOMMU and, if not, why and what to do
version_added: "1.0.0"
description:
  - Tells whether the IOMMU is active, switched off by a kernel parameter, left off by the kernel's default, or not
    offered by the firmware, with the evidence for it, and names the kernel parameters that this host needs.
  - Lists everything else that stands against PCI passthrough on this host by code, with severity and remedy. That is
    the kernel's modules and what keeps them from being loaded, the parameters of the next boot, IBM Z's minimum
    versions, and how systemd and C(qemu.conf) confine libvirt's daemon.
  - It goes by what firmware and kernel show, never by the name of the processor alone. It knows Intel VT-d, AMD-Vi, the
    Arm SMMU and PCI on IBM Z. On other platforms the state is V(unknown), and it says so.
author:
  - kvm.passthrough contributors (@kvm-passthrough)
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.info_module
  - kvm.passthrough.attributes.actiongroup
options:
  groups:
    description:
      - Whether to list every IOMMU group with its devices in RV(groups).
    type: bool
    default: false
notes:
  - Run it as root. Without root rights it answers what it can; RV(unreadable) lists what it could not read.
seealso:
  - module: kvm.passthrough.pci_device_info
  - module: kvm.passthrough.kernel_parameters
"""

EXAMPLES = r"""
# At a shell: ansible kvm_hosts -b -m kvm.passthrough.iommu_info

- name: Look at the IOMMU
  kvm.passthrough.iommu_info:
  become: true
  register: iommu

- name: Switch it on where a kernel parameter does it
  kvm.passthrough.kernel_parameters:
    present: "{{ iommu.recommended_parameters }}"
    absent: "{{ iommu.parameters_to_remove }}"
  become: true
  when: (iommu.recommended_parameters + iommu.parameters_to_remove) | length > 0

- name: Refuse hosts on which passthrough is not possible
  ansible.builtin.assert:
    that: iommu.blockers | selectattr('severity', 'equalto', 'error') | length == 0
    fail_msg: "{{ iommu.msg }}"

- name: List the IOMMU groups
  kvm.passthrough.iommu_info:
    groups: true
  become: true
"""

RETURN = r"""
msg:
  description: The answer in a sentence or two.
  returned: success
  type: str
  sample: >-
    The IOMMU (Intel VT-d) is active: 2 units, 15 groups, interrupt remapping on. Nothing stands against passthrough.
state:
  description:
    - V(active) when the kernel has the IOMMU at work.
    - V(disabled_by_parameter) when a parameter of the running kernel switches it off.
    - V(disabled_by_default) when the kernel would use it only if it were told to.
    - V(disabled_in_firmware) when the firmware does not describe an IOMMU. It is switched off there, or there is none.
    - V(unsupported) when the running kernel was built without the driver.
    - V(unknown) when none of these can be shown.
  returned: success
  type: str
  sample: active
platform:
  description:
    - The kind of IOMMU, V(intel_vtd), V(amd_vi), V(arm_smmu) or V(ibm_z), or null when neither kernel nor firmware
      show its kind.
  returned: success
  type: str
  sample: intel_vtd
platform_name:
  description: The kind of IOMMU in words, or null.
  returned: success
  type: str
  sample: Intel VT-d
evidence:
  description: What the state was concluded from.
  returned: success
  type: list
  elements: str
  sample: ["the kernel drives 1 IOMMU unit: dmar0"]
recommended_parameters:
  description:
    - Kernel parameters to set so that the IOMMU becomes active, for
      O(kvm.passthrough.kernel_parameters#module:present). Empty when none is needed or none would help.
    - When a parameter says other things besides, these are kept in the value.
    - When the boot loader is set to them already and only the reboot is missing, they are still listed, as they are
      set there. M(kvm.passthrough.kernel_parameters) then changes nothing and returns RV(ignore:reboot_required).
  returned: success
  type: list
  elements: str
  sample: [intel_iommu=on]
parameters_to_remove:
  description:
    - Kernel parameters to remove so that the IOMMU becomes active, for
      O(kvm.passthrough.kernel_parameters#module:absent).
  returned: success
  type: list
  elements: str
  sample: [amd_iommu=off]
running_parameters:
  description: The parameters of the running kernel that have to do with IOMMU, VFIO and KVM.
  returned: success
  type: list
  elements: str
  sample: [intel_iommu=on]
configured_parameters:
  description:
    - The parameters that have to do with IOMMU, VFIO and KVM in the boot entry that starts the next kernel (the first
      that is not for recovery), or null when it cannot be known. RV(bootloader.reason) then says why.
  returned: success
  type: list
  elements: str
  sample: [intel_iommu=on]
bootloader:
  description: The boot loader that started this host, as M(kvm.passthrough.kernel_parameters) finds it.
  returned: success
  type: dict
  contains:
    name:
      description: Its name, or null when it is none that this collection handles, or cannot be told.
      type: str
      sample: grub
    evidence:
      description: What it was concluded from.
      type: list
      elements: str
      sample: ["/proc/cmdline has BOOT_IMAGE=/vmlinuz-6.1.0-28-amd64, a kernel of /boot/grub/grub.cfg"]
    code:
      description: The code of what stands against asking it, such as V(bootloader_unsupported), or null.
      type: str
      sample: null
    reason:
      description: The same in words, or null.
      type: str
      sample: null
blockers:
  description: What stands against passthrough, errors first.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description:
        - What it is. V(iommu_disabled_by_parameter), V(iommu_disabled_by_default), V(iommu_disabled_in_firmware),
          V(iommu_unsupported), V(iommu_not_started), V(iommu_state_unknown), V(unknown_platform), V(xen_dom0),
          V(no_pci_functions), V(pci_without_iommu), V(integrated_gpu_excluded), V(no_iommu_groups),
          V(no_interrupt_remapping), V(unsafe_interrupts), V(reserved_region), V(contradicting_parameters),
          V(parameter_without_effect), V(vfio_pci_missing), V(kernel_modules_missing), V(no_virtualization) or
          V(no_kvm).
        - Of the next boot, V(reboot_pending), V(iommu_off_after_reboot) or V(boot_entries_outdated).
        - Of VFIO, V(vfio_back_end_missing), V(vfio_not_loadable), V(vfio_pci_blacklisted), V(noiommu_mode) or
          V(acs_override).
        - Of libvirt and QEMU, V(version_too_old), V(zpci_addresses_unreliable), V(daemon_hides_devices),
          V(daemon_hides_modules), V(daemon_cannot_bind), V(daemon_cannot_raise_memlock), V(device_acl_incomplete) or
          V(dynamic_ownership_off).
      type: str
    severity:
      description:
        - V(error) when no device of this host can be given to a guest because of it, V(warning) otherwise.
      type: str
    message:
      description: What was found.
      type: str
    remedy:
      description: What to do about it.
      type: str
    devices:
      description: The PCI addresses it concerns. Empty when it concerns all.
      type: list
      elements: str
architecture:
  description: The architecture of the running kernel.
  returned: success
  type: str
  sample: x86_64
kernel:
  description: The release of the running kernel.
  returned: success
  type: str
  sample: 6.1.0-28-amd64
cpu:
  description: The processor.
  returned: success
  type: dict
  contains:
    vendor:
      description: The vendor the processor names, or null.
      type: str
      sample: GenuineIntel
    virtualization:
      description:
        - The flag of its virtualization extension, V(vmx), V(svm) or V(sie), or null when it shows none. Arm
          processors have no flag for it.
      type: str
      sample: vmx
    is_virtual_machine:
      description: Whether the host is itself a virtual machine.
      type: bool
firmware:
  description: What the firmware offers.
  returned: success
  type: dict
  contains:
    acpi:
      description: Whether ACPI tables can be seen.
      type: bool
    iommu_tables:
      description: Which tables that describe an IOMMU are there.
      type: list
      elements: str
      sample: [DMAR]
    dmar_flags:
      description: The flags of the DMAR table, on Intel VT-d and when it can be read.
      type: str
      sample: "0x01"
    interrupt_remapping:
      description: Whether the DMAR table allows interrupt remapping, on Intel VT-d and when it can be read.
      type: bool
    x2apic_opt_out:
      description: Whether the DMAR table asks the kernel not to use x2APIC, on Intel VT-d and when it can be read.
      type: bool
    dma_protection:
      description:
        - Whether the firmware asks for, or supports, protection against the DMA of external devices. From the DMAR
          table on Intel VT-d, from the IVRS table on AMD-Vi, when it can be read.
      type: bool
    ivrs_revision:
      description: The revision of the IVRS table, on AMD-Vi and when it can be read.
      type: int
      sample: 2
    ivrs_info:
      description: The IVinfo field of the IVRS table, on AMD-Vi and when it can be read.
      type: str
      sample: "0x00203040"
    device_tree:
      description: Whether a device tree, and not ACPI, describes the host. On Arm.
      type: bool
    units:
      description:
        - The IOMMUs that the firmware describes, whether the kernel drives them or not. On Intel VT-d, AMD-Vi and Arm,
          when it can be read.
      type: list
      elements: dict
      contains:
        kind:
          description: The structure that describes it, V(drhd), V(ivhd), V(smmu_v2) (or older) or V(smmu_v3).
          type: str
        address:
          description: The physical address of its registers.
          type: str
          sample: "0xfed90000"
        segment:
          description: The PCI segment (domain) it serves. On x86.
          type: int
        devices:
          description:
            - The PCI addresses it names. For V(drhd) those it serves (bridges with all that is behind them), for
              V(ivhd) its own. Behind a bridge that is not there it is a path, such as V(0000:00:1c.0/00.0).
          type: list
          elements: str
        all_other_devices:
          description: Whether it serves every device of the segment that no other unit names. On Intel VT-d.
          type: bool
        enabled:
          description: Whether the firmware says that it can be used.
          type: bool
        node:
          description: Its node in the device tree.
          type: str
    reserved_memory:
      description:
        - Memory that the firmware wants mapped for devices at all times (RMRR, IVMD, RMR). It makes regions of type
          C(direct) in the groups of these devices.
      type: list
      elements: dict
      contains:
        start:
          description: The first address.
          type: str
          sample: "0x7b800000"
        end:
          description: The last address.
          type: str
          sample: "0x7fffffff"
        devices:
          description: The PCI addresses (or C(first-last)). Empty when the firmware does not name them one by one.
          type: list
          elements: str
units:
  description: The IOMMUs the kernel drives, with what their registers say.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name in C(/sys/class/iommu).
      type: str
      sample: dmar0
    devices:
      description: How many devices are behind it.
      type: int
    cap:
      description: The capability register.
      type: str
      sample: "0xd2008c22260286"
    ecap:
      description: The extended capability register (Intel VT-d).
      type: str
      sample: "0xf00f5a"
    address:
      description: The physical address of its registers (Intel VT-d, Arm SMMU).
      type: str
      sample: fed90000
    version:
      description: The version of its architecture (Intel VT-d).
      type: str
      sample: "1:0"
    kind:
      description: V(smmu_v2) (or older) or V(smmu_v3) (Arm SMMU).
      type: str
    fid:
      description: The function id of the function it belongs to (IBM Z).
      type: str
      sample: "0x00000010"
    features:
      description: The extended features register (AMD-Vi).
      type: str
      sample: "0x29d3"
    features2:
      description: The second extended features register, where the kernel shows it (AMD-Vi).
      type: str
      sample: "0x0"
    interrupt_remapping:
      description: Whether the unit can remap interrupts (Intel VT-d).
      type: bool
interrupt_remapping:
  description:
    - Interrupt remapping, without which VFIO refuses devices. On Arm it is the GICv3 interrupt translation service that
      does it, on IBM Z the machine itself.
  returned: success
  type: dict
  contains:
    supported:
      description: Whether hardware and firmware can do it, or null when that is not known.
      type: bool
    enabled:
      description: Whether it is on, or null when that is not known.
      type: bool
    evidence:
      description: What this was concluded from.
      type: list
      elements: str
    allow_unsafe_interrupts:
      description: Whether VFIO was told to do without it.
      type: bool
group_count:
  description: How many IOMMU groups there are.
  returned: success
  type: int
  sample: 15
group_types:
  description: How many groups there are of each type. Empty before Linux 5.11.
  returned: success
  type: dict
  sample: {DMA-FQ: 15}
default_domain_type:
  description:
    - How the devices that the host itself uses are translated. It is the type that most groups have, and where groups
      do not show it, what the kernel chooses by its parameters and configuration. It is null when none of these tell.
    - VFIO replaces it, so it never decides whether passthrough works.
  returned: success
  type: str
  sample: DMA-FQ
groups:
  description: The IOMMU groups.
  returned: when O(groups=true)
  type: list
  elements: dict
  contains:
    number:
      description: The number of the group. It changes between boots.
      type: int
    type:
      description: The type of the default domain, null before Linux 5.11.
      type: str
      sample: DMA-FQ
    devices:
      description: The addresses of the PCI devices in the group.
      type: list
      elements: str
      sample: ["0000:01:10.0"]
    viable:
      description: Whether VFIO could use the group as it is, since no driver of the host holds an endpoint in it.
      type: bool
    isolated:
      description:
        - Whether all endpoints in the group are of one device (functions of one slot, or virtual functions of one), so
          that no other device has to go to the same guest.
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
vfio:
  description: What the kernel has to hand devices to guests, and how it is set.
  returned: success
  type: dict
  contains:
    pci:
      description: The driver vfio-pci.
      type: dict
      contains:
        loaded:
          description: Whether it is at work.
          type: bool
        built_in:
          description: Whether it is part of the kernel.
          type: bool
        available:
          description: Whether the running kernel has it at all, or null when its list of modules is not there.
          type: bool
        blacklisted:
          description: Whether modprobe's blacklist or the kernel parameter C(modprobe.blacklist) names it.
          type: bool
        options:
          description: The options it runs with. Empty when it is not at work; the kernel does not show C(ids).
          type: dict
          sample: {disable_idle_d3: "N"}
    type1:
      description: The module vfio_iommu_type1, which gives a guest's memory to devices.
      type: dict
      contains:
        loaded:
          description: Whether it is at work.
          type: bool
        built_in:
          description: Whether it is part of the kernel.
          type: bool
        available:
          description: Whether the running kernel has it at all, or null when its list of modules is not there.
          type: bool
        allow_unsafe_interrupts:
          description: Whether it was told to do without interrupt remapping.
          type: bool
    iommufd:
      description: IOMMUFD, the newer interface for the same.
      type: dict
      contains:
        loaded:
          description: Whether it is at work.
          type: bool
        built_in:
          description: Whether it is part of the kernel.
          type: bool
        available:
          description: Whether the running kernel has it at all, or null when its list of modules is not there.
          type: bool
        allow_unsafe_interrupts:
          description: Whether it was told to do without interrupt remapping.
          type: bool
        device:
          description: Whether C(/dev/iommu) is there.
          type: bool
        vfio_device_files:
          description:
            - Whether VFIO devices have files of their own in C(/dev/vfio/devices), which IOMMUFD needs
              (C(CONFIG_VFIO_DEVICE_CDEV), Linux 6.6), or null when nothing says.
          type: bool
    container:
      description: Whether C(/dev/vfio/vfio) is there.
      type: bool
    unsafe_noiommu_mode:
      description: Whether VFIO was told to hand devices out without an IOMMU.
      type: bool
kvm:
  description: KVM.
  returned: success
  type: dict
  contains:
    device:
      description: Whether C(/dev/kvm) is there.
      type: bool
    module:
      description: The module this processor needs.
      type: str
      sample: kvm_intel
    loaded:
      description: Whether that module is at work.
      type: bool
secure_boot:
  description:
    - Whether the host was started with Secure Boot in force (IBM Z - secure IPL), or null when that cannot be seen.
    - It does not stand against passthrough, nor does RV(lockdown). What they refuse are modules without a signature
      that the kernel trusts, such as some out-of-tree drivers.
  returned: success
  type: bool
  sample: false
lockdown:
  description: The kernel's lockdown mode (V(none), V(integrity), V(confidentiality)), or null when it has none.
  returned: success
  type: str
  sample: none
versions:
  description: The versions of what is installed. No daemon is asked.
  returned: success
  type: dict
  contains:
    kernel:
      description: Of the running kernel.
      type: str
      sample: 6.1.0
    libvirt:
      description: Of libvirt, or null when it is not installed.
      type: str
      sample: 9.0.0
    qemu:
      description: Of the QEMU for this architecture, or null when it is not installed.
      type: str
      sample: 7.2.9
libvirt:
  description: How libvirt's daemon and its guests are confined.
  returned: success
  type: dict
  contains:
    daemons:
      description:
        - The units C(virtqemud.service) and C(libvirtd.service) where they are installed, running or not, or null when
          systemd does not run the host.
      type: list
      elements: dict
      contains:
        unit:
          description: The name of the unit.
          type: str
          sample: libvirtd.service
        hides_modules:
          description: Whether it has C(ProtectKernelModules).
          type: bool
        hides_devices:
          description: Whether it has C(PrivateDevices).
          type: bool
        sysfs_is_read_only:
          description: Whether it has C(ProtectKernelTunables).
          type: bool
        may_raise_limits:
          description: Whether C(CAP_SYS_RESOURCE) is in its bounding set.
          type: bool
        memlock_limit:
          description: How many bytes of memory it may lock (C(LimitMEMLOCK)), or null for no limit.
          type: int
          sample: 67108864
    qemu_conf:
      description:
        - What C(/etc/libvirt/qemu.conf) sets of these, each null when it is not set there. Null when the file is not
          there or cannot be read.
      type: dict
      contains:
        user:
          description: The user that QEMU runs as.
          type: str
        dynamic_ownership:
          description: Whether libvirt gives the files of devices to that user.
          type: bool
        cgroup_device_acl:
          description: The files in C(/dev) that every guest has, in place of libvirt's own list.
          type: list
          elements: str
        cgroup_controllers:
          description: The cgroup controllers libvirt uses.
          type: list
          elements: str
        namespaces:
          description: The namespaces that QEMU gets of its own.
          type: list
          elements: str
unreadable:
  description: What is there but could not be read, most often for want of root rights.
  returned: success
  type: list
  elements: str
  sample: [/sys/firmware/acpi/tables/DMAR]
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._core.module import run_query
from ..module_utils._iommu.report import iommu_report


def main() -> None:
    module = AnsibleModule(
        argument_spec={"groups": {"type": "bool", "default": False}},
        supports_check_mode=True,
    )
    run_query(module, lambda host: iommu_report(host, with_groups=module.params["groups"]))


if __name__ == "__main__":
    main()
