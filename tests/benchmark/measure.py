# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole processes in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median


class CommandFailed(Exception):
    """A command under measurement ended with another status than 0."""


@dataclass(frozen=True)
class Command:
    """What is measured: an argument list and its environment (None: ours)."""

    argv: Sequence[str]
    environment: Mapping[str, str] | None = None

    def run(self) -> tuple[float, str]:
        """Run it to its end: how long that took in seconds, and what it printed."""
        started = time.perf_counter()
        done = subprocess.run(self.argv, env=self.environment, capture_output=True, text=True, check=False)
        elapsed = time.perf_counter() - started
        if done.returncode:
            raise CommandFailed(f"{' '.join(self.argv)} ended with status {done.returncode}: {done.stderr.strip()}")
        return elapsed, done.stdout

    def processor_seconds(self) -> float:
        """Run it to its end: how long processors worked on it, which a busy machine stretches less than the time."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.run()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def with_byte_code(cache: Path) -> dict[str, str]:
    """The environment for a Python that keeps its byte code in this folder, where the next run finds it."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def in_turn(commands: Mapping[str, Command], runs: int) -> dict[str, list[float]]:
    """The seconds each command takes, run after run: all of them once, and again; a first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(runs + 1):
        for name, command in commands.items():
            elapsed, _printed = command.run()
            if number:
                seconds[name].append(elapsed)
    return seconds


def ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of runs that stood next to each other."""
    return median(one / other for one, other in zip(seconds, others, strict=True))
