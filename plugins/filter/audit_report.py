# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_report
short_description: Make one report about a fleet of what the info modules returned on its hosts
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - >-
    Takes what M(kvm.passthrough.iommu_info), M(kvm.passthrough.pci_device_info) and M(kvm.passthrough.hostdev_info)
    returned on each host, and what M(kvm.passthrough.kernel_parameters), M(kvm.passthrough.selinux_booleans),
    M(kvm.passthrough.sriov_vfs), M(kvm.passthrough.vfio_devices), M(kvm.passthrough.hostdev_network) and
    M(kvm.passthrough.domain_hostdevs) returned there in check mode, and makes one report of it. It says for each host
    whether passthrough is possible, what stands against it, what is in each IOMMU group, who has which device,
    and what conflicts or has drifted.
  - >-
    A host that could not be reached, on which a module failed, or that was never asked, is in the report, with the
    reason.
  - The role P(kvm.passthrough.vfio_audit#role) gathers all this and writes the report; use the filter where you
    gather in your own way.
positional: generated
options:
  _input:
    description:
      - >-
        A mapping of host names to mappings. Each of them has, by the name of the module (V(iommu_info),
        V(pci_device_info), V(hostdev_info), V(kernel_parameters), V(selinux_booleans), V(sriov_vfs), V(vfio_devices),
        V(hostdev_network), V(domain_hostdevs)), what the task with it registered, and under V(state) what
        M(ansible.builtin.slurp) returned of C(/var/lib/kvm-passthrough/state.json). What is missing was not asked.
      - >-
        The task with C(hostdev_network) or C(domain_hostdevs) may be a loop over mappings with a C(name), which says
        what network or domain each result is about.
      - >-
        C(iommu_info) should have been asked with O(kvm.passthrough.iommu_info#module:groups=true), and each task should
        not stop the play, so that there is something to report.
    type: dict
    required: true
  generated:
    description:
      - The time of the report, as C(2026-11-26T03:30:00Z).
    type: str
    required: true
seealso:
  - plugin: kvm.passthrough.audit_page
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Look at the IOMMU
  kvm.passthrough.iommu_info:
    groups: true
  register: iommu
  ignore_unreachable: true
  failed_when: false

- name: Keep it as JSON
  ansible.builtin.copy:
    dest: audit.json
    content: "{{ {inventory_hostname: {'iommu_info': iommu}} | kvm.passthrough.audit_report(moment) | to_nice_json }}"
    mode: "0600"
  delegate_to: localhost
  vars:
    moment: "{{ now(utc=true).strftime('%Y-%m-%dT%H:%M:%SZ') }}"
"""

RETURN = r"""
_value:
  description:
    - The report. Its fields are described in docs/audit_report.md.
  type: dict
"""

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.report import fleet_report


def audit_report(results: Mapping[str, Any], generated: str) -> dict[str, Any]:
    """The report about the hosts of ``results``.

    :raises AnsibleFilterError: when the input is no mapping
    """
    if not isinstance(results, Mapping):
        raise AnsibleFilterError(
            "kvm.passthrough.audit_report: the input has to be a mapping of host names to what modules returned there, "
            f"but this is a {type(results).__name__}."
        )
    return fleet_report(results, generated)


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"audit_report": audit_report}
