# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running tools and telling the person who watches what goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_STARTED = time.monotonic()
_LOG_TAIL_LINES = 25

# Administration tools are not on the PATH of an ordinary Debian user.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin"])


class LabError(Exception):
    """Something the person at the keyboard has to know; its text is all that is shown."""


def say(text: str) -> None:
    """Write one progress line, with minutes and seconds since the start, to stderr."""
    minutes, seconds = divmod(int(time.monotonic() - _STARTED), 60)
    print(f"[lab] {minutes:02d}:{seconds:02d} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step before it starts, and how long it took once it has succeeded."""
    say(f"{text} …")
    before = time.monotonic()
    yield
    say(f"{text}: {time.monotonic() - before:.1f} s")


def tail(path: Path) -> str:
    """The last lines of a log, for an error message; empty when there is no such file."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.rstrip().splitlines()[-_LOG_TAIL_LINES:])


def find_tool(name: str) -> str | None:
    """The path of a program, looked for on PATH and in the administrator's directories."""
    return shutil.which(name, path=_SEARCH_PATH)


def require_tool(name: str, package: str) -> str:
    """The path of a program.

    Raises LabError naming the Debian package that has it when it is not installed.
    """
    found = find_tool(name)
    if found is None:
        raise LabError(
            f"'{name}' is not installed; it is in the Debian package {package} "
            "(tests/lab/apt-packages.txt lists all the lab needs)"
        )
    return found


def run(
    argv: Sequence[str | Path],
    *,
    timeout: float,
    log: Path | None = None,
    check: bool = True,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    called: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said.

    It reads ``stdin`` and never the terminal. With ``log`` both its output streams are
    appended to that file instead of being returned. ``env`` is added to the environment.
    ``called`` is what an error calls the command, by default the command itself. Raises
    LabError when the program cannot be started, takes longer than ``timeout`` seconds or,
    with ``check``, fails.
    """
    words = [str(word) for word in argv]
    shown = called or _shown(words)
    environment = {**os.environ, "LC_ALL": "C.UTF-8", **(env or {})}
    try:
        if log is None:
            result = subprocess.run(
                words, input=stdin or "", capture_output=True, text=True, errors="replace",
                timeout=timeout, env=environment, check=False,
            )  # fmt: skip
        else:
            with log.open("a", encoding="utf-8") as stream:
                result = subprocess.run(
                    words, input=stdin or "", stdout=stream, stderr=subprocess.STDOUT, text=True,
                    timeout=timeout, env=environment, check=False,
                )  # fmt: skip
    except OSError as error:
        raise LabError(f"cannot run {words[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{shown} took longer than {timeout:.0f} s{_evidence(log)}") from error
    if check and result.returncode != 0:
        said = _evidence(log) if log else f":\n{(result.stderr or result.stdout).strip()}"
        raise LabError(f"{shown} failed with exit status {result.returncode}{said}")
    return result


def _shown(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) <= 120 else f"{line[:117]}..."


def _evidence(log: Path | None) -> str:
    return f"; the end of {log}:\n{tail(log)}" if log else ""


def as_root(argv: Sequence[str | Path]) -> list[str | Path]:
    """The same command, run as root or in a user namespace where the caller looks like root.

    All such commands of one user see the same mapping of user ids (the caller's line in
    /etc/subuid), so that a tree unpacked by one has the right owners for the next.
    Raises LabError when util-linux or uidmap is missing.
    """
    if os.geteuid() == 0:
        return list(argv)
    require_tool("newuidmap", "uidmap")
    return [require_tool("unshare", "util-linux"), "--map-root-user", "--map-auto", *argv]
