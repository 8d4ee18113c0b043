# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ssh key of a machine, made with what it is started from."""

from __future__ import annotations

from pathlib import Path

from .run import require_tool, run

KEY_FILE = "id_ed25519"


def make_key(directory: Path, log: Path) -> bytes:
    """Make a key pair in a directory, and return the public key. Raises LabError with the end of ``log``."""
    run([require_tool("ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "", "-C", "lab",
         "-f", directory / KEY_FILE], timeout=60, log=log)  # fmt: skip
    return public_key(directory)


def public_key(directory: Path) -> bytes:
    """The public key of the pair in a directory."""
    return (directory / f"{KEY_FILE}.pub").read_bytes()
