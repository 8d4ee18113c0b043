# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pci_address
short_description: The address of a PCI device in another notation
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - >-
    Reads a PCI address in any notation that people and programs use, and writes it in one of them. What is no PCI
    address, or has a number that is out of range, is an error that says so.
positional: notation
options:
  _input:
    description:
      - >-
        The address, as C(0000:01:10.0), C(01:10.0) (domain 0), libvirt's node device name C(pci_0000_01_10_0), or a
        mapping of C(domain) (0 when left out), C(bus), C(slot) and C(function), in which a string is hexadecimal with
        or without C(0x), and a number above 9 is refused, since it is not known in which base it was written.
      - Put addresses in quotes. YAML takes some of them for numbers (C(01:10.0) is 70).
    type: raw
    required: true
  notation:
    description:
      - V(canonical) is how the kernel and C(lspci -D) write it, C(0000:01:10.0).
      - V(nodedev) is the name of libvirt's node device, C(pci_0000_01_10_0).
      - V(mapping) is a mapping of the attributes of libvirt's C(<address>), C({domain, bus, slot, function}).
      - V(xml) is these attributes as text to be put into an XML template. The filter has no opinion on what else
        the element has to have.
      - libvirt reads a number without C(0x) as a decimal or octal one, so that V(mapping) and V(xml) always have C(0x).
    type: str
    choices: [canonical, nodedev, mapping, xml]
    default: canonical
seealso:
  - plugin: kvm.passthrough.inject_hostdevs
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Show the node device of a device (pci_0000_01_10_0)
  ansible.builtin.command:
    argv:
      - virsh
      - nodedev-dumpxml
      - "{{ '01:10.0' | kvm.passthrough.pci_address('nodedev') }}"
  changed_when: false

- name: Write an element of libvirt's, with domain, bus, slot and function in it
  ansible.builtin.copy:
    dest: /root/source.xml
    content: |
      <source><address {{ 'pci_0000_01_10_0' | kvm.passthrough.pci_address('xml') }}/></source>
    mode: "0600"

- name: Write all addresses of a list in the same notation
  ansible.builtin.debug:
    msg: "{{ ['01:10.0', {'bus': '1', 'slot': '10', 'function': 2}] | map('kvm.passthrough.pci_address') }}"
"""

RETURN = r"""
_value:
  description:
    - The address. It is a mapping of text with O(notation=mapping), otherwise text.
  type: raw
  sample: "0000:01:10.0"
"""

from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress

NOTATIONS: dict[str, Callable[[PciAddress], Any]] = {
    "canonical": str,
    "nodedev": lambda address: address.nodedev_name,
    "mapping": lambda address: address.xml_attributes,
    "xml": lambda address: " ".join(f'{name}="{value}"' for name, value in address.xml_attributes.items()),
}


def pci_address(value: Any, notation: str = "canonical") -> Any:
    """``value`` in another notation.

    :raises AnsibleFilterError: when it is no address, or there is no such notation
    """
    if notation not in NOTATIONS:
        raise AnsibleFilterError(
            f"kvm.passthrough.pci_address: there is no notation {notation!r}; there is {', '.join(NOTATIONS)}."
        )
    try:
        return NOTATIONS[notation](PciAddress.parse(value))
    except PassthroughError as error:
        raise AnsibleFilterError(f"kvm.passthrough.pci_address: {error}") from error


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"pci_address": pci_address}
