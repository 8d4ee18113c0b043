# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The serial console of a running machine, in this terminal."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import socket
import sys
import termios
import tty

from .machine import attach
from .run import LabError, say

_LEAVE = b"\x1d"


def main(options: argparse.Namespace) -> int:
    """Connect terminal and console until Ctrl-] is typed or the machine ends; raises LabError."""
    machine = attach(options.name)
    if not sys.stdin.isatty():
        raise LabError("the console needs a terminal")
    terminal = sys.stdin.fileno()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        try:
            line.connect(str(machine.console_socket))
        except OSError as error:
            raise LabError(f"the console of '{machine.name}' does not answer: {error.strerror}") from error
        say("connected; Enter shows a prompt, Ctrl-] leaves")
        before = termios.tcgetattr(terminal)
        tty.setraw(terminal)
        try:
            with contextlib.suppress(ConnectionError):
                _relay(terminal, line)
        finally:
            termios.tcsetattr(terminal, termios.TCSADRAIN, before)
    print()
    return 0


def _relay(terminal: int, line: socket.socket) -> None:
    while True:
        ready, _unused, _unused = select.select([terminal, line.fileno()], [], [])
        if line.fileno() in ready:
            received = line.recv(4096)
            if not received:
                return
            os.write(sys.stdout.fileno(), received)
        if terminal in ready:
            typed = os.read(terminal, 1024)
            if not typed or _LEAVE in typed:
                return
            line.sendall(typed)
