# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make docs-generated``: write what is generated of the documentation; with ``--check``, say what is out of date."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import troubleshooting, variables
from .codes import Unreadable

ROOT = Path(__file__).resolve().parents[2]


def generated(root: Path) -> dict[str, str]:
    """The files that are written, with their contents."""
    return {troubleshooting.PAGE: troubleshooting.page(root), **variables.readmes(root)}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the parts of the documentation that come from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 1 when a file is out of date")
    options = parser.parse_args()
    try:
        files = generated(ROOT)
    except (troubleshooting.Mismatch, Unreadable, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    stale = [name for name, text in files.items() if (ROOT / name).read_text(encoding="utf-8") != text]
    for name in stale:
        if options.check:
            print(f'{name} is out of date: run "make docs-generated".', file=sys.stderr)
        else:
            (ROOT / name).write_text(files[name], encoding="utf-8")
            print(f"{name} written")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
