# Copyright: (c) 2026, kvm.passthrough contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs commands on a host that is a directory tree, in a mount namespace of its own. See tests.fleet.tree."""

from __future__ import annotations

import os
import shlex
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as LocalConnection

DOCUMENTATION = """
name: tree
short_description: Hosts that are directory trees
description: Used by the tests of this collection only.
author: kvm.passthrough contributors (@kvm-passthrough)
extends_documentation_fragment:
  - connection_pipelining
options:
  tree_root:
    description: The directory that the host sees as its root.
    vars:
      - name: ansible_tree_root
  tree_python:
    description: A directory of this machine with another Python, which the host has in the same place.
    default: ""
    vars:
      - name: ansible_tree_python
"""

# The tree sees this machine's programs at one place only, where nothing looks that does not know of it.
ENTER = """
mount --rbind /usr "$1/.machine/usr"
mount --bind /dev/null "$1/dev/null"
if [ -n "$2" ]; then mount --rbind "$2" "$1$2"; fi
exec chroot "$1" /bin/sh -c "$3"
"""


class Connection(LocalConnection):  # type: ignore[misc]
    """The local connection, but for where commands run."""

    transport = "tree"
    has_pipelining = True

    @property
    def _root(self) -> str:
        root: str = self.get_option("tree_root")
        if not os.path.isdir(root):
            raise AnsibleConnectionFailure(f"{root} is not there")
        return root

    def exec_command(self, cmd: str, in_data: bytes | None = None, sudoable: bool = True) -> Any:
        mine = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        words = ["enter", self._root, self.get_option("tree_python"), cmd]
        argv = ["unshare", *mine, "--mount", "--", "/bin/sh", "-euc", ENTER, *words]
        return super().exec_command(shlex.join(argv), in_data=in_data, sudoable=sudoable)

    def put_file(self, in_path: str, out_path: str) -> None:
        super().put_file(in_path, self._root + out_path)

    def fetch_file(self, in_path: str, out_path: str) -> None:
        super().fetch_file(self._root + in_path, out_path)
