# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._iommu.report import iommu_report
from ansible_collections.kvm.passthrough.plugins.module_utils._pci.device import Bus
from tests.lab.run import LabError
from tests.molecule import __main__ as runner
from tests.molecule import podman, scenarios


@pytest.mark.parametrize("scenario", scenarios.names())
def test_a_scenario_goes_the_whole_way(scenario: str) -> None:
    common = yaml.safe_load((scenarios.DIRECTORY / "config.yml").read_text())
    own = yaml.safe_load((scenarios.DIRECTORY / scenario / "molecule.yml").read_text())
    sequence = own.get("scenario", common["scenario"])["test_sequence"]
    assert [step for step in sequence if step != "prepare"] == [
        *("destroy", "create", "converge", "idempotence", "verify", "destroy")
    ]
    playbooks = {**common["provisioner"]["playbooks"], **own["provisioner"].get("playbooks", {})}
    for step in set(sequence) - {"idempotence"}:
        assert (scenarios.DIRECTORY / scenario / playbooks.get(step, f"{step}.yml")).is_file()


def test_no_container_has_more_rights_than_usual() -> None:
    started = (scenarios.DIRECTORY / "common/create.yml").read_text()
    assert "podman" in started
    for right in ("--privileged", "--cap-add", "seccomp", "--pid", "--userns", "/sys:", "cgroup"):
        assert right not in started


def test_what_scenarios_stand_on_is_in_the_collection_that_users_install() -> None:
    """hardware.py imports what unit tests make trees with."""
    ignored = yaml.safe_load((scenarios.DIRECTORY.parents[1] / "galaxy.yml").read_text())["build_ignore"]
    for needed in ("tests/unit/support/sysfs.py", "extensions/molecule/config.yml"):
        assert not any(fnmatch(needed, f"{pattern.strip('/')}*") for pattern in ignored)


def test_another_package_is_another_image(monkeypatch: pytest.MonkeyPatch) -> None:
    before = podman.image_key()
    assert podman.image_key() == before
    monkeypatch.setattr(scenarios, "packages", lambda: ["python3"])
    assert podman.image_key() != before


@pytest.fixture
def podman_that_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a podman on PATH that starts a container where this condition of a shell holds."""

    def install(condition: str) -> None:
        program = tmp_path / "podman"
        program.write_text(f'#!/bin/sh\n{condition} && exit\necho "no: $CONTAINERS_CONF" >&2\nexit 125\n')
        program.chmod(0o755)

    monkeypatch.setattr("tests.lab.run._SEARCH_PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv(podman.VARIABLE, raising=False)
    return install


def test_podman_gets_our_settings_only_where_it_needs_them(
    podman_that_wants: Callable[[str], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    podman_that_wants("true")
    assert podman.find_environment("image") == {}
    assert capsys.readouterr().err == ""
    podman_that_wants('test -n "$CONTAINERS_CONF"')
    assert podman.find_environment("image") == {podman.VARIABLE: str(podman.CONFIGURATION)}
    assert str(podman.CONFIGURATION) in capsys.readouterr().err
    podman_that_wants("false")
    with pytest.raises(LabError, match=r"(?s)of the image image:.*no:\n.*no: .*containers\.conf$"):
        podman.find_environment("image")
    # Those of the user stay.
    monkeypatch.setenv(podman.VARIABLE, "/own")
    with pytest.raises(LabError, match=r"no: /own$"):
        podman.find_environment("image")


def test_the_hardware_is_that_of_a_host_with_an_active_iommu(tmp_path: Path) -> None:
    script = scenarios.DIRECTORY / "vfio_host/hardware.py"
    subprocess.run([sys.executable, script, tmp_path], check=True)
    host = Host(str(tmp_path))
    assert iommu_report(host)["state"] == "active"
    drivers = {str(device.address): device.driver for device in Bus(host).devices()}
    assert drivers["0000:01:10.0"] == drivers["0000:01:10.2"] == "vfio-pci"


# -- what runs is ended ------------------------------------------------------------------------------------


@pytest.fixture
def hanging(tmp_path: Path) -> dict[str, str]:
    """An environment in which Molecule hangs, and has started something that hangs as well."""
    program = tmp_path / "bin/molecule"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nsleep 600 &\necho $! >"{tmp_path}/child"\nwait\n')
    program.chmod(0o755)
    return {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}


def is_running(child: Path) -> bool:
    state = Path(f"/proc/{child.read_text().strip()}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_scenario_that_takes_too_long(
    tmp_path: Path, hanging: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "TIME_LIMIT", 1.0)
    log = tmp_path / "log"
    passed, seconds = runner.Runner(hanging).run("vfio_host", log, "prefix-")
    assert not passed
    assert seconds < 60
    assert "too long" in log.read_text()
    assert not is_running(tmp_path / "child")


def test_what_runs_is_ended_with_all_that_it_started(tmp_path: Path, hanging: dict[str, str]) -> None:
    running = runner.Runner(hanging)
    answers: list[tuple[bool, float]] = []
    thread = threading.Thread(target=lambda: answers.append(running.run("vfio_host", tmp_path / "log", "prefix-")))
    thread.start()
    child = tmp_path / "child"
    while not (child.exists() and child.read_text().strip()):
        time.sleep(0.01)
    running.end()
    thread.join(60)
    assert [passed for passed, _seconds in answers] == [False]
    assert not is_running(child)
    assert running.run("vfio_guest", tmp_path / "log", "prefix-") == (False, 0.0)
