# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: inject_hostdevs
short_description: Put PCI devices into the XML of a libvirt domain
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - >-
    Takes the XML of a libvirt domain as text (from a file or a template) and returns it with C(<hostdev>) elements for
    PCI devices of the host. Everything else in it stays as it is, byte for byte. A device that the definition has
    already as it is asked for stays as it is too, so that a second time changes nothing; one that it has with other
    settings gets those that are given.
  - >-
    It works on the controller, without libvirt and without the host. What can be known there is checked: each option
    and its value, and that the devices of the guest do not get into each other's way (guest addresses, boot order,
    aliases, ids of IBM Z). All problems are reported together. What needs the host is not checked: that the device
    exists, what else is in its IOMMU group, who else has it. M(kvm.passthrough.domain_hostdevs) checks that, too;
    where the definition comes to a host anyway, prefer it.
  - >-
    XML with a document type declaration or with entities is refused, and so is XML that is larger (4 MiB) or more
    deeply nested (256 elements) than libvirt would take.
requirements:
  - the Python module C(lxml) on the controller
positional: hostdevs
options:
  _input:
    description:
      - The XML of one domain, as text.
    type: str
    required: true
  hostdevs:
    description:
      - >-
        A list of mappings as M(kvm.passthrough.domain_hostdevs) takes them in
        O(kvm.passthrough.domain_hostdevs#module:hostdevs), with the same options. C(device) has to be an address
        (C(0000:01:10.0), C(01:10.0), C(pci_0000_01_10_0)), or a mapping of C(address) and, if you like, C(name). Other
        selectors need the host and are refused.
    type: list
    elements: dict
    required: true
  libvirt_version:
    description:
      - >-
        The version of libvirt on the host, as C("9.0.0"). An option that is newer is then an error, since that libvirt
        would ignore it without a word. When it is not given, every option is accepted.
    type: str
seealso:
  - module: kvm.passthrough.domain_hostdevs
  - plugin: kvm.passthrough.pci_address
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write the definition of a domain with two devices in it
  ansible.builtin.copy:
    dest: /srv/domains/web01.xml
    content: "{{ lookup('ansible.builtin.template', 'web01.xml.j2') | kvm.passthrough.inject_hostdevs(devices) }}"
    mode: "0600"
  vars:
    devices:
      - device: "0000:01:10.0"
      - device: "0000:02:00.0"
        managed: false
        boot_order: 1
"""

RETURN = r"""
_value:
  description:
    - The XML with the devices in it.
  type: str
"""

from collections.abc import Mapping, Sequence
from typing import Any, Callable

from ansible.errors import AnsibleFilterError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt import inject
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import argument_spec


def inject_hostdevs(xml: str, hostdevs: Sequence[Mapping[str, Any]], libvirt_version: str | None = None) -> str:
    """``xml`` with the hostdevs in it.

    :raises AnsibleFilterError: with everything that is wrong
    """
    try:
        __import__("lxml.etree")
    except ImportError as error:
        raise _error(
            "the Python module lxml is missing on the controller, where filters run. Install it for the Python that "
            "runs Ansible: pip install lxml, or the package python3-lxml."
        ) from error
    if not isinstance(xml, str):
        raise _error(f"the XML of a domain has to be text, but this is a {type(xml).__name__}.")
    # The same options as those of the module, with the same types and defaults.
    checked = ArgumentSpecValidator({"hostdevs": {**argument_spec()["hostdevs"], "required": True}}).validate(
        {"hostdevs": hostdevs}
    )
    if checked.error_messages:
        unknown = "there is no option " if checked.unsupported_parameters else ""
        raise _error(f"{unknown}{'; '.join(message.rstrip('.') for message in checked.error_messages)}.")
    try:
        return inject.inject_hostdevs(xml, checked.validated_parameters["hostdevs"], libvirt_version)
    except PassthroughError as error:
        raise _error(str(error)) from error


def _error(message: str) -> AnsibleFilterError:
    return AnsibleFilterError(f"kvm.passthrough.inject_hostdevs: {message}")


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"inject_hostdevs": inject_hostdevs}
