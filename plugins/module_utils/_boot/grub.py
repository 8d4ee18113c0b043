# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB 2 whose grub.cfg is generated from /etc/default/grub and, where the generator reads them, its drop-ins.

That is Debian, Ubuntu, SUSE, Arch, Gentoo, and Fedora or RHEL with ``GRUB_ENABLE_BLSCFG=false``: 10_linux and the
variables are upstream's everywhere; what the programs and files are called, :mod:`.grub_layout` finds out.

Where a parameter is written:

* The files are sourced one after the other, so what counts is what they evaluate to. Only assignments that still
  count at the end are edited: the last one of a variable and those its value refers to (``"$VAR more"``).
* A name that is there already keeps its variable and its place: its first value is replaced, all others go.
* A new name goes to the end of ``GRUB_CMDLINE_LINUX_DEFAULT``, to the assignment the others build on. That variable
  is for normal entries; recovery entries have ``GRUB_CMDLINE_LINUX`` (and, since GRUB 2.12,
  ``GRUB_CMDLINE_LINUX_RECOVERY``), and get nothing new. What contradicts the request goes from there, too.
* An edit is evaluated by a shell before it is written. When it does not lead to what is wanted and leave all else
  as it was (a value computed by a command, an assignment under a condition), nothing is written, and the error says so.

grub.cfg is generated beside the real one, every entry in it is inspected, and only then it is swapped in.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import Action, WriteFile
from .._core.state import Record
from .cmdline import CommandLine, Parameter, Request, Restoration, running
from .efi import variable_evidence
from .grub_layout import Layout, find_layout, read_config
from .grub_script import BootEntry, GrubSyntaxError, Word, arguments, boot_entries, uses_boot_loader_specification
from .loader import (
    ALL_KERNELS,
    BootPlan,
    Configuration,
    Entry,
    changed_entries,
    check_length,
    records_of,
    refuse_default_kernel,
    spellings,
)
from .shell import Assignment, AssignmentEdit, ShellSyntaxError, apply_changes, assignments, evaluate

NAME = "grub"
DEFAULTS = "/etc/default/grub"
DROP_INS = "/etc/default/grub.d"

EVERY = "GRUB_CMDLINE_LINUX"
NORMAL = "GRUB_CMDLINE_LINUX_DEFAULT"
RECOVERY = "GRUB_CMDLINE_LINUX_RECOVERY"  # a setting since GRUB 2.12
NORMAL_ENTRY = (EVERY, NORMAL)  # in the order in which an entry has them
RECOVERY_ENTRY = (RECOVERY, EVERY)
VARIABLES = (RECOVERY, EVERY, NORMAL)

# What 10_linux itself puts into recovery entries, whatever is set.
RECOVERY_WORDS = frozenset(("single", "recovery", "nomodeset", "dis_ucode_ldr"))

RECOVERY_MENU = "/lib/recovery-mode/recovery-menu"  # of Ubuntu's friendly-recovery

# The scripts of /etc/grub.d whose entries boot another system, whose parameters are its own business.
OTHER_SYSTEMS = frozenset(("30_os-prober",))

# grub-mkconfig probes every disk for other systems; an emulated machine is ten times slower than a real one.
GENERATOR_TIMEOUT = 1200.0
GENERATOR_ATTEMPTS = 3
WRITE_BACK_TIMEOUT = 60.0  # the whole file system is flushed, guests' disks on it included

# Syslinux and its kin write BOOT_IMAGE= as GRUB does, but with it the initrd, which GRUB hands over in another way
# (syslinux com32/elflink/ldlinux/kernel.c, new_linux_kernel; grub-core/loader).
SYSLINUX_MARK = "initrd"


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


@dataclass(frozen=True)
class Seen:
    """GRUB's settings and its grub.cfg."""

    settings: Settings
    config: FileState
    boot_entries: tuple[BootEntry, ...]
    leftovers: tuple[str, ...] = ()
    """The files of those beside which a killed run left a temporary one."""

    @property
    def configuration(self) -> Configuration:
        """What both of them come to."""
        return Configuration(
            normal=self.settings.command_line(*NORMAL_ENTRY),
            recovery=self.settings.command_line(*RECOVERY_ENTRY),
            entries=tuple(_entry(entry, entry.command_line) for entry in self.boot_entries),
        )

    def places(self, key: str) -> dict[str, list[str]]:
        """The variables that have a name."""
        return self.settings.places(key)


class Grub:
    """GRUB 2 with /etc/default/grub; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = f"GRUB 2 with {DEFAULTS}"
    drives: frozenset[str] = frozenset()

    def __init__(self, host: Host) -> None:
        self._host = host

    @cached_property
    def layout(self) -> Layout:
        """What GRUB's programs and files are called on this host."""
        return find_layout(self._host)

    def evidence(self) -> list[str]:
        """A kernel of grub.cfg in /proc/cmdline, where GRUB writes it, and GRUB's EFI variable."""
        evidence = []
        line = running(self._host)
        image = boot_image(line)
        if image and image in self._kernels() and not line.named(SYSLINUX_MARK):
            evidence.append(f"/proc/cmdline has BOOT_IMAGE={image}, a kernel of {self.layout.config}")
        return evidence + variable_evidence(self._host, "LoaderInfo", "GRUB")

    def missing(self) -> list[str]:
        """What generating grub.cfg from the settings needs."""
        missing = [path for path in (self.layout.config, DEFAULTS) if not self._host.exists(path)]
        if runs_blscfg(self._host):
            missing.append(f"a {self.layout.config} with entries of its own (it runs blscfg)")
        return missing + ([self.layout.generator] if self._host.which(self.layout.generator) is None else [])

    def doubt(self) -> str:
        """What /proc/cmdline says instead."""
        line = running(self._host)
        image = boot_image(line)
        if not image:
            return "/proc/cmdline has no BOOT_IMAGE=, which GRUB puts there"
        if line.named(SYSLINUX_MARK):
            return "/proc/cmdline has initrd= beside BOOT_IMAGE=, as Syslinux writes it and GRUB does not"
        return (
            f"BOOT_IMAGE={image} in /proc/cmdline is not one of the kernels of {self.layout.config} "
            f"({', '.join(sorted(self._kernels())[:8]) or 'it has none'})"
        )

    def observe(self) -> Seen:
        """Read settings and grub.cfg.

        :raises PassthroughError: ``settings_not_evaluated``, ``settings_not_understood``,
            ``boot_entries_not_understood``
        """
        settings = self.settings()
        config_path = self._config()
        config = files.observe(self._host, config_path)
        paths = (*settings.sources, config_path)
        leftovers = files.with_leftovers(self._host, paths)
        return Seen(settings, config, tuple(read_entries(config.text, self.layout)), leftovers)

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """Edit the settings where they are not as wanted, and generate grub.cfg again where an entry is not.

        :raises PassthroughError: ``kernels_default_unsupported``, ``boot_entries_missing``, ``settings_too_clever``,
            ``command_line_too_long``, ``file_unwritable``
        """
        refuse_default_kernel(kernels, self.title, "its settings are for every entry it generates")
        if not any(entry.is_generated for entry in seen.boot_entries):
            raise PassthroughError(
                "boot_entries_missing",
                f"{self.layout.config} has no entry that was made by /etc/grub.d/10_linux from GRUB's settings"
                + (f", but {len(seen.boot_entries)} written in another way." if seen.boot_entries else "."),
                "If it is written by hand, set the parameters there: generating it would destroy it. "
                f"If it is to be generated, run {self.layout.refresh} once.",
                path=self.layout.config,
            )
        settings = self.edited(seen.settings, request)
        predicted = self.predict(seen, settings, request)
        plan = BootPlan(predicted=predicted)
        records = records_of(self.name, request, seen.settings, settings)
        plan.extend(settings_writes(seen.settings, settings, records))
        if plan.changed or stale(seen.configuration.entries, predicted, request):
            plan.add(self._generation(seen, predicted, request, plan.changed))
        files.require_writable(self._host, sorted(self._replaced(plan.targets)))
        plan.sweep(seen.leftovers)
        return plan

    # -- what another way of generating has of its own ---------------------------------------------------

    def _config(self) -> str:
        """The grub.cfg that is read at the next boot, as a path of the running system."""
        return self.layout.config

    def _generation(self, seen: Seen, predicted: Configuration, request: Request, has_edits: bool) -> GenerateConfig:
        """The action that generates grub.cfg, after edits of the settings or without any."""
        return GenerateConfig(self.layout, seen.configuration.entries, predicted, request)

    def _replaced(self, targets: set[str]) -> set[str]:
        """Those of the targets that are files of the running system."""
        return targets

    # -- settings ----------------------------------------------------------------------------------------

    def settings(self) -> Settings:
        """The settings as they are now; also for what has GRUB's own generator run from them.

        :raises PassthroughError: ``settings_not_evaluated``, ``settings_not_understood``
        """
        return self._settings({path: files.observe(self._host, path) for path in self._source_paths()})

    def predict(self, seen: Seen, settings: Settings, request: Request) -> Configuration:
        """What generating grub.cfg from ``settings`` is going to make of the entries that were seen.

        :raises PassthroughError: ``command_line_too_long``
        """
        return _predict(seen, settings, request, "recovery" if self._host.exists(RECOVERY_MENU) else "single")

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

    def _kernels(self) -> set[str]:
        """The kernel files grub.cfg names; empty for a damaged one: that is reported where its entries are read."""
        try:
            return {without_device(entry.kernel) for entry in boot_entries(read_config(self._host))}
        except GrubSyntaxError:
            return set()

    def _generator_mentions(self, text: str) -> bool:
        program = self._host.which(self.layout.generator)
        return program is not None and text.encode() in self._host.read_bytes(program)

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
            f"or make this one change by hand and run {self.layout.refresh}.",
            paths=list(settings.sources),
        )


def runs_blscfg(host: Host) -> bool:
    """Whether grub.cfg takes its entries from /boot/loader/entries; a damaged one is reported where it is read."""
    try:
        return uses_boot_loader_specification(read_config(host))
    except GrubSyntaxError:
        return False


def settings_writes(before: Settings, after: Settings, records: Sequence[Record]) -> list[WriteFile]:
    """The actions that bring the files of ``before`` to those of ``after``; all records go with the first one."""
    writes: list[WriteFile] = []
    for path, wanted in after.sources.items():
        observed = before.sources.get(path, FileState(None))
        if wanted != observed:
            description = f"change the kernel parameters in {path}"
            writes.append(WriteFile(path, observed, wanted, description=description, records=() if writes else records))
    return writes


def boot_image(line: CommandLine) -> str | None:
    """The kernel file GRUB says it loaded, without the device it may name before it: ``(hd0,gpt2)/vmlinuz``."""
    for parameter in line.named("BOOT_IMAGE"):
        return without_device(parameter.value or "")
    return None


def without_device(path: str) -> str:
    """A path as GRUB names it, without the device before it."""
    return path.partition(")")[2] if path.startswith("(") else path


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


# -- entries -----------------------------------------------------------------------------------------------


class GenerateConfig(Action):
    """Generate grub.cfg beside the real one, inspect it, and swap it in; undone by putting the old one back."""

    regenerates = True

    def __init__(self, layout: Layout, entries: Sequence[Entry], predicted: Configuration, request: Request) -> None:
        self.description = f"generate {layout.config} from GRUB's settings"
        self.target = layout.config
        self.before, self.after = changed_entries(entries, predicted.entries)
        self._layout = layout
        self._predicted = predicted
        self._request = request
        self._former: FileState | None = None

    def apply(self, host: Host) -> None:
        # Generating takes long; a package upgrade may install a kernel and write its entry meanwhile.
        for _attempt in range(GENERATOR_ATTEMPTS):
            former = files.observe(host, self.target)
            content = self._generate(host)
            if files.observe(host, self.target) == former:
                break
        self.inspect(content.decode("utf-8", "surrogateescape"))

        def validate(path: str) -> None:
            if host.which(self._layout.checker):
                host.run([self._layout.checker, path], timeout=120.0)
            if files.observe(host, self.target) != former:
                raise PassthroughError(
                    "file_changed_meanwhile",
                    f"{self.target} was changed by somebody else while it was generated; their file was left alone.",
                    f"Run the module again when the other change (a package upgrade, {self._layout.refresh}) "
                    "is complete.",
                    path=self.target,
                )

        wanted = replace(former, content=content)
        self._former = former
        try:
            files.put(host, self.target, wanted, validate)
        except PassthroughError:
            with contextlib.suppress(PassthroughError):  # the first error is the one to tell
                self.partial = files.observe(host, self.target) == wanted  # only the last flush failed
            raise
        write_back(host, self.target)

    def undo(self, host: Host) -> None:
        if self._former is not None:
            files.put(host, self.target, self._former)
            write_back(host, self.target)

    def _generate(self, host: Host) -> bytes:
        """Run the distribution's generator into a directory in /run, which a crash leaves behind for no boot to see."""
        with host.temporary_directory("grub") as directory:
            output = f"{directory}/grub.cfg"
            generator = self._layout.generator
            argv = in_system_language(host, [generator, "-o", host.path(output)])
            done = host.run(argv, timeout=GENERATOR_TIMEOUT)
            if not host.exists(output):
                raise PassthroughError(
                    "generator_failed",
                    f"{generator} ended without an error, but wrote no file. It printed: {done.stderr.strip()[-1000:]}",
                    f"Run {self._layout.refresh} by hand and look at what it says.",
                )
            return host.read_bytes(output)

    def inspect(self, text: str) -> None:
        """See that what was generated boots something, with what is wanted.

        :raises PassthroughError: ``boot_entries_not_understood``, ``boot_entries_missing``, ``boot_entries_wrong``
        """
        entries = [_entry(entry, entry.command_line) for entry in read_entries(text, self._layout)]
        if not any(entry.generated and not entry.recovery for entry in entries):
            raise PassthroughError(
                "boot_entries_missing",
                f"{self._layout.generator} made a configuration without any entry that boots this system's Linux.",
                "Is /boot mounted, does it hold a kernel, and is /etc/grub.d/10_linux executable?",
            )
        wrong = stale(entries, self._predicted, self._request)
        if wrong:
            raise PassthroughError(
                "boot_entries_wrong",
                f"{self._layout.generator} made entries that do not have the wanted parameters: "
                + "; ".join(f"{entry.title!r} has {str(entry.command_line)!r}" for entry in wrong[:3])
                + ".",
                "A script in /etc/grub.d, or the generator itself, adds or drops parameters; "
                "the old configuration is kept.",
                entries=[entry.as_result() for entry in wrong],
            )


def write_back(host: Host, path: str) -> None:
    """Have the file system of a file that was just renamed write its journal's content to where it belongs.

    GRUB's drivers replay no journal. After an fsync the rename may be in the journal only, for half a minute or so;
    when the power fails then, GRUB sees the directory as it was before, whose blocks the kernel may have given away.
    syncfs(2) ends that time on ext4, vfat and Btrfs. XFS needs more, FIFREEZE and FITHAW, as OSTree does it on /boot
    (fsfreeze_thaw_cycle in ostree-sysroot-deploy.c). That is left out on purpose: /boot is often on the root file
    system, under guests' disks, and one that stays frozen because we were killed in between stops the host, which is
    worse than the half minute until XFS writes back by itself; a reboot and an unmount do it anyway.
    What fails here fails quietly: the file is in place, and was flushed.
    """
    with contextlib.suppress(PassthroughError):
        host.run(["sync", "-f", host.path(path)], timeout=WRITE_BACK_TIMEOUT, check=False)


def read_entries(text: str, layout: Layout) -> list[BootEntry]:
    try:
        return boot_entries(text)
    except GrubSyntaxError as error:
        raise PassthroughError(
            "boot_entries_not_understood",
            f"{layout.config} cannot be read as a GRUB script: {error}.",
            f"It is damaged or was cut off. Run {layout.refresh} and {layout.checker} {layout.config} "
            "before the next reboot.",
            path=layout.config,
        ) from error


def _entry(entry: BootEntry, line: CommandLine) -> Entry:
    by_hand = not entry.is_generated and entry.section not in OTHER_SYSTEMS
    written_in = (f"/etc/grub.d/{entry.section}" if entry.section else "grub.cfg") if by_hand else ""
    return Entry(entry.title, entry.kernel, line, entry.is_recovery, entry.is_generated, written_in=written_in)


def stale(entries: Iterable[Entry], wanted: Configuration, request: Request) -> list[Entry]:
    """The generated entries that do not have what the settings give for the names of the request."""
    return [
        entry
        for entry in entries
        if entry.generated
        and (
            request.differing(_settable(entry.command_line), _settable(wanted.recovery))
            if entry.recovery
            else request.differing(entry.command_line, wanted.normal)
        )
    ]


def _settable(line: CommandLine) -> CommandLine:
    """A recovery entry's command line without what the generator itself puts there."""
    return replace(line, parameters=tuple(p for p in line.parameters if p.text not in RECOVERY_WORDS))


def _predict(seen: Seen, settings: Settings, request: Request, recovery_word: str) -> Configuration:
    """What generating grub.cfg is going to make of the entries that are there.

    :param recovery_word: what 10_linux takes for an empty ``GRUB_CMDLINE_LINUX_RECOVERY``
    :raises PassthroughError: ``command_line_too_long``
    """
    entries = []
    for entry in seen.boot_entries:
        line = entry.command_line
        if entry.is_generated:
            variables = RECOVERY_ENTRY if entry.is_recovery else NORMAL_ENTRY
            keys = [key for key in request.keys if not (entry.is_recovery and key in RECOVERY_WORDS)]
            wanted = settings.command_line(*variables)
            if entry.is_recovery and seen.settings.words(RECOVERY) and not settings.words(RECOVERY):
                wanted = replace(wanted, parameters=(Parameter.parse(recovery_word), *wanted.parameters))
            line = _regenerated(line, seen.settings.command_line(*variables), wanted, keys)
            check_length(entry.title, entry.command_line, line, put_before=f"BOOT_IMAGE={entry.kernel} ")
        entries.append(_entry(entry, line))
    return Configuration(settings.command_line(*NORMAL_ENTRY), settings.command_line(*RECOVERY_ENTRY), tuple(entries))


def _regenerated(line: CommandLine, old: CommandLine, new: CommandLine, keys: Iterable[str]) -> CommandLine:
    """An entry's command line with the old settings in it replaced by the new ones.

    :param keys: the names that matter when the old settings are not to be found in it
    """
    parameters, former = line.parameters, old.parameters
    for start in range(len(parameters) - len(former), -1, -1):
        if parameters[start : start + len(former)] == former:
            changed: tuple[Parameter, ...] = (
                *parameters[:start],
                *new.parameters,
                *parameters[start + len(former) :],
            )
            return replace(line, parameters=changed)
    # It was generated from other settings; these names are all that can be foretold.
    foretold = Request()
    for key in keys:
        named = new.named(key)
        foretold = Request(foretold.present + named, foretold.absent + (() if named else (Parameter(key, key),)))
    return foretold.apply(line)


def in_system_language(host: Host, argv: Sequence[str]) -> list[str]:
    """A command that runs GRUB's generator, in the language its titles have after a kernel upgrade.

    Titles of entries are translated, and GRUB_DEFAULT may name one.
    """
    return ["env", "-u", "LC_ALL", "-u", "LANGUAGE", f"LANG={_system_language(host)}", *argv]


def _system_language(host: Host) -> str:
    for path in ("/etc/default/locale", "/etc/locale.conf"):
        for line in (host.attribute(path) or "").splitlines():
            name, _unused, value = line.partition("=")
            if name.strip() == "LANG" and value.strip("\"' \t"):
                return value.strip("\"' \t")
    return "C.UTF-8"
