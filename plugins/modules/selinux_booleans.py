#!/usr/bin/python
# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: selinux_booleans
short_description: Set several SELinux booleans at once, now and for every boot
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - Sets booleans of the SELinux policy, all of them or none, in the policy that is loaded, and in the policy store,
    whose values hold from the next boot on. Both are looked at and set separately.
  - Where SELinux is disabled, there are no values to set now. The policy store is set nevertheless, when there is one
    and the Python bindings of libsemanage can be imported. On a host without SELinux it changes nothing and succeeds;
    RV(selinux.mode) tells.
  - On an up-to-date host a guest with PCI devices usually needs no boolean at all, because libvirt labels the devices
    itself. The names that how-tos give differ between policies, and some were in no policy ever.
    A boolean that is missing is therefore told by name, with similar ones, and can be ignored.
extends_documentation_fragment:
  - kvm.passthrough.attributes
  - kvm.passthrough.attributes.change_module
  - kvm.passthrough.attributes.actiongroup
options:
  booleans:
    description:
      - Names of booleans, and whether each is to be on.
      - A former name is taken for the present one where the policy has only that, C(virt_manage_sysfs) for
        C(virt_use_sysfs) among them, and all of C(booleans.subs_dist) of the policy.
    type: dict
    required: true
  runtime:
    description:
      - Whether to set them now.
    type: bool
    default: true
  persistent:
    description:
      - Whether to set them for every boot. This builds the policy anew, which takes some seconds.
    type: bool
    default: true
  missing:
    description:
      - What to do about a boolean that the policy does not have.
      - V(fail) changes nothing and says which ones are missing. V(ignore) warns and sets the others.
    type: str
    choices:
      - fail
      - ignore
    default: fail
  exclusive:
    description:
      - Give back what this module set before and O(booleans) no longer names, so that it is as it was before the first
        run. With O(booleans={}), all of it.
      - What somebody else changed since is left alone, with a warning.
    type: bool
    default: false
requirements:
  - C(setsebool) of policycoreutils on the host
  - The Python bindings of libsemanage (Debian and Ubuntu C(python3-semanage), Fedora and RHEL C(python3-libsemanage)).
    Without them a boolean can be set for every boot only together with the value it has now, and what was set first
    cannot be taken away with O(exclusive).
seealso:
  - name: setsebool
    description: The tool that does the same by hand.
    link: https://man7.org/linux/man-pages/man8/setsebool.8.html
"""

EXAMPLES = r"""
- name: Let guests use sysfs and USB devices, now and after every boot
  kvm.passthrough.selinux_booleans:
    booleans:
      virt_use_sysfs: true
      virt_use_usb: true
    missing: ignore
  become: true

- name: Try a boolean until the next boot
  kvm.passthrough.selinux_booleans:
    booleans:
      virt_use_nfs: true
    persistent: false
  become: true

- name: Give back all booleans that this module has set
  kvm.passthrough.selinux_booleans:
    booleans: {}
    exclusive: true
  become: true
"""

RETURN = r"""
selinux:
  description: SELinux on this host.
  returned: success
  type: dict
  contains:
    mode:
      description: Whether it is V(enforcing), V(permissive) or V(disabled) now.
      type: str
    policy:
      description: The type of the policy, such as V(targeted). Empty when there is none.
      type: str
    through:
      description: What the policy store is reached through, V(libsemanage) or V(setsebool), or null when there is none.
      type: str
  sample:
    mode: enforcing
    policy: targeted
    through: libsemanage
booleans:
  description:
    - The booleans that were asked for, in that order, and those that are given back.
    - In check mode, the values after the run are those it would leave.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The name in O(booleans).
      type: str
    boolean:
      description: The name in the policy. Null where the policy has none, or where there is no policy.
      type: str
    runtime:
      description: The value now. Null where SELinux is disabled.
      type: dict
      contains: &values
        before:
          description: As it was.
          type: bool
        after:
          description: As it is after the run.
          type: bool
    persistent:
      description:
        - The value from the next boot on. Null where that cannot be told, because it is the policy's own value, and the
          bindings of libsemanage are missing or the boolean is given back.
      type: dict
      contains: *values
  sample:
    - name: virt_manage_sysfs
      boolean: virt_use_sysfs
      runtime: {before: false, after: true}
      persistent: {before: false, after: true}
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
      description: What is changed.
      type: str
    before:
      description: The booleans of the step, and what they were.
      type: dict
    after:
      description: The booleans of the step, and what they are afterwards.
      type: dict
  sample:
    - description: "set SELinux booleans now: virt_use_sysfs on"
      target: SELinux booleans in force
      before: {virt_use_sysfs: "off"}
      after: {virt_use_sysfs: "on"}
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
    boolean:
      description: The name in O(booleans) that is wrong, if it is one.
      type: str
    similar:
      description: With the code V(boolean_unknown), booleans of the policy with a similar name.
      type: list
      elements: str
  sample:
    - code: boolean_unknown
      message: "booleans: the SELinux policy 'targeted' has no boolean virt_use_ubs."
      remedy: "Similar ones: virt_use_usb. Or set missing to ignore."
      field: booleans
      boolean: virt_use_ubs
      similar: [virt_use_usb]
failed_action:
  description: The step that failed, in words; null when all steps were made but did not hold.
  returned: failure, after something was changed
  type: str
  sample: "set SELinux booleans now: virt_use_sysfs on"
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

from ..module_utils._core.module import prefer_python, run_procedure
from ..module_utils._selinux.booleans import FAIL, IGNORE, build
from ..module_utils._selinux.libsemanage import PYTHON_MODULE


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "booleans": {"type": "dict", "required": True},
            "runtime": {"type": "bool", "default": True},
            "persistent": {"type": "bool", "default": True},
            "missing": {"type": "str", "choices": [FAIL, IGNORE], "default": FAIL},
            "exclusive": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    prefer_python(PYTHON_MODULE)
    run_procedure(module, lambda host: build(host, module.params), name="selinux_booleans")


if __name__ == "__main__":
    main()
