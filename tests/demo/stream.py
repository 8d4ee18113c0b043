# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs whose output a person watches while they run."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

_STARTED = time.monotonic()
_SILENCE = 20.0  # seconds after which a line says that the program still runs
_GRACE = 5.0


class TimeUp(Exception):
    """A program took longer than it may."""


def elapsed() -> str:
    """Minutes and seconds since the start of the demonstration."""
    minutes, seconds = divmod(int(time.monotonic() - _STARTED), 60)
    return f"{minutes:02d}:{seconds:02d}"


def say(text: str = "") -> None:
    """Print one line at once, whatever standard output is."""
    print(text, flush=True)


def run(argv: Sequence[str], environment: Mapping[str, str], *, limit: float) -> tuple[int, str]:
    """Run a program and show each line as it comes, with the time in front.

    Its exit status and all it printed are returned. Whatever happens, it has ended when this function has.

    :raises TimeUp: after ``limit`` seconds
    """
    process = subprocess.Popen(
        argv,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output = _watch(process, limit)
        return process.wait(_GRACE), output
    finally:
        _end(process)


def _watch(process: subprocess.Popen[bytes], limit: float) -> str:
    """Show and collect the output until it ends, and say that the program still runs while there is none."""
    assert process.stdout is not None
    started = spoken = time.monotonic()
    output, pending, task = bytearray(), b"", ""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            now = time.monotonic()
            if now - started > limit:
                raise TimeUp(f"It took longer than {limit:.0f} s and was ended.")
            if selector.select(timeout=1.0):
                chunk = os.read(process.stdout.fileno(), 65536)
                output += chunk
                *lines, pending = (pending + chunk).split(b"\n")
                if not chunk and pending:
                    lines, pending = [pending], b""
                for line in (raw.decode("utf-8", "replace").rstrip() for raw in lines):
                    task = line.strip("* ") if "TASK [" in line else task
                    if line:
                        say(f"{elapsed()}  {line}")
                        spoken = now
                if not chunk:
                    return output.decode("utf-8", "replace")
            elif now - spoken > _SILENCE:
                say(f"{elapsed()}  ... {task or 'it'} still runs")
                spoken = now


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and what it started, if it has not ended by itself."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE)
    if process.stdout is not None:
        process.stdout.close()


def colour() -> dict[str, str]:
    """What makes Ansible write in colour although it writes to a pipe: only where a person watches."""
    return {"ANSIBLE_FORCE_COLOR": "1"} if sys.stdout.isatty() and "NO_COLOR" not in os.environ else {}
