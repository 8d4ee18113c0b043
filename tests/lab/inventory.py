# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Ansible inventory of a running machine."""

from __future__ import annotations

from pathlib import Path

# Each machine has keys of its own and lives for minutes: there is no identity to remember.
# "-F none" keeps the caller's ssh configuration out.
SSH_OPTIONS = (
    "-F", "none",
    "-o", "StrictHostKeyChecking=no",
    "-o", "UserKnownHostsFile=/dev/null",
    "-o", "LogLevel=ERROR",
    "-o", "IdentitiesOnly=yes",
    "-o", "BatchMode=yes",
    "-o", "ServerAliveInterval=15",
    "-o", "ServerAliveCountMax=8",
)  # fmt: skip


def text(port: int, key: Path, sockets: Path) -> str:
    """The inventory as YAML. Ansible's own connection sharing stays in force; its sockets go to ``sockets``."""
    return f"""\
---
kvm_hosts:
  hosts:
    labhost:
      ansible_host: 127.0.0.1
      ansible_port: {port}
      ansible_user: ops
      ansible_ssh_private_key_file: "{key}"
      ansible_ssh_common_args: "{" ".join(SSH_OPTIONS)}"
      ansible_control_path_dir: "{sockets}"
      ansible_pipelining: true
      ansible_timeout: 60
      ansible_python_interpreter: /usr/bin/python3
      ansible_become_method: ansible.builtin.sudo
"""
