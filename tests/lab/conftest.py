# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated machines for tests: each test gets a clean one of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests import lab
from tests.lab import snapshot
from tests.lab.run import tail


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--machine``."""
    parser.addoption("--machine", choices=lab.MACHINES, help="only the tests on this machine of the lab")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "lab(machine): runs on that emulated machine, default intel")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests on other machines than ``--machine``."""
    wanted = config.getoption("--machine")
    if not wanted:
        return
    others = [item for item in items if _machine_of(item) not in (None, wanted)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _machine_of(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("lab")
    if marker is None:
        return None
    return str(marker.args[0]) if marker.args else lab.MACHINES[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of a machine's serial console beside the failure of its test."""
    report = yield
    if report.when == "call" and report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, lab.Machine):
                report.sections.append((f"serial console of {name}", tail(value.serial_log)))
    return report


@pytest.fixture(scope="session")
def snapshots(pytestconfig: pytest.Config) -> None:
    """Build what the cache lacks, once, with the progress on the terminal: it takes minutes."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        for each in lab.Snapshot:
            snapshot.build(each)


@pytest.fixture
def fresh_host(snapshots: None) -> Iterator[lab.Machine]:
    """A machine with ``intel_iommu=off``."""
    with lab.start("intel", snapshot="fresh") as machine:
        yield machine


@pytest.fixture
def iommu_host(snapshots: None) -> Iterator[lab.Machine]:
    """A machine with ``intel_iommu=on``."""
    with lab.start("intel", snapshot="iommu") as machine:
        yield machine
