# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make docs-generated``: write what is generated of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path

from . import troubleshooting, variables
from .codes import Unreadable

ROOT = Path(__file__).resolve().parents[2]


def generated(root: Path) -> dict[str, str]:
    """The files that are written, with their contents."""
    return {troubleshooting.PAGE: troubleshooting.page(root), **variables.readmes(root)}


def main() -> int:
    """Write what is out of date, and say so; returns the exit status."""
    try:
        files = generated(ROOT)
    except (troubleshooting.Mismatch, Unreadable, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    for name, text in files.items():
        if (ROOT / name).read_text(encoding="utf-8") != text:
            (ROOT / name).write_text(text, encoding="utf-8")
            print(f"{name} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
