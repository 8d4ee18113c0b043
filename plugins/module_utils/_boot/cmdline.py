# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The kernel command line as a value: what the kernel reads, whatever boot loader handed it over.

Rules of this file follow ``next_arg()`` in the kernel's lib/cmdline.c (quotes), ``parameqn()`` in
kernel/params.c (dash and underscore in names are the same) and ``parse_args()`` there (``--`` ends the kernel's
own parameters; what follows is for init).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from .._core.errors import PassthroughError, Problem
from .._core.host import Host

RUNNING_PATH = "/proc/cmdline"
END_OF_PARAMETERS = "--"
# isspace() of the kernel within ASCII. (0xa0 is a space for it, too: see _VALUE_RULES.)
WHITESPACE = " \t\n\v\f\r"

# Written by the boot loader or its generator from the disks it finds, never from a setting of an operator.
GENERATED_NAMES = frozenset(("BOOT_IMAGE", "initrd", "root", "ro"))


@dataclass(frozen=True)
class Parameter:
    """One parameter as the kernel takes it: ``name`` or ``name=value``.

    ``text`` is how it is spelled, quotes included; two spellings of the same parameter are
    :meth:`the same <means>`, although they are not equal.
    """

    text: str
    name: str
    value: str | None = None

    @classmethod
    def parse(cls, text: str) -> Parameter:
        """Take one word of a command line apart as ``next_arg()`` does; every text has a meaning."""
        quoted = text.startswith('"')
        body = text[1:] if quoted else text
        equals = body.find("=", 1)  # the kernel does not look at the first character
        if equals < 0:
            name = body[:-1] if quoted and body.endswith('"') else body
            return cls(text, name)
        name, value = body[:equals], body[equals + 1 :]
        if value.startswith('"'):
            value = value[1:]
            quoted = True
        if quoted and value.endswith('"'):
            value = value[:-1]
        return cls(text, name, value)

    @property
    def key(self) -> str:
        """The name as the kernel compares it: ``vfio-pci.ids`` and ``vfio_pci.ids`` are one name."""
        return self.name.replace("-", "_")

    @property
    def meaning(self) -> tuple[str, str | None]:
        """What is equal for two spellings of the same parameter."""
        return self.key, self.value

    def means(self, other: Parameter) -> bool:
        """Whether the kernel cannot tell the two apart."""
        return self.meaning == other.meaning

    def __str__(self) -> str:
        return self.text


def split_words(text: str) -> list[str]:
    """The words of a command line as the kernel splits it: at white space outside of double quotes."""
    words = []
    word = ""
    in_quotes = False
    for character in text:
        if character in WHITESPACE and not in_quotes:
            if word:
                words.append(word)
            word = ""
            continue
        if character == '"':
            in_quotes = not in_quotes
        word += character
    if word:
        words.append(word)
    return words


@dataclass(frozen=True)
class CommandLine:
    """Parameters in their order, and what follows ``--``, which is for init and never a parameter."""

    parameters: tuple[Parameter, ...] = ()
    init_arguments: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> CommandLine:
        """Read a command line such as that of ``/proc/cmdline``."""
        return cls.of(split_words(text))

    @classmethod
    def of(cls, words: Iterable[str]) -> CommandLine:
        """Make a command line of words that are already split."""
        listed = list(words)
        end = listed.index(END_OF_PARAMETERS) if END_OF_PARAMETERS in listed else len(listed)
        return cls(tuple(map(Parameter.parse, listed[:end])), tuple(listed[end + 1 :]))

    def __str__(self) -> str:
        words = [parameter.text for parameter in self.parameters]
        if self.init_arguments:
            words += [END_OF_PARAMETERS, *self.init_arguments]
        return " ".join(words)

    def named(self, key: str) -> tuple[Parameter, ...]:
        """Every parameter whose :attr:`Parameter.key` is ``key``, in order."""
        return tuple(parameter for parameter in self.parameters if parameter.key == key)

    def without(self, keys: Collection[str]) -> CommandLine:
        """The command line without the parameters of these keys."""
        return replace(self, parameters=tuple(p for p in self.parameters if p.key not in keys))


@dataclass(frozen=True)
class Request:
    """What an operator wants of a command line; see :meth:`of` for what is refused."""

    present: tuple[Parameter, ...] = ()
    absent: tuple[Parameter, ...] = ()

    @classmethod
    def of(cls, present: Sequence[str], absent: Sequence[str]) -> Request:
        """Check what a person wrote, all of it.

        :raises PassthroughError: ``invalid_parameter`` and ``contradicting_parameters``, one problem for each
        """
        problems: list[Problem] = []
        for option, texts in (("present", present), ("absent", absent)):
            for text in texts:
                rule = broken_rule(text)
                if rule:
                    problems.append(
                        Problem(
                            "invalid_parameter",
                            f"{option}: {_shown(text)} is not a kernel parameter this module sets or removes: {rule}.",
                            details={"field": option, "value": text},
                        )
                    )
        if problems:
            raise PassthroughError.of(problems)
        request = cls(
            _without_repetitions(map(Parameter.parse, present)), _without_repetitions(map(Parameter.parse, absent))
        )
        for unwanted in request.absent:
            wanted = [parameter.text for parameter in request.present if parameter.key == unwanted.key]
            if wanted:
                problems.append(
                    Problem(
                        "contradicting_parameters",
                        f"{unwanted.text!r} stands in absent, and {', '.join(map(repr, wanted))} in present.",
                        f"Name {unwanted.name} in one of the two only: present already replaces every other value "
                        "of that name.",
                        {"field": "absent", "value": unwanted.text},
                    )
                )
        if problems:
            raise PassthroughError.of(problems)
        return request

    def at(self, *_places: str) -> Request:
        """What is wanted in a place of the settings; what an operator writes is wanted in each of them."""
        return self

    def of_entry(self, line: CommandLine, *places: str, is_rescue: bool) -> Request:
        """What is wanted of a boot entry with this command line, which is one of these places.

        A rescue entry only loses what contradicts, and gets nothing new.
        """
        wanted = self.at(*places)
        return wanted.only(wanted.contradicted(line)) if is_rescue else wanted

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all names the request is about, each once, in order."""
        return tuple(dict.fromkeys(parameter.key for parameter in (*self.present, *self.absent)))

    def only(self, keys: Sequence[str]) -> Request:
        """The part of the request that is about these keys."""
        return Request(
            tuple(parameter for parameter in self.present if parameter.key in keys),
            tuple(parameter for parameter in self.absent if parameter.key in keys),
        )

    def wanted(self, key: str) -> tuple[Parameter, ...]:
        """The parameters of this name that are to be there."""
        return tuple(parameter for parameter in self.present if parameter.key == key)

    def is_unwanted(self, parameter: Parameter) -> bool:
        """Whether ``absent`` names this parameter, by its name alone or with its value."""
        return any(
            unwanted.key == parameter.key and (unwanted.value is None or unwanted.value == parameter.value)
            for unwanted in self.absent
        )

    def is_met(self, key: str, found: Sequence[Parameter]) -> bool:
        """Whether ``found``, all parameters of this name in some command line, is what the request wants.

        Order counts (the last ``console=`` becomes /dev/console); the same parameter twice in a row does not.
        """
        wanted = self.wanted(key)
        if wanted:
            return _meanings(found) == _meanings(wanted)
        return not any(self.is_unwanted(parameter) for parameter in found)

    def differing(self, line: CommandLine, other: CommandLine) -> tuple[str, ...]:
        """The keys for which two command lines do not mean the same."""
        return tuple(key for key in self.keys if _meanings(line.named(key)) != _meanings(other.named(key)))

    def unmet(self, line: CommandLine) -> tuple[str, ...]:
        """The keys for which ``line`` is not as the request wants it."""
        return tuple(key for key in self.keys if not self.is_met(key, line.named(key)))

    def contradicted(self, line: CommandLine) -> tuple[str, ...]:
        """The keys for which ``line`` has a parameter that must not be there; one it lacks is no contradiction."""
        return tuple(
            key
            for key in self.keys
            if any(
                self.is_unwanted(parameter)
                or (self.wanted(key) and not any(parameter.means(wanted) for wanted in self.wanted(key)))
                for parameter in line.named(key)
            )
        )

    def apply(self, line: CommandLine) -> CommandLine:
        """``line`` with the request met; what the request does not name keeps its place and spelling.

        New values stand where the first parameter of that name stood, or at the end.
        """
        result = list(line.parameters)
        for key in self.unmet(line):
            places = [place for place, parameter in enumerate(result) if parameter.key == key]
            wanted = list(self.wanted(key))
            kept: list[Parameter] = []
            for place, parameter in enumerate(result):
                if parameter.key != key:
                    kept.append(parameter)
                elif wanted:
                    if place == places[0]:
                        kept += wanted
                elif not self.is_unwanted(parameter):
                    kept.append(parameter)
            if wanted and not places:
                kept += wanted
            result = kept
        return CommandLine(tuple(result), line.init_arguments)


@dataclass(frozen=True)
class Restoration(Request):
    """A request for something of its own in each place of the settings, and for nothing in all others.

    What a place is called is the boot loader's affair, see :class:`~.loader.BootLoader`.
    """

    places: Mapping[str, Request] = field(default_factory=dict)

    @classmethod
    def of_places(cls, texts: Mapping[str, Mapping[str, Sequence[str]]]) -> Restoration:
        """What brings these spellings back: place -> key -> all parameters of that name, none for one that goes."""
        places = {}
        for place, wanted in texts.items():
            present = tuple(Parameter.parse(text) for listed in wanted.values() for text in listed)
            absent = tuple(Parameter(key, key) for key, listed in wanted.items() if not listed)
            places[place] = Request(present, absent)
        return cls(places=places)

    def at(self, *places: str) -> Request:
        """What is wanted in the first of these places that is known."""
        return next((self.places[place] for place in places if place in self.places), Request())

    def of_entry(self, line: CommandLine, *places: str, is_rescue: bool) -> Request:
        """What is wanted in its place: a rescue entry gets back what it lost."""
        return self.at(*places)

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all names it is about, each once."""
        return tuple(dict.fromkeys(key for wanted in self.places.values() for key in wanted.keys))


def running(host: Host) -> CommandLine:
    """What the running kernel was started with."""
    return CommandLine.parse(host.read_text(RUNNING_PATH))


def roots(line: CommandLine) -> frozenset[str]:
    """The root file systems a command line names, as it spells them."""
    return frozenset(parameter.value or "" for parameter in line.named("root"))


def may_share_a_root(one: frozenset[str], other: frozenset[str]) -> bool:
    """Whether two sets of root file systems may mean the same: they have one in common, or one is not known."""
    return not one or not other or bool(one & other)


def broken_rule(text: str) -> str | None:
    """The rule a parameter written by a person breaks, in words; None when it is good.

    What passes means the same to the kernel, to a shell that sources it inside double quotes (after escaping the
    double quotes), to a GRUB script, and in a boot loader entry: no text can become a second parameter or a command.
    """
    if not text.strip():
        return "it is empty"
    if any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in text):
        return "it has a line break or another control character"
    if not all(character.isprintable() for character in text):
        return "it has a character that cannot be printed, or a space that is not the plain one"
    body = text
    whole_quoted = body.startswith('"')
    if body.count('"') % 2:
        return "its double quotes are not in pairs"
    if whole_quoted:
        if not body.endswith('"') or body.count('"') != 2:
            return 'the double quotes have to enclose the whole value, as in name="two words"'
        body = body[1:-1]
    name, equals, value = body.partition("=")
    quoted = whole_quoted
    if not whole_quoted and '"' in body:
        if not (len(value) >= 2 and value[0] == value[-1] == '"' and body.count('"') == 2):
            return 'the double quotes have to enclose the whole value, as in name="two words"'
        value = value[1:-1]
        quoted = True
    if not quoted and re.search(r"\s", body):
        return (
            "it has a space outside of double quotes; give each parameter as an item of its own, "
            'and a value with spaces as name="two words"'
        )
    forbidden = sorted(set(value) & set("$`\\'" if quoted else "$`\\';&|<>(){}"))
    forbidden += sorted(set(name) & set("$`\\';&|<>(){}") - set(forbidden))
    if forbidden:
        return (
            f"{' '.join(forbidden)} {'has' if len(forbidden) == 1 else 'have'} a meaning of "
            f"{'its' if len(forbidden) == 1 else 'their'} own to the shell or to GRUB"
        )
    if not quoted and b"\xa0" in value.encode("utf-8"):
        return "the kernel takes the byte 0xa0 in it for a space; put the value in double quotes"
    if name in GENERATED_NAMES:
        return f"{name} is written by the boot loader itself, from the disks it finds"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return f"{name!r} is not a name: letters, digits, '_', '-' and '.' only, beginning with a letter or digit"
    if not equals and re.fullmatch(r"[0-9]{2,}", name):
        return "it is a bare number; a value with a comma, such as console=ttyS0,115200, has to be given in a list"
    return None


def _without_repetitions(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """The parameters without those that only repeat the one before of the same name."""
    result: list[Parameter] = []
    for parameter in parameters:
        before = [earlier for earlier in result if earlier.key == parameter.key]
        if not before or not before[-1].means(parameter):
            result.append(parameter)
    return tuple(result)


def _meanings(parameters: Iterable[Parameter]) -> list[tuple[str, str | None]]:
    return [parameter.meaning for parameter in _without_repetitions(parameters)]


def _shown(text: str) -> str:
    """A value in an error message: control characters escaped, not too long."""
    return ascii(text if len(text) <= 100 else f"{text[:100]}…") if not text.isprintable() else repr(text[:200])
