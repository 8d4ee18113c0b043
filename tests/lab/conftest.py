# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Emulated machines for tests. Of a large one each test gets a clean one of its own; a small one is shared."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Generator, Iterator

import pytest

from tests import lab
from tests.lab.run import tail

# It asserts for the tests.
pytest.register_assert_rewrite("tests.lab.controller")

StartSmall = Callable[[str], lab.Machine]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--machine``, ``--full`` and ``--write-table``."""
    parser.addoption("--machine", type=_known, help="only the tests on this machine of the lab; a pattern: 'arm64*'")
    parser.addoption("--full", action="store_true", help="the tests too that are left out when nobody waits for them")
    parser.addoption(
        "--write-table", action="store_true", help="write docs/platforms.md from what the machines show, not compare"
    )


def _known(pattern: str) -> str:
    if not fnmatch.filter(lab.MACHINES, pattern):
        raise pytest.UsageError(f"no machine of the lab matches '{pattern}'; there is: {', '.join(lab.MACHINES)}")
    return pattern


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "lab(machine): runs on that emulated machine, default intel")
    config.addinivalue_line("markers", "full: left out, unless with --full or when its machine is asked for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests on other machines than ``--machine``, or the slow ones; put those on one machine together."""
    wanted = config.getoption("--machine")
    if wanted:
        others = [item for item in items if not fnmatch.fnmatch(_machine_of(item) or wanted, wanted)]
    else:
        others = [item for item in items if item.get_closest_marker("full") and not config.getoption("--full")]
    if others:
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]
    order = {name: number for number, name in enumerate(lab.MACHINES)}
    items.sort(key=lambda item: order.get(_machine_of(item) or "", -1))


def _machine_of(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("lab")
    if marker is None:
        return None
    return str(marker.args[0]) if marker.args else lab.DEFAULT


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of a machine's serial console beside the failure of its test."""
    report = yield
    if report.when == "call" and report.failed:
        for name, value in getattr(item, "funcargs", {}).items():
            if isinstance(value, lab.Machine):
                report.sections.append((f"serial console of {name}", tail(value.serial_log)))
    return report


@pytest.fixture
def snapshots(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> str:
    """The large machine of the test's marker, built where the cache lacks it, which takes minutes and is shown."""
    name = _machine_of(request.node)
    assert name in lab.LARGE, f"'{name}' is not a large machine"
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        lab.build(name)
    return name


@pytest.fixture
def large_machine(snapshots: str) -> Iterator[lab.Machine]:
    """The large machine of the test's marker, in its first state."""
    with lab.start(snapshots) as machine:
        yield machine


@pytest.fixture
def fresh_host(snapshots: str) -> Iterator[lab.Machine]:
    """A machine with ``intel_iommu=off``."""
    with lab.start("intel", snapshot="fresh") as machine:
        yield machine


@pytest.fixture
def iommu_host(snapshots: str) -> Iterator[lab.Machine]:
    """A machine with ``intel_iommu=on``."""
    with lab.start("intel", snapshot="iommu") as machine:
        yield machine


@pytest.fixture(scope="session")
def _small_machines(pytestconfig: pytest.Config) -> Iterator[StartSmall]:
    """Starts a small machine, or hands out the one that runs: one at a time, each as long as its tests are in a row."""
    running: dict[str, lab.Machine] = {}
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def stop() -> None:
        for name in list(running):
            running.pop(name).stop()

    def start(name: str) -> lab.Machine:
        if name not in running:
            stop()
            with capture.global_and_fixture_disabled():
                running[name] = lab.start(name)
        return running[name]

    yield start
    stop()


@pytest.fixture
def small_machine(request: pytest.FixtureRequest, _small_machines: StartSmall) -> lab.Machine:
    """The small machine of the test's marker, shared by its tests: each leaves it as it was."""
    name = _machine_of(request.node)
    assert name in lab.small.MACHINES, f"'{name}' is not a small machine"
    return _small_machines(name)
