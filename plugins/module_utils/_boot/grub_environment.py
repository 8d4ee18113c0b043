# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB's environment block, grubenv: variables that GRUB reads, and some that it writes, at boot.

The format is that of grub-core/lib/envblk.c: one line for each variable, with a backslash before a backslash and before
a line break that is part of the value, filled up with ``#``. GRUB writes only within the size the file has.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .._core.errors import PassthroughError
from .._core.files import FileState

ENVIRONMENT = "/boot/grub2/grubenv"
SIGNATURE = b"# GRUB Environment Block\n"
SIZE = 1024


def variables(block: FileState) -> dict[str, str]:
    """The variables of a block; of one that is not there, none."""
    pairs = (line.partition("=") for line in block.text.split("\n") if not line.startswith("#"))
    return {name: re.sub(r"\\(.)", r"\1", value) for name, equals, value in pairs if equals}


def with_variable(block: FileState, name: str, value: str) -> FileState:
    """A block of the same size with a variable set; all else in it stays as it is.

    :param value: without line breaks
    :raises PassthroughError: ``command_line_too_long`` when the block has no room for it
    """
    content = block.content or SIGNATURE + b"#" * (SIZE - len(SIGNATURE))
    escaped = value.replace("\\", "\\\\").encode("utf-8", "surrogateescape")
    line = name.encode() + b"=" + escaped
    body = content.rstrip(b"#")
    pattern = re.compile(rb"^" + re.escape(name.encode()) + rb"=.*$", re.MULTILINE)
    body = pattern.sub(lambda _unused: line, body) if pattern.search(body) else body + line + b"\n"
    if len(body) > len(content):
        raise PassthroughError(
            "command_line_too_long",
            f"{ENVIRONMENT} has {len(content)} bytes, and {name} with the new parameters would need {len(body)}.",
            "Remove parameters that are no longer needed.",
            path=ENVIRONMENT,
        )
    content = body + b"#" * (len(content) - len(body))
    return FileState(content) if block.content is None else replace(block, content=content)
