# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.boot import DEBIAN_13, GrubHost


@pytest.fixture(name="debian")
def debian_fixture(tmp_path: Path) -> GrubHost:
    return GrubHost(tmp_path, DEBIAN_13)
