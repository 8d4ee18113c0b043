# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB 2's settings: /etc/default/grub and, where the generator reads them, its drop-ins.

Where a parameter is written:

* The files are sourced one after the other, so what counts is what they evaluate to. Only assignments that still
  count at the end are edited: the last one of a variable and those its value refers to (``"$VAR more"``).
* A name that is there already keeps its variable and its place: its first value is replaced, all others go.
* A new name goes to the end of ``GRUB_CMDLINE_LINUX_DEFAULT``, to the assignment the others build on. That variable
  is for normal entries; recovery entries have ``GRUB_CMDLINE_LINUX`` (and, since GRUB 2.12,
  ``GRUB_CMDLINE_LINUX_RECOVERY``), and get nothing new. What contradicts the request goes from there, too.
* An edit is evaluated by a shell before it is written. When it does not lead to what is wanted and leave all else
  as it was (a value computed by a command, an assignment under a condition), nothing is written, and the error says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import WriteFile
from .._core.state import Record
from .cmdline import CommandLine, Request, Restoration
from .grub_layout import Layout
from .grub_script import GrubSyntaxError, Word, arguments
from .loader import spellings
from .shell import Assignment, AssignmentEdit, ShellSyntaxError, apply_changes, assignments, evaluate

DEFAULTS = "/etc/default/grub"
DROP_INS = "/etc/default/grub.d"

EVERY = "GRUB_CMDLINE_LINUX"
NORMAL = "GRUB_CMDLINE_LINUX_DEFAULT"
RECOVERY = "GRUB_CMDLINE_LINUX_RECOVERY"  # a setting since GRUB 2.12
NORMAL_ENTRY = (EVERY, NORMAL)  # in the order in which an entry has them
RECOVERY_ENTRY = (RECOVERY, EVERY)
VARIABLES = (RECOVERY, EVERY, NORMAL)


@dataclass(frozen=True)
class Settings:
    """The files grub-mkconfig sources, in that order, and what the variables evaluate to."""

    sources: Mapping[str, FileState]
    values: Mapping[str, str]

    def words(self, variable: str) -> list[Word]:
        """The words of a variable, as GRUB reads them.

        :raises PassthroughError: ``settings_not_understood`` when they do not stay arguments of one command
        """
        try:
            return arguments(self.values[variable])
        except GrubSyntaxError as error:
            raise PassthroughError(
                "settings_not_understood",
                f"{variable} evaluates to {self.values[variable]!r}, which GRUB cannot read as kernel parameters: "
                f"{error}.",
                f"Correct it in {' or '.join(self.sources)}.",
                variable=variable,
            ) from error

    def command_line(self, *variables: str) -> CommandLine:
        """The parameters of variables, one after the other, as the kernel sees them."""
        return CommandLine.of(word.handed_over for variable in variables for word in self.words(variable))

    def places(self, key: str) -> dict[str, list[str]]:
        """Where parameters of a name stand: variable -> spellings, for records."""
        return spellings({variable: self.command_line(variable) for variable in VARIABLES}, key)


class SettingsFiles:
    """The files with GRUB's settings on one host: read, and edited."""

    def __init__(self, host: Host, layout: Layout) -> None:
        """:param layout: whose generator sources them"""
        self._host = host
        self._layout = layout

    def observe(self) -> Settings:
        """The settings as they are now.

        :raises PassthroughError: ``settings_not_evaluated``, ``settings_not_understood``
        """
        return self._settings({path: files.observe(self._host, path) for path in self._source_paths()})

    def edited(self, settings: Settings, request: Request, home: str = NORMAL) -> Settings:
        """The settings with the request met, proved by a shell; the same object when it is met already.

        :param home: the variable that gets new names, :data:`NORMAL` or :data:`EVERY`
        :raises PassthroughError: ``settings_too_clever``
        """
        unmet = _unmet(settings, request)
        if not unmet:
            return settings
        edit = _SettingsEdit(settings)
        for key in unmet:
            if isinstance(request, Restoration):
                edit.restore(key, request)
            elif request.is_met(key, settings.command_line(*NORMAL_ENTRY).named(key)):
                edit.remove_from_recovery(key, request)
            else:
                edit.meet(key, request, EVERY if settings.command_line(EVERY).named(key) else home)
        sources = edit.sources()
        try:
            edited = self._settings(sources)
        except PassthroughError as error:
            raise self._too_clever(settings, edit, unmet, str(error)) from error
        left = _unmet(edited, request)
        if left:
            values = " ".join(edited.values[variable] for variable in VARIABLES)
            raise self._too_clever(settings, edit, left, f"after the edit the parameters would still be {values!r}")
        for variable in VARIABLES:
            if _others(settings, variable, unmet) != _others(edited, variable, unmet):
                raise self._too_clever(
                    settings,
                    edit,
                    unmet,
                    f"the edit would turn {variable} from {settings.values[variable]!r} "
                    f"into {edited.values[variable]!r}",
                )
        return edited

    def _too_clever(
        self, settings: Settings, edit: _SettingsEdit, keys: Iterable[str], reason: str
    ) -> PassthroughError:
        places = edit.described()
        return PassthroughError(
            "settings_too_clever",
            f"{', '.join(keys)} cannot be changed safely in GRUB's settings: {reason}. "
            f"What counts there: {places or 'no assignment this module can read'}.",
            f'Something computes or overrides the value. Write it as a plain {NORMAL}="…" in {DEFAULTS}, '
            f"or make this one change by hand and run {self._layout.refresh}.",
            paths=list(settings.sources),
        )

    def _source_paths(self) -> list[str]:
        paths = [DEFAULTS]
        # Debian's and Ubuntu's generators read them, upstream's and those of most others do not.
        if self._generator_mentions("default/grub.d"):
            names = [n for n in self._host.list_dir(DROP_INS) if n.endswith(".cfg") and not n.startswith(".")]
            found = [f"{DROP_INS}/{name}" for name in names if self._host.exists(f"{DROP_INS}/{name}")]
            # A link to /dev/null switches a drop-in off; sourcing it says nothing.
            paths += [path for path in found if self._host.real_path(path) != os.devnull]
        return paths

    def _settings(self, sources: Mapping[str, FileState]) -> Settings:
        texts = {path: state.text for path, state in sources.items()}
        values = evaluate(self._host, texts, VARIABLES)
        if not self._generator_mentions(RECOVERY):
            values[RECOVERY] = ""  # an older 10_linux overwrites it
        settings = Settings(sources, values)
        for variable in VARIABLES:
            settings.words(variable)
        return settings

    def _generator_mentions(self, text: str) -> bool:
        program = self._host.which(self._layout.generator)
        return program is not None and text.encode() in self._host.read_bytes(program)


def settings_writes(before: Settings, after: Settings, records: Sequence[Record]) -> list[WriteFile]:
    """The actions that bring the files of ``before`` to those of ``after``; all records go with the first one."""
    writes: list[WriteFile] = []
    for path, wanted in after.sources.items():
        observed = before.sources.get(path, FileState(None))
        if wanted != observed:
            description = f"change the kernel parameters in {path}"
            writes.append(WriteFile(path, observed, wanted, description=description, records=() if writes else records))
    return writes


def _unmet(settings: Settings, request: Request) -> tuple[str, ...]:
    """The keys for which normal entries will not have what is wanted, or recovery entries something that is not."""
    if isinstance(request, Restoration):
        found = {key for name in VARIABLES for key in request.at(name).unmet(settings.command_line(name))}
        return tuple(key for key in request.keys if key in found)
    normal = request.unmet(settings.command_line(*NORMAL_ENTRY))
    recovery = request.contradicted(settings.command_line(*RECOVERY_ENTRY))
    return tuple(key for key in request.keys if key in normal or key in recovery)


def _others(settings: Settings, variable: str, keys: Sequence[str]) -> list[str]:
    """The words of a variable whose names are not among ``keys``, as the kernel would see them."""
    return [word.handed_over for word in settings.words(variable) if word.parameter.key not in keys]


class _SettingsEdit:
    """Edits to all settings files at once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._found: list[tuple[str, Assignment]] = []
        for path, state in settings.sources.items():
            try:
                self._found += [(path, assignment) for assignment in assignments(state.text)]
            except ShellSyntaxError:
                continue  # nothing in it can be edited; whether it matters, the evaluation tells
        self._edits: dict[int, AssignmentEdit] = {}
        self._new: dict[str, list[str]] = {}
        # Computed once: edits do not move assignments.
        self._counting = {variable: self._counts(variable, len(self._found)) for variable in VARIABLES}

    def meet(self, key: str, request: Request, home: str) -> None:
        """Edit so that this name is as the request wants it; new values go to the variable ``home``."""
        wanted = " ".join(parameter.text for parameter in request.wanted(key))
        places = self._places(key, *NORMAL_ENTRY)
        target = None
        if wanted:
            target = next(
                (at for at in places if at[0] in self._counting[home] and not self._found[at[0]][1].conditional), None
            )
            if target is not None:
                self._edit(target[0]).replace(target[1], wanted)
            else:
                self._add(home, wanted)
        for at in places:
            if at != target and (wanted or request.is_unwanted(at[1].parameter)):
                self._edit(at[0]).remove(at[1])
        self.remove_from_recovery(key, request)

    def restore(self, key: str, request: Restoration) -> None:
        """Edit so that each variable has what is wanted in it; which of them share an assignment, evaluation tells."""
        for variable in VARIABLES:
            unmet = request.at(variable).unmet(self._settings.command_line(variable))
            if key not in unmet:
                continue
            wanted = " ".join(parameter.text for parameter in request.at(variable).wanted(key))
            places = self._places(key, variable)
            target = next((at for at in places if wanted and not self._found[at[0]][1].conditional), None)
            if target is not None:
                self._edit(target[0]).replace(target[1], wanted)
            elif wanted:
                self._add(variable, wanted)
            for at in places:
                if at != target:
                    self._edit(at[0]).remove(at[1])

    def remove_from_recovery(self, key: str, request: Request) -> None:
        """Take away what only recovery entries have, and are not to have."""
        shared = set(self._counting[EVERY]) | set(self._counting[NORMAL])
        for place, word in self._places(key, RECOVERY):
            if place not in shared and request.contradicted(CommandLine((word.parameter,))):
                self._edit(place).remove(word)

    def _places(self, key: str, *variables: str) -> list[tuple[int, Word]]:
        """Where parameters of a name stand: assignments that count for these variables, and words of them."""
        return [
            (place, word)
            for place in sorted({place for variable in variables for place in self._counting[variable]})
            for word in self._found[place][1].words
            if word.parameter.key == key
        ]

    def sources(self) -> dict[str, FileState]:
        """The files after the edits."""
        changes: dict[str, list[tuple[int, int, str]]] = {}
        for place, edit in self._edits.items():
            changes.setdefault(self._found[place][0], []).extend(edit.changes())
        result = {}
        for path, state in self._settings.sources.items():
            text = apply_changes(state.text, changes.get(path, []))
            if path == DEFAULTS and self._new:
                text += "" if not text or text.endswith("\n") else "\n"
                for variable, added in self._new.items():
                    escaped = " ".join(added).replace('"', '\\"')
                    text += f'{variable}="{escaped}"\n'
            result[path] = state if text == state.text else state.with_text(text)
        return result

    def described(self) -> str:
        """The assignments that count, for a person."""
        counting = sorted({place for places in self._counting.values() for place in places})
        return ", ".join(
            f"{assignment.name} in {path} line {assignment.line}{' (conditional)' if assignment.conditional else ''}"
            for path, assignment in (self._found[place] for place in counting)
        )

    def _edit(self, place: int) -> AssignmentEdit:
        return self._edits.setdefault(place, AssignmentEdit(self._found[place][1]))

    def _add(self, variable: str, text: str) -> None:
        candidates = [
            place
            for place in self._counting[variable]
            if self._found[place][1].name == variable and not self._found[place][1].conditional
        ]
        bases = [place for place in candidates if variable not in self._found[place][1].expands]
        # Rather a new line in the administrator's file than a word in a drop-in that belongs to a package.
        bases += [place for place in candidates if self._found[place][0] == DEFAULTS]
        if bases:
            self._edit(bases[0]).add(text)
        else:
            self._new.setdefault(variable, []).append(text)

    def _counts(self, variable: str, before: int) -> list[int]:
        """The assignments before ``before`` that the variable's value there is made of, in order."""
        result: set[int] = set()
        for place in range(before - 1, -1, -1):
            assignment = self._found[place][1]
            if assignment.name != variable:
                continue
            result.add(place)
            for name in assignment.expands - {variable}:
                result.update(self._counts(name, place))
            if not assignment.conditional and variable not in assignment.expands:
                break
        return sorted(result)
