# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.domains import passthrough_host
from ansible_collections.kvm.passthrough.tests.unit.support.embedded_libvirt import EmbeddedLibvirt, open_embedded
from ansible_collections.kvm.passthrough.tests.unit.support.pools import machine_with_vfs
from ansible_collections.kvm.passthrough.tests.unit.support.private_libvirt import PrivateLibvirt, private_libvirt
from ansible_collections.kvm.passthrough.tests.unit.support.sysfs import SysfsTree


@pytest.fixture
def libvirt() -> Iterator[EmbeddedLibvirt]:
    """The real libvirt, without a domain."""
    pytest.importorskip("lxml")
    opened = open_embedded()
    opened.clean()
    yield opened
    opened.clean()


@pytest.fixture
def tree(tmp_path: Path) -> SysfsTree:
    """The machine of :mod:`support.domains`."""
    return passthrough_host(tmp_path)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> SysfsTree:
    """The machine of :mod:`support.pools`."""
    return machine_with_vfs(tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="module")
def daemon(machine: SysfsTree) -> Iterator[PrivateLibvirt]:
    """The real libvirt with its network driver, on that machine."""
    with private_libvirt(machine) as libvirt:
        yield libvirt
