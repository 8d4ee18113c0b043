# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What domain_hostdevs does with one device: ``python3 -m … ROOT URI DOMAIN ADDRESS STATE [RUNS]``.

Prints whether that changed the definition. With RUNS it runs in check mode, so many times, and prints the median of the
seconds that took.
"""

from __future__ import annotations

import sys
import time
from statistics import median

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import build

from .report import no_addresses


def main() -> None:
    root, uri, domain, address, state, *runs = sys.argv[1:]
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
    if runs:
        seconds = []
        for _number in range(int(runs[0])):
            started = time.perf_counter()
            host = Host(root, runner=no_addresses)
            planned = execute(host, build(host, parameters), module="domain_hostdevs", check_mode=True)
            seconds.append(time.perf_counter() - started)
            assert planned["changed"]
        print(median(seconds))
        return
    host = Host(root, runner=no_addresses)
    done = execute(host, build(host, parameters), module="domain_hostdevs", check_mode=False)
    print("changed" if done["changed"] else "nothing to change")


if __name__ == "__main__":
    main()
