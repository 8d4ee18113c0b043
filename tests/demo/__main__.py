# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python3 -m tests.demo``: run the demonstration. Exit status 0 when everything is as it was asked for."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

from tests import lab

from . import stream
from .story import Differs, Story


def _leave(number: int, _frame: FrameType | None) -> None:
    # As an exception, so that the machine is stopped on the way out; a second signal does not disturb that.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    """Start a machine, tell the story on it, stop it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python3 -m tests.demo", description=__doc__)
    parser.add_argument(
        "--boot", action="store_true", help="boot the machine, instead of going on where a booted one was saved"
    )
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    stream.say(f"=== {stream.elapsed()}  Starting an emulated KVM host (built first, once, if it is not in the cache)")
    try:
        with lab.start("intel", snapshot="fresh", boot=options.boot) as machine:
            story = Story(machine)
            try:
                story.tell()
            except Differs as error:
                story.problems.append(str(error))
    except lab.LabError as error:
        stream.say(f"!!! The emulated machine: {error}")
        return 2
    except KeyboardInterrupt:
        stream.say("Interrupted. The emulated machine was stopped.")
        return 130
    stream.say()
    if story.problems:
        stream.say(f"=== {stream.elapsed()}  Not as it was asked for:")
        for problem in story.problems:
            stream.say(f"  - {problem}")
        return 1
    stream.say(f"=== {stream.elapsed()}  Everything is as it was asked for. The emulated machine was stopped.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
