#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_parameters
short_description: Set and remove kernel parameters in the boot loader of the host
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - Sets and removes parameters of the Linux kernel in the settings of the boot loader, and in every boot entry made
    from them.
  - This release handles GRUB 2 with C(/etc/default/grub) and C(/etc/default/grub.d/*.cfg) (Debian, Ubuntu, SUSE, Arch,
    Gentoo, and Fedora and RHEL with C(GRUB_ENABLE_BLSCFG=false)), GRUB 2 with boot loader specification entries and
    C(grubby) (Fedora and RHEL), systemd-boot with entries made by C(kernel-install) or written by hand, unified kernel
    images that C(kernel-install) builds, C(extlinux.conf), with C(u-boot-update) or written by hand,
    C(proxmox-boot-tool) with systemd-boot or GRUB, and C(zipl) on IBM Z.
  - It also handles the image-based systems with C(rpm-ostree) (Fedora CoreOS, Silverblue, IoT, RHEL for Edge) and with
    C(transactional-update) and GRUB 2 (openSUSE MicroOS, SLE Micro).
    On a host with C(bootc) and without C(rpm-ostree) parameters belong to the image; there it fails with the text to
    put into it, unless the host has what is wanted.
    On a host that boots with anything else it fails and says what it found; it never reports success where nothing
    was done.
  - What counts is what the settings evaluate to, not how they look. Only the words that have to change are edited, in
    the assignment that is in effect. Comments, unrelated settings and other parameters stay as they are. The result of
    an edit is evaluated before it is written.
  - What a generator of the distribution makes (C(grub.cfg), a unified kernel image) is made beside the one in use,
    inspected, and then swapped in. When anything fails, all files are restored byte for byte.
  - It never reboots the host. RV(reboot_required) says whether the running kernel still lacks what was asked for.
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.change_module
  - kvm.passthrough.attributes.actiongroup
attributes:
  diff_mode:
    support: partial
    details:
      - The files with settings and entries are shown in full, and of C(grub.cfg) and unified kernel images the command
        lines that change.
options:
  present:
    description:
      - Parameters to set, in the kernel's own spelling, V(name) or V(name=value).
      - A parameter replaces all other values of that name. To have several values of one name, such as
        V(console=tty0) and V(console=ttyS0), give all of them; their order counts.
      - A name is matched as a whole. As in the kernel, a dash and an underscore in it are the same.
      - A value with spaces has to be in double quotes, as in V(dyndbg="file drivers/vfio/* +p").
        Line breaks, control characters, and characters with a meaning to the shell or to GRUB are refused.
      - A name that is set already keeps its place. A new one is added to C(GRUB_CMDLINE_LINUX_DEFAULT), which
        recovery entries do not have. With boot loader specification entries, it is C(GRUB_CMDLINE_LINUX).
    type: list
    elements: str
    default: []
  absent:
    description:
      - Parameters to remove. V(name) removes all values of that name, V(name=value) removes exactly that one.
      - The same name must not be in O(present), too.
    type: list
    elements: str
    default: []
  bootloader:
    description:
      - V(auto) takes the boot loader that provably started the running system. When two of them look active, it
        fails and says which evidence conflicts.
      - A name takes that one without proof, for a host that was started by C(kexec) or directly by an emulator, or
        although another one looks active, too. A host that provably boots with another boot loader only is refused
        all the same.
      - A container has no boot loader, and V(auto) fails in it. A name changes the files in the container, for one that
        is to become the disk of a machine, or for a test. The module warns of that, and RV(reboot_required) is
        V(false), since the kernel of a container is that of its host.
      - V(grub) is GRUB 2 with C(/etc/default/grub), and V(grub-bls) GRUB 2 with C(/boot/loader/entries). V(uki) is a
        unified kernel image that the firmware starts without a boot loader; one that systemd-boot starts belongs to
        V(systemd-boot). V(extlinux) is U-Boot or Syslinux with C(/boot/extlinux/extlinux.conf). V(rpm-ostree), V(bootc)
        and V(transactional-update) drive a boot loader of their own choice, and are meant where they are in use,
        whichever that is. V(proxmox-boot-tool) is the tool of Proxmox VE that keeps several EFI system partitions in
        step; a Proxmox VE host without it has V(grub). V(zipl) is the one of IBM Z, except on SUSE.
    type: str
    choices:
      - auto
      - grub
      - grub-bls
      - systemd-boot
      - uki
      - extlinux
      - rpm-ostree
      - bootc
      - transactional-update
      - proxmox-boot-tool
      - zipl
    default: auto
  kernels:
    description:
      - V(all) changes the settings from which boot entries are made, and every entry that is made from them.
      - V(default) changes only the entry that is booted by default, and no settings, so that the next kernel does not
        have it. It needs O(bootloader=grub-bls), or O(bootloader=zipl) with sections in C(/etc/zipl.conf); boot loaders
        whose settings are for all entries refuse it.
    type: str
    choices:
      - all
      - default
    default: all
  revert:
    description:
      - Take back what this module did on the host, all of its runs. Each name gets what it had before the first of
        them, in each place of the settings, as long as that place has what this module left there. What somebody else
        changed since is left alone, with a warning, and is in RV(kept).
      - O(present), O(absent) and O(kernels) must be left out.
    type: bool
    default: false
notes:
  - A parameter that contradicts O(present), such as C(intel_iommu=off), is replaced wherever it is in effect,
    recovery entries included.
  - >-
    On the command line of C(ansible), a value with a comma needs the JSON form,
    as in C(-a '{"present": ["console=ttyS0,115200"]}').
  - GRUB 2's generator is C(grub-mkconfig), which C(update-grub) calls on Debian and Ubuntu, or C(grub2-mkconfig).
    A host on which C(update-grub) was replaced by something that does more has to run that itself afterwards.
seealso:
  - module: kvm.passthrough.iommu_info
    description: Tells which parameters a host needs, if any.
"""

EXAMPLES = r"""
- name: Switch the IOMMU on, with direct mapping for devices of the host
  kvm.passthrough.kernel_parameters:
    present:
      - intel_iommu=on
      - iommu=pt
  become: true
  register: parameters

- name: Reboot when the running kernel lacks them
  ansible.builtin.reboot:
  become: true
  when: parameters.reboot_required

- name: Two consoles, of which the last one is /dev/console, and no splash screen
  kvm.passthrough.kernel_parameters:
    present:
      - console=tty0
      - console=ttyS0,115200
    absent:
      - splash
  become: true

- name: Take back everything that this module has changed on the host
  kvm.passthrough.kernel_parameters:
    revert: true
  become: true

- name: Remove one value, and keep other values of that name
  kvm.passthrough.kernel_parameters:
    absent:
      - console=ttyS1
  become: true
"""

RETURN = r"""
bootloader:
  description:
    - The boot loader of the host, and what proves it.
    - With O(revert=true), it is null, as are RV(configured) and RV(entries), where nothing was ever done and the boot
      loader is not handled.
  returned: success
  type: dict
  contains:
    name:
      description: Its name, as in O(bootloader).
      type: str
    evidence:
      description: What was found.
      type: list
      elements: str
  sample:
    name: grub
    evidence:
      - /proc/cmdline has BOOT_IMAGE=/boot/vmlinuz-6.12.48+deb13-amd64, a kernel of /boot/grub/grub.cfg
configured:
  description: The parameters the settings give to boot entries.
  returned: success
  type: dict
  contains:
    before:
      description: As they were.
      type: dict
      contains: &configured
        normal:
          description: For normal entries.
          type: str
        recovery:
          description: For recovery entries. Empty where the boot loader makes none.
          type: str
    after:
      description: As they are after the run, or would be in check mode.
      type: dict
      contains: *configured
  sample:
    before:
      normal: console=tty0 quiet intel_iommu=off
      recovery: console=tty0
    after:
      normal: console=tty0 quiet intel_iommu=on iommu=pt
      recovery: console=tty0
entries:
  description: Every entry that boots a Linux kernel.
  returned: success
  type: dict
  contains:
    before:
      description: As they were.
      type: list
      elements: dict
      contains: &entry
        title:
          description: Its title in the menu.
          type: str
        kernel:
          description: The kernel file, as the boot loader names it. Empty for a deployment that is only staged.
          type: str
        command_line:
          description: What the kernel is handed.
          type: str
        recovery:
          description: Whether it is a recovery entry.
          type: bool
        generated:
          description:
            - Whether it is made from the settings, so that it changes with them.
          type: bool
        in_place:
          description:
            - Whether it is changed itself, because it was written by hand and nothing generates it.
            - What is neither generated nor changed in place belongs to another system, to an earlier deployment that
              is kept to go back to, or stands in a file that must not be edited, and is left alone.
          type: bool
    after:
      description:
        - The same entries as they are after the run, or would be in check mode.
        - A kernel that was installed without its entry is not among them, although the run adds its entry.
      type: list
      elements: dict
      contains: *entry
  sample:
    before:
      - title: Debian GNU/Linux
        kernel: /boot/vmlinuz-6.12.48+deb13-amd64
        command_line: root=UUID=0a1b ro quiet intel_iommu=off
        recovery: false
        generated: true
        in_place: false
    after:
      - title: Debian GNU/Linux
        kernel: /boot/vmlinuz-6.12.48+deb13-amd64
        command_line: root=UUID=0a1b ro quiet intel_iommu=on
        recovery: false
        generated: true
        in_place: false
running:
  description: The command line of the running kernel.
  returned: success
  type: str
  sample: BOOT_IMAGE=/boot/vmlinuz-6.12.48+deb13-amd64 root=UUID=0a1b ro quiet intel_iommu=off
reboot_required:
  description:
    - Whether the running kernel was started without something in O(present) or with something in O(absent).
    - It does not depend on whether this run changed anything.
  returned: success
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
      sample: The kernel parameter iommu in GRUB_CMDLINE_LINUX_DEFAULT
    name:
      description: The name of the parameter, with underscores for dashes.
      type: str
    place:
      description: Where it stands, a variable of a file or a boot entry.
      type: str
    left:
      description: What this module had left there.
      type: list
      elements: str
    found:
      description: What is there now.
      type: list
      elements: str
  sample: []
diverged:
  description:
    - With O(revert=true), the names of parameters that somebody else had changed between two runs of this module. They
      get what was there before the first run.
  returned: success, with O(revert=true)
  type: list
  elements: str
  sample: []
actions:
  description: What was done, or in check mode would be done, in this order.
  returned: success
  type: list
  elements: dict
  contains:
    description:
      description: The step in words.
      type: str
    target:
      description: The file that is changed.
      type: str
    before:
      description: What was there before. For boot entries, the command lines that change.
      type: raw
    after:
      description: What is there afterwards.
      type: raw
  sample:
    - description: change the kernel parameters in /etc/default/grub
      target: /etc/default/grub
      before: present
      after: changed
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
    message:
      description: What is wrong, with which value, and why.
      type: str
    remedy:
      description: What to do about it.
      type: str
    toml:
      description:
        - With the code V(parameters_belong_to_image), the line for a file in C(/usr/lib/bootc/kargs.d) of the image.
        - Empty when there is only something to remove.
      type: str
    remove:
      description: With that code, the parameters the image or the host must no longer have.
      type: list
      elements: str
  sample:
    - code: invalid_parameter
      message: >-
        present: 'iommu=pt;reboot' is not a kernel parameter this module sets or removes: ; has a meaning of its own to
        the shell or to GRUB.
      field: present
      value: iommu=pt;reboot
failed_action:
  description: The step that failed, in words; null when all steps were made but did not hold.
  returned: failure, after something was changed
  type: str
  sample: change the kernel parameters in /etc/default/grub
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

from ..module_utils._boot.detect import AUTO, LOADERS
from ..module_utils._boot.loader import ALL_KERNELS, KERNELS
from ..module_utils._boot.revert import build_any
from ..module_utils._core.module import run_procedure


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "present": {"type": "list", "elements": "str", "default": []},
            "absent": {"type": "list", "elements": "str", "default": []},
            "bootloader": {"type": "str", "choices": [AUTO, *LOADERS], "default": AUTO},
            "kernels": {"type": "str", "choices": list(KERNELS), "default": ALL_KERNELS},
            "revert": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    run_procedure(module, lambda host: build_any(host, module.params), name="kernel_parameters")


if __name__ == "__main__":
    main()
