# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``make benchmark``: the scan of a big machine beside ``lspci -vmmk``, and how the time grows with the machine; what
modules cost before they do anything, beside ``ping``; and a device put into a definition, beside ``virt-xml``.

Exit status 1 when a limit is missed, when scan and lspci do not say the same, or when a second run changes something.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from ansible_collections.kvm.passthrough.plugins.module_utils._pci.names import PCI_IDS_FILES

from . import __name__ as package
from .definitions import Unmeasurable, compare
from .measure import Command, in_turn, ratio, with_byte_code
from .startup import startup
from .tree import build

SIZES = (256, 1024, 4096)
RUNS = 7
RUNS_OF_REPORT = 3

# Scanning 4,096 functions is no slower than lspci. Growth: 16 times the functions, and half as much again.
MAX_RATIO = 1.0
MAX_GROWTH = 24.0

NOTES = """\
Each figure is the median of {runs} runs (report: {few}) of a whole process with a warm cache, the ratio the median of
the ratios of neighbouring runs. The trees are in {place}.
lspci:   lspci -vmmkD -O sysfs.path=TREE/sys/bus/pci. It reads resources, IRQ and configuration space as well, and
         {modules}.
scan:    the same lines from Bus and PciDevice; python3 has its byte code in the cache. Both printed the same.
report:  what pci_device_info returns for all devices, with every guard asked about each."""


@contextlib.contextmanager
def trees() -> Iterator[dict[int, Path]]:
    """A tree for each of :data:`SIZES`, in memory where that is possible, as sysfs is."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK) and os.statvfs(memory).f_bavail > 1 << 18
    with tempfile.TemporaryDirectory(prefix="pci-", dir=memory if usable else None) as folder:
        found = {}
        for size in SIZES:
            found[size] = Path(folder, str(size))
            print(f"    building a machine with {size:,} PCI functions", flush=True)
            build(found[size], size)
        yield found


def commands(root: Path, cache: Path) -> dict[str, Command]:
    """What is measured on a tree."""
    environment = with_byte_code(cache)
    python = [sys.executable, "-m"]
    return {
        "lspci": Command(
            ["lspci", "-vmmkD", "-i", f"{root}{PCI_IDS_FILES[0]}", "-O", f"sysfs.path={root}/sys/bus/pci"]
        ),
        "scan": Command([*python, f"{package}.scan", str(root)], environment),
        "report": Command([*python, f"{package}.report", str(root)], environment),
    }


def what_differs(lspci: str, scan: str) -> str | None:
    """The first records in which two answers differ, or None. ``Module`` is lspci's alone: no sysfs attribute."""
    theirs, ours = (
        [
            "\n".join(line for line in record.splitlines() if not line.startswith("Module:"))
            for record in text.split("\n\n")
        ]
        for text in (lspci, scan)
    )
    for one, other in zip(theirs, ours, strict=False):
        if one != other:
            return f"lspci says\n{one}\nand the scan says\n{other}"
    return None if len(theirs) == len(ours) else f"lspci has {len(theirs)} records, the scan {len(ours)}"


def main() -> int:
    missed = [*scans(), *startup(), *definitions()]
    for text in missed:
        print(f"MISSED: {text}")
    return 1 if missed else 0


def definitions() -> list[str]:
    """The third part; what is not as it has to be."""
    try:
        return compare()
    except Unmeasurable as error:
        print(f"\nNot measured beside virt-xml: {error}")
        return []


def scans() -> list[str]:
    """The first part; the limits that are missed."""
    with trees() as roots, tempfile.TemporaryDirectory(prefix="byte-code-") as cache:
        place = roots[SIZES[0]].parents[1]
        measured = {}
        for size, root in roots.items():
            each = commands(root, Path(cache))
            _seconds, theirs = each["lspci"].run()
            _seconds, ours = each["scan"].run()
            difference = what_differs(theirs, ours)
            if difference is not None:
                return [f"the two do not say the same of {size:,} functions: {difference}"]
            report = each.pop("report")
            measured[size] = {**in_turn(each, RUNS), **in_turn({"report": report}, RUNS_OF_REPORT)}
        looked_up = "Module:" in theirs

    print(f"\n{'functions':>9} {'lspci':>10} {'scan':>10} {'scan/lspci':>11} {'report':>10}")
    for size, seconds in measured.items():
        times = {name: f"{median(values) * 1000:.0f} ms" for name, values in seconds.items()}
        beside = ratio(seconds["scan"], seconds["lspci"])
        print(f"{size:>9,} {times['lspci']:>10} {times['scan']:>10} {beside:>11.2f} {times['report']:>10}")
    few, many = measured[SIZES[0]], measured[SIZES[-1]]
    growth = {name: median(many[name]) / median(few[name]) for name in many}
    print(f"{'growth':>9} {growth['lspci']:>9.1f}x {growth['scan']:>9.1f}x {'':>11} {growth['report']:>9.1f}x\n")
    modules = "asks libkmod for modules" if looked_up else "found no modules of this kernel to ask libkmod for"
    print(NOTES.format(runs=RUNS, few=RUNS_OF_REPORT, place=place, modules=modules))

    missed = [
        f"{name} grows {growth[name]:.1f} times, more than {MAX_GROWTH:g}"
        for name in ("scan", "report")
        if growth[name] > MAX_GROWTH
    ]
    beside = ratio(many["scan"], many["lspci"])
    if beside > MAX_RATIO:
        missed.append(f"the scan of {SIZES[-1]:,} functions takes {beside:.2f} times as long as lspci")
    return missed


if __name__ == "__main__":
    raise SystemExit(main())
