# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading GRUB 2's own language: words, commands, and the boot entries of a grub.cfg.

The rules are those of GRUB's lexer (grub-core/script/yylex.l), and of ``grub_create_loader_cmdline()``
(grub-core/lib/cmdline.c) for what the kernel is handed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .cmdline import CommandLine, Parameter

LINUX_COMMANDS = frozenset(("linux", "linuxefi", "linux16"))
_BLANKS = " \t\r"
_OPERATORS = "{}|&;<>\n"
_VARIABLE = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?]|\{[A-Za-z0-9_@*#?]+\})")
_LEADING_KEYWORDS = frozenset(("then", "else", "do"))
_SECTION = re.compile(r"^### (BEGIN|END) (\S+) ###[ \t]*$", re.MULTILINE)
_ENTRY_VERSION = re.compile(r"gnulinux-(?P<version>.+)-(?P<type>advanced|recovery|init-[a-z]+)-")


class GrubSyntaxError(ValueError):
    """A text GRUB would not read as intended; the message says what is wrong with it."""


@dataclass(frozen=True)
class Word:
    """One word of a GRUB command: where it stands, how it is written, and what it stands for."""

    start: int
    end: int
    source: str
    value: str

    @property
    def handed_over(self) -> str:
        """The word as GRUB's ``linux`` command hands it to the kernel."""
        escaped = re.sub(r"([\\'\"])", r"\\\1", self.value)
        return f'"{escaped}"' if " " in self.value else escaped

    @property
    def parameter(self) -> Parameter:
        """The kernel parameter it is; its ``text`` is what the kernel sees."""
        return Parameter.parse(self.handed_over)


@dataclass(frozen=True)
class Command:
    """Words up to an operator (a line break, ``;``, ``{``, …), or an operator alone; ``start`` is its place."""

    words: tuple[Word, ...]
    operator: str
    start: int


def commands(text: str) -> Iterator[Command]:
    """Take a GRUB script apart.

    :raises GrubSyntaxError: for a quote that is never closed
    """
    words: list[Word] = []
    place = first = 0
    while place < len(text):
        character = text[place]
        if character in _BLANKS or text.startswith("\\\n", place):
            place += 1 if character in _BLANKS else 2
        elif character == "#":
            line_end = text.find("\n", place)
            place = line_end if line_end >= 0 else len(text)
        elif character in _OPERATORS:
            yield Command(tuple(words), character, words[0].start if words else place)
            words = []
            place += 1
        else:
            first = place
            place, value = _word(text, place)
            words.append(Word(first, place, text[first:place], value))
    if words:
        yield Command(tuple(words), "", words[0].start)


def arguments(text: str) -> list[Word]:
    """The words of a text that GRUB is going to read as arguments of one command.

    :raises GrubSyntaxError: when the text would end the command, start a comment, or leave a quote open
    """
    found = list(commands(text))
    if any(command.operator for command in found):
        operator = next(command.operator for command in found if command.operator)
        what = "a line break" if operator == "\n" else repr(operator)
        raise GrubSyntaxError(f"it has {what} outside of quotes, which ends the command in grub.cfg")
    words = list(found[0].words) if found else []
    end = words[-1].end if words else 0
    if text[end:].strip(_BLANKS):
        raise GrubSyntaxError("it has a word that begins with '#', which is a comment in grub.cfg")
    return words


def _word(text: str, place: int) -> tuple[int, str]:
    """Read a word that begins at ``place``; return where it ends and its value. Variables stay as they are."""
    value = ""
    while place < len(text):
        character = text[place]
        if character in _BLANKS or character in _OPERATORS:
            break
        if character == "\\":
            if text[place + 1 : place + 2] != "\n":
                value += text[place + 1 : place + 2]
            place += 2
        elif character == "'":
            end = text.find("'", place + 1)
            if end < 0:
                raise GrubSyntaxError("a single quote is never closed")
            value += text[place + 1 : end]
            place = end + 1
        elif character == '"':
            place, part = _double_quoted(text, place + 1)
            value += part
        else:
            variable = _VARIABLE.match(text, place) if character == "$" else None
            part = variable.group() if variable else character
            value += part
            place += len(part)
    return min(place, len(text)), value


def _double_quoted(text: str, place: int) -> tuple[int, str]:
    value = ""
    while place < len(text):
        character = text[place]
        following = text[place + 1 : place + 2]
        if character == '"':
            return place + 1, value
        if character == "\\" and following and following in '$"\\\n':
            value += following.strip("\n")
            place += 2
        else:
            value += character
            place += 1
    raise GrubSyntaxError("a double quote is never closed")


@dataclass(frozen=True)
class BootEntry:
    """A ``linux`` command in a menu entry of grub.cfg."""

    title: str
    identity: str
    section: str
    """The script of /etc/grub.d that wrote it (``10_linux``); empty when the file does not say."""
    kernel: str
    words: tuple[Word, ...]

    @property
    def command_line(self) -> CommandLine:
        """What this entry hands to the kernel, without the ``BOOT_IMAGE=`` GRUB puts before it."""
        return CommandLine.of(word.handed_over for word in self.words)

    @property
    def is_generated(self) -> bool:
        """Whether it is made from /etc/default/grub for a kernel of this system."""
        return self.section.startswith("10_linux")

    @property
    def is_recovery(self) -> bool:
        """Whether it is a recovery entry, which has the parameters of GRUB_CMDLINE_LINUX only."""
        found = _ENTRY_VERSION.match(self.identity)
        if found:
            return found.group("type") == "recovery"
        return self.title.endswith("(recovery mode)")


def boot_entries(text: str) -> list[BootEntry]:
    """Every entry of a grub.cfg that boots a Linux kernel, in submenus and conditions too, in order.

    :raises GrubSyntaxError: when the file is cut off or cannot be read
    """
    sections = [(found.start(), found.group(1), found.group(2)) for found in _SECTION.finditer(text)]
    entries = []
    blocks: list[Sequence[Word]] = []
    for command in commands(text):
        if command.operator == "{":
            blocks.append(command.words)
            continue
        menu = next((block for block in reversed(blocks) if block and block[0].value == "menuentry"), None)
        words = command.words
        while words and words[0].source in _LEADING_KEYWORDS:
            words = words[1:]
        if menu is not None and len(words) > 1 and words[0].value in LINUX_COMMANDS:
            title = menu[1].value if len(menu) > 1 else ""
            identity = next(
                (after.value for word, after in zip(menu, menu[1:]) if word.value in ("--id", "$menuentry_id_option")),
                "",
            )
            section = ""
            for start, edge, path in sections:
                if start > command.start:
                    break
                section = path.rsplit("/", 1)[-1] if edge == "BEGIN" else ""
            entries.append(BootEntry(title, identity, section, words[1].value, words[2:]))
        if command.operator == "}":
            if not blocks:
                raise GrubSyntaxError("a block is closed that was never opened")
            blocks.pop()
    if blocks:
        raise GrubSyntaxError("a block is never closed")
    return entries


def uses_boot_loader_specification(text: str) -> bool:
    """Whether a grub.cfg takes its entries from /boot/loader/entries (Fedora's ``blscfg`` command)."""
    return any(command.words and command.words[0].value == "blscfg" for command in commands(text))


def only_loads_another_file(text: str) -> bool:
    """Whether a grub.cfg is the small one on an EFI system partition that leads to the real one, and nothing more.

    :raises GrubSyntaxError: when the file cannot be read
    """
    first_words = {command.words[0].value for command in commands(text) if command.words}
    return "configfile" in first_words and not first_words & {"menuentry", "submenu", "blscfg"}
