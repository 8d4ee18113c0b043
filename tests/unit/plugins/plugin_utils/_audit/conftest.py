# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support import fleet

TIME = "2026-11-26T03:30:00Z"


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What modules answer on a host of each kind. A test that changes an answer works on a copy."""
    pytest.importorskip("lxml.etree")
    return fleet.kinds(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What they answer on a host that is after whoever reads the report."""
    pytest.importorskip("lxml.etree")
    return fleet.hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What they answer on a host whose guests are not as the inventory asks for."""
    pytest.importorskip("lxml.etree")
    return fleet.guests(tmp_path_factory.mktemp("guests"))
