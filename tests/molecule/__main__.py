# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run scenarios to their end, two at a time: ``python3 -m tests.molecule [SCENARIO…]``, from the repository's root."""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.lab import LabError

from . import collections, podman, scenarios

AT_A_TIME = 2
TIME_LIMITS = {scenarios.LAB: 2400.0}
TIME_LIMIT = 900.0


class Runner:
    """Runs scenarios, each in an environment of its own, and ends them all when it is told to."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._ended = False

    def run(self, scenario: str, log: Path, prefix: str) -> tuple[bool, float]:
        """Whether a scenario passed, and after how many seconds; what it said is in ``log``."""
        started = time.monotonic()
        work = Path(tempfile.mkdtemp(prefix="kvm-passthrough-molecule-"))
        environment = {
            **os.environ,
            **self._environment,
            "MOLECULE_EPHEMERAL_DIRECTORY": str(work),
            "MOLECULE_CONTAINER_PREFIX": prefix,
        }
        try:
            with log.open("wb") as output:
                with self._lock:
                    if self._ended:
                        return False, 0.0
                    process = subprocess.Popen(
                        ["molecule", "test", "--scenario-name", scenario],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=subprocess.STDOUT,
                        env=environment,
                        start_new_session=True,
                    )
                    self._processes.add(process)
                try:
                    status = process.wait(TIME_LIMITS.get(scenario, TIME_LIMIT))
                except subprocess.TimeoutExpired:
                    output.write(b"It took too long and was ended.\n")
                    status = 1
                finally:
                    _end(process)
            return status == 0, time.monotonic() - started
        finally:
            shutil.rmtree(work, ignore_errors=True)

    def end(self) -> None:
        """End what runs, and start nothing more."""
        with self._lock:
            self._ended = True
            for process in self._processes:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process with all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def main() -> int:
    """Do what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.molecule", description="Run the scenarios of Molecule.")
    parser.add_argument("scenario", nargs="*", help="default: all that are in containers")
    options = parser.parse_args()
    # Without this, being ended would leave containers running.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        unknown = set(options.scenario) - set(scenarios.names())
        if unknown:
            raise LabError(f"no scenario {', '.join(sorted(unknown))}; there is: {', '.join(scenarios.names())}")
        return run_all(options.scenario or scenarios.in_containers())
    except LabError as error:
        print(f"molecule: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("molecule: interrupted", file=sys.stderr)
        return 130


def run_all(wanted: Sequence[str]) -> int:
    """Run these scenarios; returns the exit status. Whatever happens, no container and no machine is left.

    :raises LabError: when they cannot be started
    """
    prefix = f"kvm-passthrough-{secrets.token_hex(3)}-"
    settings = {"ANSIBLE_COLLECTIONS_PATH": _collections_path(), "PY_COLORS": "0", "ANSIBLE_NOCOLOR": "1"}
    engine: dict[str, str] = {}
    if set(wanted) != {scenarios.LAB}:
        chosen = os.environ.get("MOLECULE_IMAGE")
        engine = podman.find_environment(chosen) if chosen else podman.prepare_image()
        if not chosen:
            settings |= {"MOLECULE_IMAGE": podman.image_name(), "MOLECULE_NETWORK": "none"}
    runner = Runner({**settings, **engine})
    failed = []
    with tempfile.TemporaryDirectory(prefix="kvm-passthrough-molecule-logs-") as logs:
        pool = concurrent.futures.ThreadPoolExecutor(AT_A_TIME)
        try:
            running = {}
            for name in wanted:
                log = Path(logs, f"{name}.log")
                running[pool.submit(runner.run, name, log, f"{prefix}{name}-")] = (name, log)
            for done in concurrent.futures.as_completed(running):
                name, log = running[done]
                passed, seconds = done.result()
                if not passed:
                    failed.append(name)
                    print(log.read_text(encoding="utf-8", errors="replace"), flush=True)
                print(f"{name}: {'passed' if passed else 'FAILED'} after {seconds:.0f} s", flush=True)
        finally:
            runner.end()
            pool.shutdown(cancel_futures=True)
            for name in wanted:
                _clean_up(name, f"{prefix}{name}-", engine)
    print(f"molecule: {len(wanted) - len(failed)} passed, {len(failed)} failed", flush=True)
    return 1 if failed else 0


def _collections_path() -> str:
    """Where Ansible finds this collection and the one the scenarios need."""
    return os.pathsep.join([*filter(None, [os.environ.get("ANSIBLE_COLLECTIONS_PATH")]), str(collections.path())])


def _clean_up(scenario: str, prefix: str, engine: Mapping[str, str]) -> None:
    """Remove what a scenario that was ended has left."""
    if scenario != scenarios.LAB:
        podman.remove_containers(prefix, engine)
        return
    from tests.lab.machine import find_machines

    for machine in find_machines(f"{prefix}labhost"):
        machine.stop()


if __name__ == "__main__":
    sys.exit(main())
