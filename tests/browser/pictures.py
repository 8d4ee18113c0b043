# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make docs-pictures``: draw the pictures of the documentation anew, of hosts that are made up.

They are kept in the repository, since not everybody who reads or builds the documentation has a browser for it. The
hosts are those of the tests of the audit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.page import audit_page
from ansible_collections.kvm.passthrough.plugins.plugin_utils._audit.report import fleet_report
from ansible_collections.kvm.passthrough.tests.unit.support import fleet

from .chromium import Chromium, find_chromium

PICTURES = Path(__file__).resolve().parents[2] / "docs/pictures"
TIME = "2026-11-26T03:30:00Z"
LIMIT = 150_000
"""Bytes that a picture may have."""

_HOSTS = {
    "workstation.example.com": "gaming",
    "kvm01.example.com": "server",
    "kvm02.example.com": "amd",
    "kvm03.example.com": "switched-off",
    "kvm04.example.com": "unreachable",
    "lpar1.example.com": "mainframe",
}


def draw(program: str, folder: Path) -> list[Path]:
    """All pictures.

    :param program: the browser
    :param folder: where pages and the browser's profile are kept meanwhile
    """
    kinds = fleet.kinds(folder / "hosts")
    every = _page(folder / "fleet.html", {name: kinds[kind] for name, kind in _HOSTS.items()})
    one = _page(folder / "host.html", {"workstation.example.com": kinds["gaming"]})
    light = {"prefers-color-scheme": "light"}
    drawn = [PICTURES / "audit_page.png", PICTURES / "iommu_groups.png"]
    with Chromium(folder, program) as chromium:
        page = chromium.open(every, light)
        # The overview is enough for a picture.
        page.evaluate("document.querySelectorAll('section:has(> #details), footer').forEach(one => one.remove())")
        page.screenshot(drawn[0], "body")
        page = chromium.open(one, light, width=1000)
        # That there are reasons to read is seen in the overview.
        page.evaluate("document.querySelectorAll('.picture details').forEach(one => one.remove())")
        page.screenshot(drawn[1], ".picture")
    return drawn


def _page(path: Path, hosts: Mapping[str, Any]) -> Path:
    path.write_text(audit_page(fleet_report(hosts, TIME)), encoding="utf-8")
    return path


def main() -> int:
    """Draw them, make them small, and say how large they are."""
    program = find_chromium()
    if program is None:
        print("Chromium is not installed.", file=sys.stderr)
        return 1
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        drawn = draw(program, Path(folder))
    subprocess.run(["pngquant", "--force", "--strip", "--speed", "1", "--ext", ".png", "48", *drawn], check=True)
    for path in drawn:
        print(f"{path.name}: {path.stat().st_size:,} bytes")
    too_large = [path.name for path in drawn if path.stat().st_size > LIMIT]
    if too_large:
        print(f"More than {LIMIT:,} bytes, the limit of a picture: {', '.join(too_large)}", file=sys.stderr)
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main())
