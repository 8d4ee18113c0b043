# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all tests of the core share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host


@pytest.fixture(autouse=True, scope="module")
def _no_flush() -> Iterator[None]:
    """Flushing matters when the power fails, not when a process ends, and would take most of the time here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _unused: None)
        yield


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A host with nothing in it; ``tmp_path`` is its root."""
    return Host(str(tmp_path))
