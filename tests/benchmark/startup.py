# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module costs before it does anything: its imports, beside those of ``ansible.builtin.ping``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from .measure import Command, with_byte_code

RUNS = 7
MODULES = Path(__file__).parents[2] / "plugins/modules"
PACKAGE = "ansible_collections.kvm.passthrough.plugins.modules"

# What they are now, and some room: a module that takes in what it does not need is found by this.
MAX_RATIO = {"": 2.3, "libvirt": 3.2}
LIBVIRT = ("domain_hostdevs", "hostdev_info", "hostdev_network")

NOTES = """\
Each figure is the processor time of a whole python3 that imports the module and ends, with its byte code in the cache:
the least of {runs} runs. Those marked * also load libvirt's bindings and lxml."""


def startup() -> list[str]:
    """Measure, print a table, and return the limits that are missed."""
    names = sorted(path.stem for path in MODULES.glob("*.py") if path.stem != "__init__")
    with tempfile.TemporaryDirectory(prefix="byte-code-") as cache:
        environment = with_byte_code(Path(cache))
        wanted = {"ping": "ansible.modules.ping", **{name: f"{PACKAGE}.{name}" for name in names}}
        commands = {
            name: Command([sys.executable, "-c", f"import {module}"], environment) for name, module in wanted.items()
        }
        rounds = [
            {name: command.processor_seconds() for name, command in commands.items()} for _unused in range(RUNS + 1)
        ]
    seconds = {name: min(each[name] for each in rounds[1:]) for name in commands}
    print(f"\n{'module':<20} {'start':>8} {'beside ping':>12}")
    missed = []
    for name, least in seconds.items():
        beside = least / seconds["ping"]
        limit = MAX_RATIO["libvirt" if name in LIBVIRT else ""]
        marked = f"{name} *" if name in LIBVIRT else name
        print(f"{marked:<20} {least * 1000:>5.0f} ms {beside:>12.2f}")
        if beside > limit:
            missed.append(f"the start of {name} takes {beside:.2f} times that of ping, more than {limit:g}")
    print()
    print(NOTES.format(runs=RUNS))
    return missed
