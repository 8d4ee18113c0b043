# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A device into a definition and out again: ``domain_hostdevs`` beside ``virt-xml``, with one libvirt."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.address import PciAddress
from ansible_collections.kvm.passthrough.tests.unit.support.machine import VF0, hypervisor
from ansible_collections.kvm.passthrough.tests.unit.support.private_libvirt import PrivateLibvirt, private_libvirt

from . import __name__ as package
from .measure import Command, CommandFailed, in_turn, ratio, with_byte_code

RUNS = 5
RUNS_OF_PLAN = 25
DOMAIN = "web01"

# Planning and validating is 50 times faster than virt-xml. Half of that fails: a busy machine is no regression.
MIN_SPEED = 25.0

NOTES = """\
Each figure is the median of {runs} runs of a whole process, the ratio the median of the ratios of neighbouring runs.
virt-xml:         virt-xml --connect URI {domain} --add-device (--remove-device) --hostdev …
domain_hostdevs:  what the module does between its options and its result, in a python3 with its byte code in the
                  cache: it checks the definition and the host, defines with VALIDATE, and compares afterwards.
plan:             of that what comes before anything is defined, in a process that runs already (median of {plans}):
                  libvirt is connected to, the host's devices and all definitions are read, and every rule is asked."""


class Unmeasurable(Exception):
    """Why this cannot be measured on this machine."""


@contextmanager
def host_and_libvirt() -> Iterator[tuple[Path, PrivateLibvirt]]:
    """A hypervisor made of files, and a libvirtd that sees its devices and has a domain."""
    if shutil.which("virt-xml") is None:
        raise Unmeasurable("virt-xml is not installed")
    try:
        with tempfile.TemporaryDirectory(prefix="host-") as folder:
            os.chmod(folder, 0o755)
            tree = hypervisor(Path(folder)).tree
            with private_libvirt(tree) as libvirt:
                libvirt.define_domain("", DOMAIN)
                yield tree.root, libvirt
                libvirt.clean()
    except pytest.skip.Exception as skipped:
        raise Unmeasurable(str(skipped)) from None


def compare() -> list[str]:
    """Measure, print a table, and return what is not as it has to be.

    :raises Unmeasurable: where virt-xml or libvirtd is missing
    """
    with host_and_libvirt() as (root, libvirt), tempfile.TemporaryDirectory(prefix="byte-code-") as cache:
        ours, theirs = _ours(root, libvirt.uri, Path(cache)), _theirs(libvirt.uri)
        each = (("ours", ours), ("theirs", theirs))
        seconds = in_turn({f"{name} {step}": command for name, steps in each for step, command in steps.items()}, RUNS)
        planned = float(_planning(ours["add"]).run()[1])
        again = _a_second_time(ours["add"], theirs["add"])

    print(f"\n{'':>8} {'virt-xml':>10} {'domain_hostdevs':>16} {'ratio':>7}")
    for step in ours:
        mine, other = seconds[f"ours {step}"], seconds[f"theirs {step}"]
        times = [f"{median(values) * 1000:.0f} ms" for values in (other, mine)]
        print(f"{step:>8} {times[0]:>10} {times[1]:>16} {ratio(mine, other):>7.2f}")
    speed = median(seconds["theirs add"]) / planned
    print(f"{'plan':>8} {'':>10} {planned * 1000:>13.1f} ms {1 / speed:>7.3f}")
    print(f"\nThe same once more: domain_hostdevs: {again[0]}; virt-xml: {again[1]}\n")
    print(NOTES.format(runs=RUNS, plans=RUNS_OF_PLAN, domain=DOMAIN))
    missed = [] if again[0] == "nothing to change" else [f"domain_hostdevs a second time: {again[0]}"]
    if speed < MIN_SPEED:
        missed.append(f"a change is planned {speed:.0f} times as fast as virt-xml makes it, less than {MIN_SPEED:g}")
    return missed


def _ours(root: Path, uri: str, cache: Path) -> dict[str, Command]:
    environment = with_byte_code(cache)
    argv = [sys.executable, "-m", f"{package}.change", str(root), uri, DOMAIN, VF0]
    return {step: Command([*argv, state], environment) for step, state in (("add", "present"), ("remove", "absent"))}


def _planning(ours: Command) -> Command:
    return Command([*ours.argv, str(RUNS_OF_PLAN)], ours.environment)


def _theirs(uri: str) -> dict[str, Command]:
    # Its option for a device by address looks for a node device, which a libvirtd without udev has none of.
    settings = {"@managed": "yes"}
    for name in ("domain", "bus", "slot", "function"):
        settings[f"source/address/@{name}"] = f"0x{getattr(PciAddress.parse(VF0), name):x}"
    words = ["type=pci"]
    for number, (place, value) in enumerate(settings.items(), 1):
        words += [f"xpath{number}.set=./{place}", f"xpath{number}.value={value}"]
    argv = ["virt-xml", "--connect", uri, DOMAIN, "--define"]
    return {
        "add": Command([*argv, "--add-device", "--hostdev", ",".join(words)]),
        "remove": Command([*argv, "--remove-device", "--hostdev", "1"]),
    }


def _a_second_time(ours: Command, theirs: Command) -> tuple[str, str]:
    """What both say when the device is in the definition already."""
    ours.run()
    _seconds, printed = ours.run()
    try:
        theirs.run()
        said = "ended well"
    except CommandFailed as error:
        said = str(error).split(": ", 1)[1].splitlines()[0]
    return printed.strip(), said
