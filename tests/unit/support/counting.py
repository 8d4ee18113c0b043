# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read of a machine, counted: a scan that reads more than it was asked for is slow on a big one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host


class CountingHost(Host):
    """A machine below ``root`` that counts what is asked of each path."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.asked: Counter[str] = Counter()

    def path(self, path: str) -> str:
        self.asked[path] += 1
        return super().path(path)

    def attribute(self, path: str) -> str | None:
        self.asked[path] += 1
        return super().attribute(path)

    def below(self, directory: str) -> Counter[str]:
        """How often each path below a directory was asked for, by its name relative to the directory."""
        start = f"{directory}/"
        return Counter({path[len(start) :]: count for path, count in self.asked.items() if path.startswith(start)})
