# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB 2 that takes its entries from /boot/loader/entries (``blscfg``), with grubby: Fedora, RHEL since 8.

Where a parameter is written:

* RHEL 8: entries say ``$kernelopts``, and so do those of kernels to come. That variable of grubenv is changed, and an
  entry only where it has a parameter of its own that contradicts.
* RHEL 9, 10 and Fedora: every entry has its parameters itself. The entries are changed, and /etc/kernel/cmdline, which
  20-grub.install makes new ones from. Without that file it takes what the running kernel was started with, so the file
  is made then.
* ``GRUB_CMDLINE_LINUX`` in /etc/default/grub, where grub2-mkconfig takes them from when it writes ``kernelopts``
  (RHEL 8) or the entries (up to RHEL 9.2, later with ``--update-bls-cmdline``). 20-grub.install has that done when
  this file is newer than /etc/kernel/cmdline, so the latter is always written after it.

grubby is asked which entries there are, what it reads in them and which one is the default, and has to agree with what
is read here, before a change and after it. The files are written here and not by ``grubby --update-kernel``: that takes
command lines apart at every blank, quoted or not, and has the shell expand ``*`` in them; it takes ``.`` and ``&`` for
operators of sed, knows no ``-`` and ``_`` that are the same, appends behind ``--``, edits entries of other systems, and
writes grubenv in place; depending on its version it expands ``$tuned_params`` for good. (grubby-bls of grubby 8.40.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import WriteFile
from .._core.state import Record
from . import entries, grub, grub_config, grub_environment, grub_settings, kernel_install
from .cmdline import (
    RUNNING_PATH,
    CommandLine,
    Parameter,
    Request,
    Restoration,
    may_share_a_root,
    roots,
    running,
)
from .efi import variable_evidence
from .grub_environment import ENVIRONMENT
from .grub_layout import find_layout, read_config
from .grub_script import GrubSyntaxError, arguments, commands
from .loader import (
    ALL_KERNELS,
    DEFAULT_KERNEL,
    BootPlan,
    Configuration,
    Entry,
    check_length,
    record_of,
    refuse_default_kernel,
    spellings,
)
from .words import edited

NAME = "grub-bls"
PROGRAM = "grubby"
ENTRIES = "/boot/loader/entries"
KERNELOPTS = "kernelopts"

# bls_get_val() and expand_val() in GRUB's blscfg.c: of several options lines the first one counts.
_OPTIONS = re.compile(r"^options[ \t]+(.*)$", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?")
_OWNED = re.compile(r"([0-9a-f]{32})-.+")
_RESCUE = re.compile(r"(?:^|-)0-rescue(?:-|$)")
_INFO = re.compile(r'([a-z]+)=(?:"(.*)"|(.*))')


@dataclass(frozen=True)
class Found:
    """One entry of :data:`ENTRIES` that boots a Linux kernel."""

    path: str
    state: FileState
    title: str
    kernel: str
    options: str
    """As they are written, variables included."""
    command_line: CommandLine
    """What the kernel is handed, variables replaced."""
    is_ours: bool
    """Whether it is of this system, and so is to have what is wanted."""

    @property
    def identity(self) -> str:
        """What GRUB and grubby call it."""
        return self.path.rpartition("/")[2][: -len(".conf")]

    @property
    def is_rescue(self) -> bool:
        """Whether it is dracut's rescue entry (51-dracut-rescue.install)."""
        return bool(_RESCUE.search(self.identity))

    @property
    def has_kernelopts(self) -> bool:
        """Whether its parameters are those of grubenv."""
        return KERNELOPTS in _VARIABLE.findall(self.options)

    def as_entry(self) -> Entry:
        """What it is to the rest of this collection."""
        return Entry(self.title, self.kernel, self.command_line, self.is_rescue, self.is_ours)

    def wanted(self, request: Request) -> Request:
        """What is wanted of it: something of its own, or what is wanted where it has its parameters from."""
        source = ENVIRONMENT if self.has_kernelopts else "" if self.is_rescue else kernel_install.SETTINGS
        return request.of_entry(self.command_line, self.path, source, is_rescue=self.is_rescue)


@dataclass(frozen=True)
class Seen:
    """The settings and the entries of this host."""

    found: tuple[Found, ...]
    environment: FileState
    variables: Mapping[str, str]
    """What GRUB replaces in the options of an entry."""
    settings: kernel_install.Settings
    defaults: grub_settings.Settings | None
    """/etc/default/grub; None where there is none."""
    listed: Mapping[str, CommandLine]
    """What grubby says of each entry; empty for one too old to name them."""
    leftovers: tuple[str, ...] = ()
    """The files beside which a killed run left a temporary one."""

    @property
    def ours(self) -> tuple[Found, ...]:
        """The entries of this system."""
        return tuple(found for found in self.found if found.is_ours)

    @property
    def has_kernelopts(self) -> bool:
        """Whether this host keeps its parameters in grubenv."""
        return any(found.has_kernelopts for found in self.ours)

    @property
    def source(self) -> CommandLine:
        """What the next kernel gets."""
        if self.has_kernelopts:
            return _parsed(self.variables.get(KERNELOPTS, ""), ENVIRONMENT)
        return self.settings.command_line("", "-")

    @property
    def configuration(self) -> Configuration:
        """What the next kernel gets, and what the entries have."""
        return Configuration(self.source, CommandLine(), tuple(found.as_entry() for found in self.found))

    def places(self, key: str) -> dict[str, list[str]]:
        """The settings and the entries that have a name."""
        return {**spellings({f.path: f.command_line for f in self.ours}, key), **self.settings_places(key)}

    def settings_places(self, key: str) -> dict[str, list[str]]:
        """The settings, and the rescue entry, which has its own, where they have a name."""
        lines = {f.path: f.command_line for f in self.ours if f.is_rescue and not f.has_kernelopts}
        kernelopts = grub_environment.variables(self.environment).get(KERNELOPTS)
        if kernelopts is not None:
            lines[ENVIRONMENT] = CommandLine.parse(kernelopts)
        if self.settings.path == kernel_install.SETTINGS:
            lines[kernel_install.SETTINGS] = self.settings.command_line("", "-")
        return {**spellings(lines, key), **(self.defaults.places(key) if self.defaults else {})}


class GrubWithEntries:
    """GRUB 2 with boot loader specification entries; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = "GRUB with boot loader specification entries"
    drives = frozenset((grub.NAME,))

    def __init__(self, host: Host) -> None:
        self._host = host

    def evidence(self) -> list[str]:
        """A kernel of an entry in /proc/cmdline, or GRUB's EFI variable, where grub.cfg runs blscfg."""
        if not grub.runs_blscfg(self._host):
            return []
        found = []
        line = running(self._host)
        image = grub.boot_image(line)
        if image and image in self._kernels() and not line.named(grub.SYSLINUX_MARK):
            found.append(f"/proc/cmdline has BOOT_IMAGE={image}, a kernel of an entry in {ENTRIES}")
        found += variable_evidence(self._host, "LoaderInfo", "GRUB")
        return [f"{find_layout(self._host).config} runs blscfg", *found] if found else []

    def missing(self) -> list[str]:
        """What finding the entries needs."""
        missing = [] if self._host.which(PROGRAM) else [PROGRAM]
        if not grub.runs_blscfg(self._host):
            missing.append("a grub.cfg that runs blscfg")
        if not self._names():
            missing.append(f"any entry in {ENTRIES}")
        return missing

    def doubt(self) -> str:
        """What /proc/cmdline says instead."""
        image = grub.boot_image(running(self._host))
        if not image:
            return "/proc/cmdline has no BOOT_IMAGE=, which GRUB puts there"
        return f"BOOT_IMAGE={image} in /proc/cmdline is not the kernel of an entry in {ENTRIES}"

    def observe(self) -> Seen:
        """Read settings and entries, and what grubby says of the entries.

        :raises PassthroughError: ``boot_entries_not_understood``, ``settings_not_evaluated``,
            ``settings_not_understood``, or that grubby failed
        """
        environment = files.observe(self._host, ENVIRONMENT)
        variables = self._variables(environment)
        machine_id = kernel_install.names(self._host).machine_id
        root = roots(running(self._host))
        found: list[Found] = []
        for name in self._names():
            found += _entry(self._host, f"{ENTRIES}/{name}", variables, machine_id, root)
        defaults = grub.Grub(self._host).settings.observe() if self._host.exists(grub_settings.DEFAULTS) else None
        # 20-grub.install takes every word of the file for a parameter, also those of comments.
        settings = replace(kernel_install.settings(self._host), has_comments=False)
        paths = [kernel_install.SETTINGS, ENVIRONMENT, grub_settings.DEFAULTS, *(entry.path for entry in found)]
        leftovers = files.with_leftovers(self._host, paths)
        listed = {
            info["id"]: CommandLine.parse(f"{'root=' if info.get('root') else ''}{info.get('root', '')} {info['args']}")
            for info in self._info("ALL")
            if "id" in info and "args" in info
        }
        return Seen(tuple(found), environment, variables, settings, defaults, listed, leftovers)

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """Change the settings and every entry of this system where they are not as wanted.

        For the default entry alone, no settings are changed, and an entry with ``$kernelopts`` gets what that stands
        for, as ``grubby --update-kernel=DEFAULT`` does it.

        :raises PassthroughError: ``kernels_default_unsupported``, ``boot_entries_missing``, ``boot_entries_wrong``,
            ``boot_entries_not_understood``, ``parameter_set_elsewhere``, ``settings_too_clever``,
            ``value_not_representable``, ``command_line_too_long``, ``file_unwritable``
        """
        if not seen.ours:
            others = ", ".join(found.path for found in seen.found[:5])
            raise PassthroughError(
                "boot_entries_missing",
                f"No boot entry of this system is in {ENTRIES}" + (f", but others: {others}." if others else "."),
                "Is /boot mounted, and does grubby --info=ALL list the kernel that runs?",
            )
        if seen.has_kernelopts and not seen.variables.get(KERNELOPTS, "").strip():
            raise _not_understood(
                next(found.path for found in seen.ours if found.has_kernelopts),
                f"its parameters are ${KERNELOPTS}, which {ENVIRONMENT} does not have",
                "Run grub2-mkconfig -o /boot/grub2/grub.cfg, which sets it there, and look with grub2-editenv list.",
            )
        _compare(seen, request)
        if kernels == DEFAULT_KERNEL:
            default = self._default(seen)
            after = replace(seen, found=_with(seen, {default.path: _own_entry(default, seen, request)}))
        else:
            after = self._settings_after(seen, request)
            after = replace(
                after, found=_with(after, {found.path: _changed(found, after, request) for found in after.ours})
            )
        for old, new in zip(seen.found, after.found):
            check_length(new.title, old.command_line, new.command_line, put_before=f"BOOT_IMAGE={new.kernel} ")
        plan = self._actions(seen, after, request, kernels)
        files.require_writable(self._host, sorted(plan.targets))
        plan.sweep(seen.leftovers)
        return plan

    # -- observing ---------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [n for n in self._host.list_dir(ENTRIES) if n.endswith(".conf") and not n.startswith(".")]

    def _kernels(self) -> set[str]:
        return {
            entries.value(files.observe(self._host, f"{ENTRIES}/{name}").text, "linux") for name in self._names()
        } - {""}

    def _variables(self, environment: FileState) -> dict[str, str]:
        """The variables of grubenv, which grub.cfg loads, and those it sets itself.

        RHEL 8 sets ``kernelopts`` in grub.cfg only for a grubenv that has none; tuned sets its own in any case.
        """
        found = {}
        for command in commands(read_config(self._host)):
            if command.words and command.words[0].value == "set" and len(command.words) > 1:
                name, equals, value = command.words[1].value.partition("=")
                if equals and name in (KERNELOPTS, "tuned_params"):
                    found[name] = value
        assigned = grub_environment.variables(environment)
        return {**assigned, **found, **{name: assigned[name] for name in (KERNELOPTS,) if name in assigned}}

    def _info(self, which: str) -> list[dict[str, str]]:
        """What grubby prints, one mapping for each entry."""
        found: list[dict[str, str]] = []
        for line in self._host.run([PROGRAM, f"--info={which}"], timeout=120.0).stdout.split("\n"):
            match = _INFO.fullmatch(line.rstrip("\r"))
            if match is None:
                continue
            if match.group(1) == "index":
                found.append({})
            if found:
                found[-1][match.group(1)] = match.group(3) if match.group(2) is None else match.group(2)
        return found

    def _default(self, seen: Seen) -> Found:
        """The entry that is booted by default, as grubby finds it (``saved_entry`` of grubenv, else the newest)."""
        identity = next((info.get("id", "") for info in self._info("DEFAULT")), "")
        if not identity:
            refuse_default_kernel(DEFAULT_KERNEL, self.title, "grubby does not tell which entry is the default one")
        for found in seen.ours:
            if found.identity == identity:
                return found
        raise PassthroughError(
            "boot_entries_missing",
            f"grubby says that {identity!r} is booted by default, which is not an entry of this system in {ENTRIES}.",
            "Choose one with grubby --set-default, or use kernels: all.",
        )

    # -- planning ----------------------------------------------------------------------------------------

    def _settings_after(self, seen: Seen, request: Request) -> Seen:
        """What was seen, with the request met by the settings; the entries have the new value of ``kernelopts``."""
        variables = dict(seen.variables)
        environment = seen.environment
        is_read = seen.has_kernelopts or KERNELOPTS in grub_environment.variables(environment)
        kernelopts = variables.get(KERNELOPTS, "")
        if is_read and request.at(ENVIRONMENT).unmet(CommandLine.parse(kernelopts)):
            variables[KERNELOPTS] = edited(kernelopts, request.at(ENVIRONMENT))
            environment = grub_environment.with_variable(seen.environment, KERNELOPTS, variables[KERNELOPTS])
        settings = seen.settings
        if settings.path == RUNNING_PATH and not seen.has_kernelopts:
            normal = [found for found in seen.ours if not found.is_rescue] or list(seen.ours)
            stale = any(found.wanted(request).unmet(found.command_line) for found in normal)
            if stale or request.at(kernel_install.SETTINGS).unmet(settings.command_line("", "-")):
                current = self._current(normal)
                settings = kernel_install.settings_of_entry(settings, _without_variables(current.options))
        if settings.path != RUNNING_PATH:
            settings = settings.with_request(request.at(kernel_install.SETTINGS))
        defaults = seen.defaults
        if defaults is not None:
            defaults = grub.Grub(self._host).settings.edited(defaults, request, home=grub_settings.EVERY)
        found = tuple(replace(f, command_line=_handed_over(f.options, variables, f.path)) for f in seen.found)
        return replace(
            seen,
            found=found,
            environment=environment,
            variables=variables,
            settings=settings,
            defaults=defaults,
        )

    def _current(self, normal: Sequence[Found]) -> Found:
        """The entry whose kernel runs; the last one when nothing says which."""
        image = grub.boot_image(running(self._host))
        return next((found for found in normal if found.kernel == image), normal[-1])

    def _actions(self, seen: Seen, after: Seen, request: Request, kernels: str) -> BootPlan:
        """The writes that lead from one to the other, the settings first.

        Each write has the records of what it alone changes: when a run is killed between two of them, the next one
        finds a state that they explain.
        """
        settings = after.settings
        if settings is not seen.settings and settings.path == kernel_install.SETTINGS:
            settings = replace(settings, state=settings.wanted)
            after = replace(after, settings=settings)
        plan = BootPlan(predicted=after.configuration)
        stage = seen

        def write(path: str, before: FileState, wanted: FileState, reached: Seen, text: str = "") -> None:
            nonlocal stage
            make = WriteFile if path.startswith("/etc/") else WriteBootFile
            action = make(
                path,
                before,
                wanted,
                description=text or f"change the kernel parameters in {path}",
                records=_records(stage, reached, request, kernels),
            )
            # A file that is restored before /etc/default/grub would be the older one.
            action.regenerates = path == kernel_install.SETTINGS
            plan.add(action)
            stage = reached

        if after.environment != seen.environment:
            reached = replace(stage, environment=after.environment)
            write(ENVIRONMENT, seen.environment, after.environment, reached, f"change {KERNELOPTS} in {ENVIRONMENT}")
        before = seen.defaults.sources if seen.defaults else {}
        sources = after.defaults.sources if after.defaults else {}
        changed = [path for path in sources if sources[path] != before[path]]
        for path in changed:
            write(path, before[path], sources[path], replace(stage, defaults=after.defaults))
        now = seen.settings.state
        if settings is not seen.settings or (changed and now.content is not None):
            text = ""
            if now.content is None:
                origin = seen.settings.path if seen.settings.path != RUNNING_PATH else "the entry in use"
                text = f"write {kernel_install.SETTINGS}, which was missing, from {origin}, so that new kernels get "
                text += "the parameters"
            elif settings is seen.settings:
                text = f"write {kernel_install.SETTINGS} again, unchanged, for it to stay newer than "
                text += grub_settings.DEFAULTS
            write(kernel_install.SETTINGS, now, settings.state, replace(stage, settings=settings), text)
        for old, new in zip(seen.found, after.found):
            if old.state != new.state:
                write(old.path, old.state, new.state, replace(stage, found=_with(stage, {old.path: new})))
        return plan


class WriteBootFile(WriteFile):
    """Write a file that GRUB reads at boot; see :func:`.grub_config.write_back`."""

    def apply(self, host: Host) -> None:
        super().apply(host)
        grub_config.write_back(host, self.target)

    def undo(self, host: Host) -> None:
        super().undo(host)
        grub_config.write_back(host, self.target)


def _entry(host: Host, path: str, variables: Mapping[str, str], machine_id: str, root: frozenset[str]) -> list[Found]:
    """The entry at ``path``; none when it boots something else than Linux.

    :raises PassthroughError: ``boot_entries_not_understood``
    """
    state = files.observe(host, path)
    kernel = entries.value(state.text, "linux")
    if not kernel:
        return []
    lines = [match.group(1) for match in _OPTIONS.finditer(state.text)]
    if len(lines) != 1:
        reading = "of which GRUB reads the first one only" if lines else "so GRUB takes the variable default_kernelopts"
        raise _not_understood(path, f"it has {len(lines)} options lines, {reading}")
    options = lines[0].rstrip()
    line = _handed_over(options, variables, path)
    name = path.rpartition("/")[2]
    owner = _OWNED.fullmatch(name)
    # The machine-id of an image changes when it is first booted, and its entries keep their names: the root decides.
    is_ours = may_share_a_root(root, roots(line)) or bool(owner and owner.group(1) == machine_id)
    title = entries.value(state.text, "title") or name
    return [Found(path, state, title, kernel, options, line, is_ours)]


def _handed_over(options: str, variables: Mapping[str, str], path: str) -> CommandLine:
    """What GRUB hands to the kernel for these options: it replaces variables first, and then takes the text apart.

    A variable nothing sets stays, as it is not known what else sets it.
    """
    return _parsed(_VARIABLE.sub(lambda match: variables.get(match.group(1), match.group()), options), path)


def _parsed(text: str, path: str) -> CommandLine:
    try:
        return CommandLine.of(word.handed_over for word in arguments(text))
    except GrubSyntaxError as error:
        raise _not_understood(path, f"GRUB cannot read its parameters {text!r}: {error}") from error


def _not_understood(
    path: str, why: str, remedy: str = "Correct it by hand before the next reboot."
) -> PassthroughError:
    return PassthroughError(
        "boot_entries_not_understood",
        f"{path} cannot be changed safely: {why}.",
        remedy,
        path=path,
    )


def _compare(seen: Seen, request: Request) -> None:
    """See that grubby reads the same entries as this module, and the same in them.

    Only names whose values are plain are compared: grubby prints what a shell leaves of blanks and patterns. Which
    variables it replaces depends on its version, so it may print them replaced or not.

    :raises PassthroughError: ``boot_entries_wrong``
    """
    if not seen.listed:
        return
    wrong = []
    kernelopts = {name: value for name, value in seen.variables.items() if name == KERNELOPTS}
    for found in seen.ours:
        line = seen.listed.get(found.identity)
        if line is None:
            wrong.append(f"it does not know {found.identity}")
            continue
        readings = [found.command_line, _handed_over(found.options, kernelopts, found.path)]
        readings.append(_handed_over(found.options, {}, found.path))
        plain = {
            key
            for key in request.keys
            if not any(re.search(r'[\s"*?\[\\]', p.text) for reading in readings for p in reading.named(key))
        }
        if not any(plain.isdisjoint(request.differing(reading, line)) for reading in readings):
            wrong.append(f"in {found.identity} it reads {str(line)!r} instead of {str(found.command_line)!r}")
    if wrong:
        raise PassthroughError(
            "boot_entries_wrong",
            f"grubby does not read the entries in {ENTRIES} as this module does: {'; '.join(wrong[:3])}.",
            "Compare grubby --info=ALL with the files: one of them may have blanks in its name, or lines twice.",
        )


def _changed(found: Found, seen: Seen, request: Request) -> Found:
    """An entry with what is wanted, as far as the settings do not give it that."""
    line = found.command_line
    request = found.wanted(request)
    keys = request.unmet(line)
    if not keys:
        return found
    wanted = request.only(keys)
    if found.has_kernelopts:  # which has what is wanted; what else the entry says of these names is one too many
        from_settings = CommandLine.parse(seen.variables.get(KERNELOPTS, ""))
        if not wanted.unmet(from_settings):
            replaced = dict.fromkeys(parameter.key for parameter in wanted.present)
            wanted = Request((), (*map(Parameter.parse, replaced), *wanted.absent))
    return _rewritten(found, found.state.text, seen, wanted, request.only(keys))


def _own_entry(found: Found, seen: Seen, request: Request) -> Found:
    """An entry that has what is wanted by itself, whatever the settings say."""
    if not request.unmet(found.command_line):
        return found
    text = found.state.text
    if found.has_kernelopts:
        value = seen.variables.get(KERNELOPTS, "")
        replaced = re.sub(rf"\$(?:{KERNELOPTS}\b|\{{{KERNELOPTS}\}})", lambda _unused: value, found.options)
        text = _OPTIONS.sub(lambda _unused: f"options {replaced}", text)
    return _rewritten(found, text, seen, request, request)


def _rewritten(found: Found, text: str, seen: Seen, edit: Request, wanted: Request) -> Found:
    """An entry after an edit, which has to lead to what is wanted and to leave all else as it was.

    :raises PassthroughError: ``parameter_set_elsewhere``, ``value_not_representable``
    """
    text = entries.with_request(text, edit, found.path) if edit.keys else text
    options = next((match.group(1).rstrip() for match in _OPTIONS.finditer(text)), "")
    line = _handed_over(options, seen.variables, found.path)
    left = wanted.unmet(line)
    variables = sorted({f"${name}" for name in _VARIABLE.findall(options)})
    shown = " ".join(parameter.text for key in left for parameter in line.named(key))
    if variables and shown:
        raise PassthroughError(
            "parameter_set_elsewhere",
            f"{found.path} would still have {shown!r}: it comes from {' or '.join(variables)}, which GRUB replaces at "
            "boot.",
            "$tuned_params belongs to tuned: change the profile (tuned-adm active; cmdline in its [bootloader] "
            "section) and apply it again.",
            path=found.path,
        )
    if left or line.without(wanted.keys) != found.command_line.without(wanted.keys):
        raise PassthroughError(
            "value_not_representable",
            f"{found.path} cannot be changed without touching other parameters: the kernel would be handed "
            f"{str(line)!r} instead of {str(wanted.apply(found.command_line))!r}.",
            "Look for single quotes and backslashes in its options line, which GRUB takes for its own, and correct it.",
            path=found.path,
        )
    return replace(found, state=found.state.with_text(text), options=options, command_line=line)


def _without_variables(options: str) -> CommandLine:
    """Options without the variables in them: tuned adds its own to a new entry (92-tuned.install)."""
    line = CommandLine.parse(options)
    return replace(line, parameters=tuple(p for p in line.parameters if not p.text.startswith("$")))


def _with(seen: Seen, changed: Mapping[str, Found]) -> tuple[Found, ...]:
    return tuple(changed.get(found.path, found) for found in seen.found)


def _records(seen: Seen, after: Seen, request: Request, kernels: str) -> list[Record]:
    """Between two states: one record for each name that changes in the settings or in an entry of its own."""
    records = []
    for key in request.keys:
        before, now = seen.settings_places(key), after.settings_places(key)
        pairs = [(old, new) for old, new in zip(seen.found, after.found) if old.state != new.state]
        if kernels == DEFAULT_KERNEL:
            before, now = {}, {}
        elif isinstance(request, Restoration):
            pairs = [(old, new) for old, new in pairs if old.path in request.places]
        else:
            pairs = []
        before.update(spellings({old.path: old.command_line for old, _unused in pairs}, key))
        now.update(spellings({new.path: new.command_line for _unused, new in pairs}, key))
        if before != now:
            records.append(record_of(NAME, key, before, now))
    return records
