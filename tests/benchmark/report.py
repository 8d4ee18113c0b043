# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m …tests.benchmark.report ROOT``: what the module pci_device_info returns for all devices of a machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.info import devices_report


def no_addresses(argv: Sequence[str], _timeout: float, _stdin: str | None) -> Completed:
    """Commands of the machine in the tree: ``ip`` knows neither addresses nor routes."""
    if argv[0] != "ip":
        raise FileNotFoundError(argv[0])
    return Completed(tuple(argv), 0, "[]", "")


def main() -> None:
    sys.stdout.write(json.dumps(devices_report(Host(sys.argv[1], runner=no_addresses), None)))


if __name__ == "__main__":
    main()
