# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make ``ansible_collections.kvm.passthrough`` importable, whoever runs pytest and from where."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

from hypothesis import settings

# Tests share two slow cores with others on CI; how long one example takes says nothing about what it tests.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

COLLECTION = "ansible_collections.kvm.passthrough"
ROOT = Path(__file__).resolve().parents[2]

_links: list[tempfile.TemporaryDirectory[str]] = []  # kept until pytest ends


def _is_importable() -> bool:
    """``make unit`` and ``ansible-test units`` see to it themselves."""
    try:
        spec = importlib.util.find_spec(COLLECTION)
    except ModuleNotFoundError:
        return False
    return spec is not None and any(Path(place).resolve() == ROOT for place in spec.submodule_search_locations or [])


if not _is_importable():
    _links.append(tempfile.TemporaryDirectory(prefix="kvm-passthrough-"))
    _link = Path(_links[0].name, *COLLECTION.split("."))
    _link.parent.mkdir(parents=True)
    _link.symlink_to(ROOT)
    sys.path.insert(0, _links[0].name)
    importlib.invalidate_caches()
