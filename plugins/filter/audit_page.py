# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See DOCUMENTATION."""

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_page
short_description: Show a report of audit_report as one HTML page
version_added: "1.0.0"
author:
  - kvm.passthrough contributors (@kvm-passthrough)
description:
  - >-
    Takes a report of P(kvm.passthrough.audit_report#filter) and returns it as one HTML page for people. The page
    needs no network and no other file, follows the light or dark setting of the reader's system, and can be printed.
    Without scripts it shows everything too; with them, it filters and sorts hosts.
  - >-
    Everything that comes from hosts is shown as text, whatever it holds. The page forbids browsers (by a Content
    Security Policy) to run any other script than its own, and to load anything.
options:
  _input:
    description:
      - The report, also one that was kept as JSON.
    type: dict
    required: true
seealso:
  - plugin: kvm.passthrough.audit_report
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Make the page again from a report that was kept
  ansible.builtin.copy:
    dest: audit.html
    content: "{{ lookup('ansible.builtin.file', 'audit.json') | from_json | kvm.passthrough.audit_page }}"
    mode: "0600"
  delegate_to: localhost
"""

RETURN = r"""
_value:
  description:
    - The page.
  type: str
"""

from collections.abc import Mapping
from typing import Any, Callable

from ansible.errors import AnsibleFilterError

from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.page import audit_page as page_of


def audit_page(report: Mapping[str, Any]) -> str:
    """The page about ``report``.

    :raises AnsibleFilterError: when it is no report, or one of another version
    """
    if not isinstance(report, Mapping):
        raise _error(f"the input has to be a report of audit_report, but this is a {type(report).__name__}.")
    try:
        return page_of(report)
    except ValueError as error:
        raise _error(f"{error}. Make the report with this version of the collection.") from error


def _error(message: str) -> AnsibleFilterError:
    return AnsibleFilterError(f"kvm.passthrough.audit_page: {message}")


class FilterModule:
    """What Ansible asks for."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """The filters of this file."""
        return {"audit_page": audit_page}
