# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m …tests.benchmark.change ROOT URI DOMAIN ADDRESS STATE``: what domain_hostdevs does with one device.

Prints whether that changed the definition.
"""

from __future__ import annotations

import sys

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import build

from .report import no_addresses


def main() -> None:
    root, uri, domain, address, state = sys.argv[1:]
    parameters = {
        "domain": domain,
        "path": None,
        "uri": uri,
        "scope": "config",
        "state": state,
        "hostdevs": [{"device": address, "managed": True, "assigned": True}],
        "force": [],
        "timeout": 60,
    }
    host = Host(root, runner=no_addresses)
    done = execute(host, build(host, parameters), module="domain_hostdevs", check_mode=False)
    print("changed" if done["changed"] else "nothing to change")


if __name__ == "__main__":
    main()
