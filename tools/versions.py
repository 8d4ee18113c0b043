# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every ansible-core that the collection supports: its sanity tests, and unit tests of what it loads.

For each series, with the first of its Pythons that is on ``PATH``, an environment is made in the cache. What is missing
is skipped, and said. The table at the end has what was seen::

    python -m tools.versions [--core 2.20] [--python 3.12]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import dev

CORES = {
    "2.18": ("3.11", "3.12", "3.13"),
    "2.19": ("3.11", "3.12", "3.13"),
    "2.20": ("3.12", "3.13", "3.14"),
    "2.21": ("3.12", "3.13", "3.14"),
    "2.22": ("3.13", "3.14", "3.15"),
}
"""The series of ansible-core, and the Pythons each runs on, from its own ``CONTROLLER_PYTHON_VERSIONS``."""

# What ansible-core loads or calls. The packages behind the modules know nothing of it; "make unit" has them all.
UNITS = (
    "tests/unit/plugins/modules",
    "tests/unit/plugins/filter",
    "tests/unit/plugins/plugin_utils",
    "tests/unit/plugins/module_utils/_core",
)

PASSED = "passed"
FAILED = "FAILED"


@dataclass(frozen=True)
class Row:
    """What was seen of one series; ``skipped`` says why nothing was."""

    core: str
    python: str = ""
    sanity: str = ""
    units: str = ""
    skipped: str = ""

    @property
    def failed(self) -> bool:
        """Whether something was run, and complained."""
        return FAILED in self.sanity or FAILED in self.units


def table(rows: Sequence[Row]) -> str:
    """For a person: one line for each series."""
    lines = [("ansible-core", "Python", "sanity", "units")]
    lines += [(row.core, row.python, row.sanity, row.units) for row in rows if not row.skipped]
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text += [f"{row.core.ljust(widths[0])}  SKIPPED: {row.skipped}" for row in rows if row.skipped]
    return "\n".join(text)


def interpreters() -> dict[str, str]:
    """The Pythons on ``PATH``, but for the one of the environment this runs in."""
    own = str(Path(sys.prefix, "bin"))
    search = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != own]
    wanted = sorted({version for versions in CORES.values() for version in versions})
    return dev.find_interpreters(wanted, search)[0]


def environment_of(core: str, python: str, interpreter: str) -> Path:
    """The environment with this series. A series that is not released yet gives its newest preview."""
    major, minor = core.split(".")
    wanted = f"ansible-core >= {core}.0.dev0, < {major}.{int(minor) + 1}.0.dev0"
    venv = dev.CACHE / f"core-{core}-{python}-{dev.venv_key(interpreter, wanted)}"
    dev.build_venv(venv, interpreter, [wanted, "--requirement", dev.UNIT_REQUIREMENTS])
    return venv


def exact_version(venv: Path) -> str:
    """Of ansible-core in an environment."""
    code = "from ansible.release import __version__; print(__version__)"
    done = subprocess.run([venv / "bin/python", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def try_series(core: str, python: str, interpreter: str) -> Row:
    """Run both checks under one series."""
    venv = environment_of(core, python, interpreter)
    version = exact_version(venv)
    with dev.locked(dev.CHECKOUT / "copy.lock"):
        env = dev.prepare_ansible_test(venv)
        copy = dev.sync_copy()

        def check(name: str, command: Sequence[str]) -> str:
            started = time.monotonic()
            status = dev.execute(f"{name}, ansible-core {version}, Python {python}", command, copy, env)
            return f"{FAILED if status else PASSED} ({time.monotonic() - started:.0f} s)"

        sanity = check("sanity", ["ansible-test", "sanity", "--local"])
        units = check("units", ["ansible-test", "units", "--python", python, *(f"{folder}/" for folder in UNITS)])
    return Row(version, python, sanity, units)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make versions", description="Check the collection under each ansible-core.")
    parser.add_argument("--core", choices=[*CORES], action="append", help="this series only; may be repeated")
    parser.add_argument("--python", help="with this Python of the controller, rather than the first that is there")
    options = parser.parse_args()
    found = interpreters()
    rows = []
    for core in options.core or CORES:
        pythons = [version for version in CORES[core] if options.python in (None, version)]
        python = next((version for version in pythons if version in found), None)
        if python is not None:
            rows.append(try_series(core, python, found[python]))
            continue
        names = " or ".join(f"python{version}" for version in pythons)
        missing = (
            f"no {names} with its venv module on PATH" if pythons else f"it does not run on Python {options.python}"
        )
        rows.append(Row(core, skipped=missing))
        dev.say(f"ansible-core {core}: SKIPPED, {missing}")
    print(f"\n{table(rows)}", flush=True)
    return 1 if any(row.failed for row in rows) or all(row.skipped for row in rows) else 0


if __name__ == "__main__":
    raise SystemExit(main())
