# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talking to a running emulator (QEMU Machine Protocol, docs/interop/qmp-spec in QEMU)."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from .run import LabError

_ANSWER_TIMEOUT = 60


class Qmp:
    """One connection; usable as a context manager."""

    def __init__(self, path: Path) -> None:
        """Connect. Raises OSError when nobody listens, LabError when the greeting does not come."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.settimeout(_ANSWER_TIMEOUT)
            self._socket.connect(str(path))
            self._lines = self._socket.makefile("r", encoding="utf-8")
            self._read()
            self.execute("qmp_capabilities")
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Qmp:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise LabError(f"no answer from the emulator: {error}") from error
        if not line:
            raise LabError("the emulator ended the connection")
        message: dict[str, Any] = json.loads(line)
        return message

    def execute(self, command: str, **arguments: Any) -> Any:
        """Run one command and return its result; raises LabError with QEMU's own words.

        An argument ``some_name`` is sent as ``some-name``, QEMU's way of writing most of
        its own; ``device_add`` takes the exact names, through ``execute_exactly``.
        """
        return self.execute_exactly(command, {name.replace("_", "-"): value for name, value in arguments.items()})

    def execute_exactly(self, command: str, arguments: dict[str, Any]) -> Any:
        """Like ``execute``, with the arguments' names sent as they are."""
        request = json.dumps({"execute": command, "arguments": arguments}) + "\n"
        try:
            self._socket.sendall(request.encode())
        except OSError as error:
            raise LabError(f"the emulator does not listen any more: {error}") from error
        while True:
            message = self._read()
            if "error" in message:
                raise LabError(f"the emulator refuses {command}: {message['error'].get('desc', message['error'])}")
            if "return" in message:
                return message["return"]

    def migrate(self, command: str, state: Path, timeout: float) -> None:
        """Write (``migrate``) or read (``migrate-incoming``) the machine's state as a file.

        Raises LabError when it fails or takes longer than ``timeout`` seconds.
        """
        self.execute_exactly(command, {"uri": f"file:{state}"})
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answer = self.execute("query-migrate")
            status = answer.get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise LabError(f"the machine's state could not be moved: {answer.get('error-desc', status)}")
            time.sleep(0.05)
        raise LabError(f"moving the machine's state took longer than {timeout:.0f} s")
