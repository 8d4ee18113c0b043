# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading and editing an extlinux.conf, the menu of U-Boot and Syslinux.

Rules follow U-Boot's boot/pxe_utils.c: keywords in any case at the beginning of a line, a value that is the rest of
the line without any quoting, and of several ``append`` lines in a label the last counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .cmdline import CommandLine, Request
from .words import edited, lines_of, placed_words

_LINE = re.compile(r"[ \t]*(menu[ \t]+label|[a-z]+)(?:[ \t]+(.*))?", re.IGNORECASE)


@dataclass(frozen=True)
class Label:
    """One label that starts a Linux kernel."""

    name: str
    title: str
    kernel: str
    append: tuple[int, int]
    """Where the value of its ``append`` line is; an empty part at the end of the line of its kernel without one."""
    has_append: bool
    text: str
    """The whole file."""

    @property
    def command_line(self) -> CommandLine:
        """What it hands to the kernel, without what U-Boot or Syslinux add."""
        return CommandLine.of(word.text for word in placed_words(self.text, [self.append]))


def labels(text: str) -> list[Label]:
    """Every label that starts a kernel, in order."""
    found: list[dict[str, tuple[str, int, int]]] = []
    place = 0
    for line in lines_of(text):
        match = _LINE.match(line)
        if match is not None:
            key = " ".join(match.group(1).lower().split())
            start, end = match.span(2) if match.group(2) is not None else (len(line.rstrip("\r\n")),) * 2
            value = (line[start:end].rstrip("\r"), place + start, place + end)
            if key == "label":
                found.append({"label": value})
            elif found:
                found[-1]["kernel" if key == "linux" else key] = value
        place += len(line)
    result = []
    for fields in found:
        if "kernel" not in fields:
            continue
        kernel, _start, kernel_end = fields["kernel"]
        _value, start, end = fields.get("append", ("", kernel_end, kernel_end))
        name = fields["label"][0].strip()
        title = fields.get("menu label", ("", 0, 0))[0].strip() or name
        result.append(Label(name, title, kernel.strip(), (start, end), "append" in fields, text))
    return result


def with_request(text: str, request: Request, names: frozenset[str]) -> str:
    """The file with the request met by the labels of these names."""
    for label in reversed(labels(text)):  # from the end, so that places stay as they are
        if label.name not in names:
            continue
        if label.has_append:
            text = edited(text, request, [label.append])
            continue
        options = str(request.apply(CommandLine()))
        if options:
            place = label.append[1]
            text = f"{text[:place]}\n\tappend {options}{text[place:]}"
    return text
