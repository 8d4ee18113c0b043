# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings files that are shell scripts: which assignments they have, editing those in place, what they evaluate to.

The parser here only finds places to edit. What a file means is never concluded from it: :func:`evaluate` asks a
shell, before an edit and after it, so a file the parser misreads leads to an error and not to a wrong setting.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .._core.host import SEARCH_PATH, Host
from .grub_script import GrubSyntaxError, Word, arguments

OPAQUE = "\0"  # stands for an expansion in a decoded text; a shell file cannot have it
MAX_SIZE = 100_000  # Linux takes at most 131,072 bytes in one argument
_BLANKS = " \t"
_OPERATORS = ";&|<>()\n"
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?)=")
_EXPANDED = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")
_SIMPLE_EXPANSION = re.compile(r"\$(?:[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-])")
_OPENING = frozenset(("if", "while", "until", "for", "case", "{"))
_CLOSING = frozenset(("fi", "done", "esac", "}"))
_BETWEEN = frozenset(("then", "else", "elif", "do", "!"))
_DECLARING = frozenset(("export", "readonly"))


class ShellSyntaxError(ValueError):
    """A file the parser does not understand; the message says why."""


@dataclass(frozen=True)
class Atom:
    """One character of a word's value, or one expansion (``character`` is :data:`OPAQUE`), and where it is written."""

    start: int
    end: int
    character: str
    quoting: str
    """``"``, ``'``, or empty."""
    source: str


@dataclass(frozen=True)
class Assignment:
    """``NAME=value`` or ``NAME+=value`` as a command of its own, also after ``export``."""

    name: str
    appends: bool
    atoms: tuple[Atom, ...]
    value_start: int
    value_end: int
    closing_quote: str
    """The quote character right before ``value_end``, or empty when the value does not end in a quoted part."""
    conditional: bool
    """Whether it stands in a compound command, after ``&&`` or ``||``, or in a pipeline."""
    line: int

    @property
    def decoded(self) -> str:
        """The value with quotes taken away and every expansion as one :data:`OPAQUE`."""
        return "".join(atom.character for atom in self.atoms)

    @property
    def expands(self) -> frozenset[str]:
        """The variables its value is made of."""
        names = {name for atom in self.atoms if atom.character == OPAQUE for name in _EXPANDED.findall(atom.source)}
        return frozenset(names | ({self.name} if self.appends else set()))

    @property
    def words(self) -> list[Word]:
        """Its words as GRUB is going to split them, positions counted in atoms; empty when GRUB could not read them."""
        try:
            return arguments(self.decoded)
        except GrubSyntaxError:
            return []


def assignments(text: str) -> list[Assignment]:
    """Every assignment of a shell script, in order.

    :raises ShellSyntaxError: for a here-document or an unclosed quote
    """
    return _Parser(text).parse()


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._found: list[Assignment] = []
        self._open: list[str] = []  # compound commands around this place: "(" or "word"

    def parse(self) -> list[Assignment]:
        text = self._text
        place = 0
        before = ""
        words: list[tuple[int, int, list[Atom]]] = []
        skip_word = False
        while place <= len(text):
            character = text[place : place + 1] or "\n"
            if character in _BLANKS:
                place += 1
            elif text.startswith("\\\n", place):
                place += 2
            elif character == "#":
                end = text.find("\n", place)
                place = end if end >= 0 else len(text)
            elif character in _OPERATORS:
                operator = character
                if character in "&|;<" and text[place + 1 : place + 2] == character:
                    operator *= 2
                if operator == "<<":
                    raise ShellSyntaxError("it has a here-document")
                place += len(operator)
                if character in "<>":
                    skip_word = True
                    continue
                self._command(words, conditional=before in ("&&", "||", "|") or operator in ("|", "&"))
                if words or operator != "\n":  # after "&&" the command may begin on a later line
                    before = operator
                words = []
                if operator == "(":
                    self._open.append("(")
                elif operator == ")" and self._open[-1:] == ["("]:  # and not the one after a pattern of "case"
                    self._open.pop()
            else:
                end, atoms = self._word(place)
                if not skip_word:
                    words.append((place, end, atoms))
                skip_word = False
                place = end
        return self._found

    def _command(self, words: Sequence[tuple[int, int, list[Atom]]], *, conditional: bool) -> None:
        """Note the assignments of one simple command, and what its reserved words open and close."""
        rest = list(words)
        while rest:
            source = self._text[rest[0][0] : rest[0][1]]
            if source in _OPENING:
                self._open.append("word")
                if source in ("for", "case"):
                    return
            elif source in _CLOSING:
                if self._open[-1:] == ["word"]:
                    self._open.pop()
            elif source not in _BETWEEN:
                break
            rest = rest[1:]
        if rest and self._text[rest[0][0] : rest[0][1]] in _DECLARING:
            rest = rest[1:]
        elif not all(_NAME.match(self._text, start) for start, _end, _atoms in rest):
            return  # NAME=value before a command is for that command only
        for start, end, atoms in rest:
            name = _NAME.match(self._text, start)
            if name is None:
                continue
            value = tuple(atom for atom in atoms if atom.start >= name.end())
            last = self._text[end - 1] if end > name.end() else ""
            is_quote = last in ("'", '"') and (not value or value[-1].end < end)
            self._found.append(
                Assignment(
                    name.group(1),
                    bool(name.group(2)),
                    value,
                    name.end(),
                    end,
                    last if is_quote else "",
                    conditional or bool(self._open),
                    self._text.count("\n", 0, start) + 1,
                )
            )

    def _word(self, place: int) -> tuple[int, list[Atom]]:
        text = self._text
        atoms: list[Atom] = []
        while place < len(text):
            character = text[place]
            if character in _BLANKS or character in _OPERATORS:
                break
            if character == "\\":
                if text[place + 1 : place + 2] not in ("\n", ""):
                    atoms.append(Atom(place, place + 2, text[place + 1], "", text[place : place + 2]))
                place = min(place + 2, len(text))
            elif character == "'":
                end = self._find("'", place + 1)
                atoms += [Atom(at, at + 1, text[at], "'", text[at]) for at in range(place + 1, end)]
                place = end + 1
            elif character == '"':
                place = self._double_quoted(place + 1, atoms)
            else:
                place = self._plain_or_expansion(place, "", atoms)
        return place, atoms

    def _double_quoted(self, place: int, atoms: list[Atom]) -> int:
        """Read up to the closing quote; return the place after it."""
        text = self._text
        while place < len(text):
            following = text[place + 1 : place + 2]
            if text[place] == '"':
                return place + 1
            if text[place] == "\\" and following and following in '$`"\\\n':
                if following != "\n":
                    atoms.append(Atom(place, place + 2, following, '"', text[place : place + 2]))
                place += 2
            else:
                place = self._plain_or_expansion(place, '"', atoms)
        raise ShellSyntaxError("a double quote is never closed")

    def _plain_or_expansion(self, place: int, quoting: str, atoms: list[Atom]) -> int:
        text = self._text
        end = place + 1
        is_expansion = True
        if text[place] == "`":
            end = self._backquoted(place + 1)
        elif text.startswith("$(", place):
            end = self._balanced(place + 2, "(", ")")
        elif text.startswith("${", place):
            end = self._balanced(place + 2, "{", "}")
        else:
            simple = _SIMPLE_EXPANSION.match(text, place)
            is_expansion = simple is not None
            end = simple.end() if simple else end
        atoms.append(Atom(place, end, OPAQUE if is_expansion else text[place], quoting, text[place:end]))
        return end

    def _find(self, character: str, place: int) -> int:
        end = self._text.find(character, place)
        if end < 0:
            raise ShellSyntaxError("a quote is never closed")
        return end

    def _backquoted(self, place: int) -> int:
        while place < len(self._text):
            if self._text[place] == "`":
                return place + 1
            place += 2 if self._text[place] == "\\" else 1
        raise ShellSyntaxError("a command substitution is never closed")

    def _balanced(self, place: int, opening: str, closing: str) -> int:
        depth = 1
        while place < len(self._text):
            character = self._text[place]
            if character == "\\":
                place += 1
            elif character == "'":
                place = self._find("'", place + 1)
            elif character == '"':
                place = self._double_quoted(place + 1, []) - 1
            elif character == opening:
                depth += 1
            elif character == closing:
                depth -= 1
                if not depth:
                    return place + 1
            place += 1
        raise ShellSyntaxError(f"a {opening!r} is never closed")


class AssignmentEdit:
    """Changes to the words of one assignment; everything else of it stays, quotes and spacing included."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._removed: set[int] = set()
        self._put: dict[int, str] = {}
        self._added: list[str] = []

    def remove(self, word: Word) -> None:
        """Take a word away, with the white space before it (or after it, when nothing is left before it)."""
        decoded = self._assignment.decoded
        start = word.start
        while start > 0 and decoded[start - 1] in _BLANKS:
            start -= 1
        self._removed.update(range(start, word.end))

    def replace(self, word: Word, text: str) -> None:
        """Put ``text`` in the place of a word."""
        self._removed.update(range(word.start, word.end))
        self._put[word.start] = text

    def add(self, text: str) -> None:
        """Add a word at the end, before ``--`` when there is one."""
        self._added.append(text)

    def changes(self) -> list[tuple[int, int, str]]:
        """What to replace in the file: start, end, new text; they do not overlap."""
        assignment = self._assignment
        atoms = assignment.atoms
        # A value without any quotes gets double quotes around it, when it is to have more than one word.
        wrap = bool(self._added) and all(not atom.quoting and atom.end == atom.start + 1 for atom in atoms)
        wrap = wrap and not assignment.closing_quote

        def written(text: str, quoting: str) -> str:
            if quoting == "'":
                return text
            escaped = re.sub(r'([\\"$`])', r"\\\1", text)
            return escaped if quoting or wrap else f'"{escaped}"'

        removed = self._removed - set(self._put)
        place = 0
        while removed and place < len(atoms) and (place in removed or atoms[place].character in _BLANKS):
            removed.add(place)
            place += 1
        if not removed & self._removed & set(range(place)):
            removed -= set(range(place))  # the white space at the beginning was there before
        result = []
        for place, atom in enumerate(atoms):
            if place in self._put:
                result.append((atom.start, atom.end, written(self._put[place], atom.quoting)))
            elif place in removed:
                result.append((atom.start, atom.end, ""))
        if self._added:
            added = " ".join(self._added)
            end_mark = next((word for word in assignment.words if word.source == "--"), None)
            if end_mark is not None:
                atom = atoms[end_mark.start]
                result.append((atom.start, atom.start, written(f"{added} ", atom.quoting)))
            else:
                left = [atom.character for place, atom in enumerate(atoms) if place not in removed]
                if left and left[-1] not in _BLANKS:
                    added = f" {added}"
                end = assignment.value_end - (1 if assignment.closing_quote else 0)
                result.append((end, end, written(added, assignment.closing_quote) + ('"' if wrap else "")))
            if wrap:
                if end_mark is not None:
                    result.append((assignment.value_end, assignment.value_end, '"'))
                result.append((assignment.value_start, assignment.value_start, '"'))
        return result


def apply_changes(text: str, changes: Iterable[tuple[int, int, str]]) -> str:
    """``text`` with every change made. Of insertions at the same place, the one given last comes first."""
    for start, end, new in sorted(changes, key=lambda change: (change[0], change[1]), reverse=True):
        text = text[:start] + new + text[end:]
    return text


def evaluate(host: Host, texts: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
    """What variables are after a POSIX shell has sourced ``texts`` (path -> content), in that order.

    The shell runs as ``grub-mkconfig`` runs it: ``set -e``, so a file whose last command fails ends it there, too.
    The contents are given to it as arguments: a plan can be evaluated without being written.

    :raises PassthroughError: ``settings_not_evaluated`` when the shell gives up
    """
    for path, text in texts.items():
        if OPAQUE in text or len(text) > MAX_SIZE:
            reason = "has a NUL byte, which no shell file may have" if OPAQUE in text else f"is longer than {MAX_SIZE}"
            raise PassthroughError("settings_not_evaluated", f"{path} {reason}.", path=path)
    listed = " ".join(f'"${{{name}-}}"' for name in names)
    script = (
        "sysconfdir=/etc\n"
        'for kvm_passthrough_text do eval "$kvm_passthrough_text" >/dev/null; done\n'
        f"printf '%s\\0' {listed}\n"
    )
    argv = ["env", "-i", f"PATH={':'.join(SEARCH_PATH)}", "LC_ALL=C", "sh", "-e", "-c", script, "sh"]
    done = host.run([*argv, *texts.values()], timeout=120.0, check=False)
    values = done.stdout.split(OPAQUE)
    if done.rc != 0 or len(values) != len(names) + 1:
        raise PassthroughError(
            "settings_not_evaluated",
            f"A shell that sources {', '.join(texts)} gives up with status {done.rc}"
            f"{': ' + done.stderr.strip()[-1000:] if done.stderr.strip() else ''}. "
            "GRUB's generator would fail the same way.",
            "Mend the file, and see that grub.cfg can be generated, before you change kernel parameters.",
            paths=list(texts),
        )
    return dict(zip(names, values))
