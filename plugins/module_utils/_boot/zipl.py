# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""zipl, the boot loader of IBM Z: zipl.conf(5) with sections, and boot loader specification entries.

Where a parameter is written:

* ``parameters=`` of the sections of this system in /etc/zipl.conf, or the file ``parmfile=`` names (Debian, Ubuntu).
* The ``options`` line of the entries in /boot/loader/entries, and /etc/kernel/cmdline, which kernel-install gives to
  the entries it makes (Fedora, RHEL: plugins of s390utils).

zipl copies the parameters into the boot map, and the addresses of its blocks into the boot record. So what is
installed does not change with the files, until zipl runs; it runs with ``--dry-run`` first, which checks everything,
the length of the parameters for this kernel included, and writes no boot record.

The kernel appends what the operator of the machine gave at IPL (/sys/firmware/ipl/parm for CCW devices under z/VM,
/sys/firmware/ipl/scp_data for the others) to what zipl handed over; where it begins with ``=``, it replaces all of it
(append_ipl_block_parm() in arch/s390/boot/ipl_parm.c). ``reboot_required`` goes by /proc/cmdline, the outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import RunCommand, WriteFile
from . import entries, kernel_install, zipl_conf
from .cmdline import RUNNING_PATH, CommandLine, Request, may_share_a_root, roots, running
from .loader import (
    ALL_KERNELS,
    DEFAULT_KERNEL,
    BootPlan,
    Configuration,
    Entry,
    changed_entries,
    check_length,
    records_of,
    refuse_default_kernel,
    spellings,
)
from .words import edited
from .zipl_conf import ZiplSyntaxError

NAME = "zipl"
CONFIG = "/etc/zipl.conf"
# In the order in which zipl looks for one (zipl.conf(5)).
CONFIGS = ("/run/zipl/zipl.conf", CONFIG, "/lib/s390-tools/zipl.conf", "/usr/lib/s390-tools/zipl.conf")
ENTRIES = "/boot/loader/entries"
IPL_TYPE = "/sys/firmware/ipl/ipl_type"
# SUSE's zipl starts a small Linux that runs GRUB; the parameters are GRUB's.
GRUB_MARKS = ("/boot/zipl/config", "/etc/default/zipl2grub.conf.in", "/usr/sbin/grub2-zipl-setup")
BOOT_MAP = "bootmap"

# COMMAND_LINE_SIZE, with the final NUL, was 896 until Linux got commit 622021cd6c56 (2021); since then it is set when
# the kernel is built, 4096 by default. What counts for a kernel, zipl knows.
MAX_LENGTH = 4095

TIMEOUT = 300.0


@dataclass(frozen=True)
class Found:
    """A section or entry that starts a Linux kernel."""

    name: str
    path: str
    """The file that has its parameters."""
    kernel: str
    command_line: CommandLine
    is_entry: bool
    """Whether it is a boot loader specification entry."""
    is_ours: bool
    is_made: bool = False
    """Whether kernel-install made it."""

    @property
    def is_rescue(self) -> bool:
        """Whether it is dracut's rescue entry, which gets nothing new."""
        return self.is_entry and self.path.endswith("-0-rescue.conf")

    @property
    def place(self) -> str:
        """Where its own parameters are."""
        return self.path if self.is_entry else f"{self.path}:{self.name}"

    @property
    def source(self) -> str:
        """Where it has its parameters from, for records."""
        return kernel_install.SETTINGS if self.is_made and not self.is_rescue else self.place

    def wanted(self, request: Request) -> Request:
        """What is wanted of it."""
        return request.of_entry(self.command_line, self.source, is_rescue=self.is_rescue)

    def as_entry(self) -> Entry:
        """What it is to the rest of this collection."""
        changed_itself = self.is_ours and not self.is_made
        return Entry(self.name, self.kernel, self.command_line, self.is_rescue, self.is_made, in_place=changed_itself)


@dataclass(frozen=True)
class Seen:
    """The configuration, all files parameters are in, and what they come to."""

    config: str
    sources: dict[str, FileState]
    found: tuple[Found, ...]
    default: str
    settings: kernel_install.Settings | None
    """For the entries kernel-install is going to make; None where it makes none."""
    is_stale: bool
    """Whether one of the files is newer than the boot map."""
    boot_map: str
    """What zipl writes, beside the boot record."""
    leftovers: tuple[str, ...] = ()

    @property
    def default_entry(self) -> Found | None:
        """What is booted when nobody chooses."""
        return next((found for found in self.found if found.name == self.default), next(iter(self.found), None))

    @property
    def configuration(self) -> Configuration:
        """What a new kernel gets, or else what is booted by default."""
        line = self.default_entry.command_line if self.default_entry is not None else CommandLine()
        if self.settings is not None and self.settings.path != RUNNING_PATH:
            line = self.settings.command_line("", "-")
        return Configuration(line, CommandLine(), tuple(found.as_entry() for found in self.found))

    def places(self, key: str) -> dict[str, list[str]]:
        """Where parameters of a name stand, for records."""
        lines = {f.place: f.command_line for f in self.found if f.is_ours and f.source == f.place}
        if self.settings is not None and self.settings.path == kernel_install.SETTINGS:
            lines[kernel_install.SETTINGS] = self.settings.command_line("", "-")
        return spellings(lines, key)


class Zipl:
    """zipl with sections or entries; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = "zipl (IBM Z)"
    drives = frozenset(("grub", "grub-bls"))

    def __init__(self, host: Host) -> None:
        self._host = host

    def evidence(self) -> list[str]:
        """From what kind of device the firmware loaded zipl's boot record."""
        kind = self._host.attribute(IPL_TYPE)
        return [f"{IPL_TYPE} says {kind.strip()!r}"] if kind is not None else []

    def missing(self) -> list[str]:
        """The program and its configuration."""
        missing = [] if self._host.which(NAME) else [NAME]
        return missing + ([] if self._config() else [CONFIG])

    def doubt(self) -> str:
        """What is not there."""
        return f"there is no {IPL_TYPE}"

    def observe(self) -> Seen:
        """Read the configuration, the entries, and the files with parameters.

        :raises PassthroughError: ``settings_not_understood``
        """
        config = self._config() or CONFIG
        sources = {config: files.observe(self._host, config)}
        for name in reversed(self._host.list_dir(ENTRIES)):  # zipl's menu has the newest first
            if name.endswith(".conf") and not name.startswith("."):
                sources[f"{ENTRIES}/{name}"] = files.observe(self._host, f"{ENTRIES}/{name}")
        try:
            sections = zipl_conf.sections(sources[config].text)
            names, default, target = zipl_conf.installed(sections)
        except ZiplSyntaxError as error:
            raise PassthroughError(
                "settings_not_understood",
                f"{config} cannot be read: {error}.",
                "zipl would fail the same way. Mend the file, and run zipl --dry-run.",
                path=config,
            ) from error
        for section in zipl_conf.kernel_sections(sections).values():
            path = section.file("parmfile")
            if not path:
                continue
            if not path.startswith("/") or not self._host.exists(path):
                raise PassthroughError(
                    "settings_not_understood",
                    f"The parmfile {path!r} of [{section.name}] in {config} is not there, or no absolute path.",
                    "zipl fails for a file that is not there. Mend the section, and run zipl --dry-run.",
                    path=config,
                )
            sources[path] = files.observe(self._host, path)
        found = self._found(config, sources)
        if names is not None:
            found = tuple(item for item in found if item.name in names)
        is_made = any(item.is_made for item in found)
        settings = replace(kernel_install.settings(self._host), has_comments=False) if is_made else None
        boot_map = f"{target.rstrip('/')}/{BOOT_MAP}"
        written = self._host.modified(boot_map)
        is_stale = written is None or any((self._host.modified(path) or 0) > written for path in sources)
        paths = [*sources, *([kernel_install.SETTINGS] if is_made else [])]
        leftovers = files.with_leftovers(self._host, paths)
        return Seen(config, sources, found, default, settings, is_stale, boot_map, leftovers)

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """Change the sections and entries where they are not as wanted, and have zipl install them.

        :raises PassthroughError: ``kernels_default_unsupported``, ``boot_entries_missing``, ``settings_too_clever``,
            ``value_not_representable``, ``command_line_too_long``, ``file_unwritable``
        """
        chosen = self._chosen(seen, kernels)
        stale = [found for found in chosen if found.wanted(request).unmet(found.command_line)]
        for found in stale:
            self._refuse_what_is_too_clever(seen, found)
        sources = self._edited(seen, stale, request)
        after = replace(seen, sources=sources, found=tuple(self._again(seen, sources)))
        for old, new in zip(seen.found, after.found):
            wanted = old.wanted(request).apply(old.command_line) if old in stale else old.command_line
            if new.command_line != wanted:
                raise PassthroughError(
                    "value_not_representable",
                    f"{old.path} cannot say {str(wanted)!r} for {old.name!r}: zipl would read "
                    f"{str(new.command_line)!r}.",
                    "A value that has double quotes stands in single quotes there, so it cannot have both.",
                    path=old.path,
                )
            check_length(old.name, old.command_line, new.command_line, most=MAX_LENGTH)
            if old in chosen and (stale or seen.is_stale):
                _refuse_what_is_not_ascii(new)
        base = self._base(seen, stale, request)
        if base is not None and base.path != RUNNING_PATH:
            after = replace(after, settings=base.with_request(request.at(kernel_install.SETTINGS)))
        before = replace(seen, settings=base)  # a file that is made counts as what it is made of
        records = records_of(NAME, request, before, after)
        plan = BootPlan(predicted=after.configuration)
        if after.settings is not None and after.settings is not seen.settings:
            path, state, wanted_state = kernel_install.SETTINGS, after.settings.state, after.settings.wanted
            description = f"change the kernel parameters in {path}"
            if state.content is None:
                description = f"write {path}, which was missing, so that new kernels get the parameters"
            plan.add(WriteFile(path, state, wanted_state, description=description, records=records))
            records = []
        for path, state in sources.items():
            if state != seen.sources[path]:
                description = f"change the kernel parameters in {path}"
                plan.add(WriteFile(path, seen.sources[path], state, description=description, records=records))
                records = []
        is_due = bool(stale) or seen.is_stale
        files.require_writable(self._host, [*sorted(plan.targets), *([seen.boot_map] if is_due else [])])
        if is_due:
            plan.add(InstallBootRecord(seen, after))
        plan.sweep(seen.leftovers)
        return plan

    # -- observing ---------------------------------------------------------------------------------------

    def _config(self) -> str | None:
        return next((path for path in CONFIGS if self._host.exists(path)), None)

    def _found(self, config: str, sources: dict[str, FileState]) -> tuple[Found, ...]:
        """Every section and entry that starts a kernel, in the order of zipl's menu."""
        root = roots(running(self._host))
        result = []
        for name, section in zipl_conf.kernel_sections(zipl_conf.sections(sources[config].text)).items():
            parmfile = section.file("parmfile")
            text = " ".join(filter(None, (sources[parmfile].text if parmfile else "", section.text("parameters"))))
            line = CommandLine.parse(text)
            result.append(
                Found(name, parmfile or config, section.file("image"), line, False, may_share_a_root(root, roots(line)))
            )
        tokens = kernel_install.names(self._host).tokens
        for path, state in sources.items():
            kernel = entries.value(state.text, "linux") if path.startswith(f"{ENTRIES}/") else ""
            if kernel:
                name = entries.value(state.text, "title")
                line = entries.command_line(state.text)
                is_ours = may_share_a_root(root, roots(line))
                is_made = is_ours and any(path.startswith(f"{ENTRIES}/{token}-") for token in tokens)
                result.append(Found(name or path, path, kernel, line, True, is_ours, is_made))
        return tuple(result)

    def _again(self, seen: Seen, sources: dict[str, FileState]) -> list[Found]:
        """What was found before, as it is in changed files."""
        changed = {(found.place, found.name): found for found in self._found(seen.config, sources)}
        return [changed[found.place, found.name] for found in seen.found]

    # -- planning ----------------------------------------------------------------------------------------

    def _chosen(self, seen: Seen, kernels: str) -> list[Found]:
        """The sections and entries to change."""
        chosen = [found for found in seen.found if found.is_ours]
        if kernels == DEFAULT_KERNEL:
            default = seen.default_entry
            if default is None or default.is_entry or default.path != seen.config:
                why = "the next kernel would not have it" if default and default.is_entry else "it is not in a section"
                refuse_default_kernel(kernels, self.title, why)
            chosen = [found for found in chosen if found == default]
        if not chosen:
            raise PassthroughError(
                "boot_entries_missing",
                f"Nothing that zipl installs from {seen.config} and {ENTRIES} starts this system.",
                "Is /boot mounted? Does a section or entry have the root= of /proc/cmdline?",
                path=seen.config,
            )
        return chosen

    @staticmethod
    def _refuse_what_is_too_clever(seen: Seen, found: Found) -> None:
        """Fail for what cannot be changed safely in place."""
        reason = ""
        if "${" in str(found.command_line):
            reason = "it has a variable of zipl's environment (zipl-editenv), whose value zipl puts there"
        elif not found.is_entry and seen.config != CONFIG:
            reason = f"its section is in {seen.config}, which belongs to a package or is gone after a reboot"
        elif not found.is_entry and found.path != seen.config:
            sections = zipl_conf.kernel_sections(zipl_conf.sections(seen.sources[seen.config].text))
            if "parameters" in sections[found.name].values:
                reason = "it has a parmfile and parameters, which zipl joins"
        if reason:
            raise PassthroughError(
                "settings_too_clever",
                f"The parameters of {found.name!r} cannot be changed safely: {reason}.",
                f'Write them as plain parameters="…" in a section of {CONFIG}.',
                path=found.path,
            )

    @staticmethod
    def _edited(seen: Seen, stale: Sequence[Found], request: Request) -> dict[str, FileState]:
        """The files with the request met."""
        texts = {found.path: seen.sources[found.path].text for found in stale}
        for found in stale:
            text = texts[found.path]
            if found.is_entry:
                texts[found.path] = entries.with_request(text, found.wanted(request), found.path)
            elif found.path == seen.config:
                texts[found.path] = zipl_conf.with_request(text, request.at(found.place), [found.name])
            else:  # a parmfile, which several sections may name: a second time it changes nothing
                texts[found.path] = edited(text, request.at(found.place))
        sources = dict(seen.sources)
        sources.update({path: seen.sources[path].with_text(text) for path, text in texts.items()})
        return sources

    @staticmethod
    def _base(seen: Seen, stale: Sequence[Found], request: Request) -> kernel_install.Settings | None:
        """The settings for new kernels to change: those there are, or those a missing file is made with."""
        settings = seen.settings
        if settings is None or settings.path != RUNNING_PATH:
            return settings
        made = [found for found in seen.found if found.is_made and not found.is_rescue]
        if not made or not (stale or request.at(kernel_install.SETTINGS).unmet(settings.command_line("", "-"))):
            return settings
        default = seen.default_entry
        current = default if default in made and default is not None else made[-1]
        return kernel_install.settings_of_entry(settings, current.command_line)


class InstallBootRecord(RunCommand):
    """Have zipl check the files, and then write boot map and boot record from them; undone by having it do so again."""

    def __init__(self, seen: Seen, after: Seen) -> None:
        super().__init__(
            [NAME, "--noninteractive"],
            target="the boot record",
            description="run zipl, which writes the boot record",
            timeout=TIMEOUT,
        )
        self.before, self.after = changed_entries(seen.configuration.entries, after.configuration.entries)

    def apply(self, host: Host) -> None:
        host.run([NAME, "--noninteractive", "--dry-run"], timeout=TIMEOUT)
        super().apply(host)


def _refuse_what_is_not_ascii(found: Found) -> None:
    """Fail for what the kernel would take for EBCDIC: a single byte above 0x7f, and it converts the whole line.

    See setup_boot_command_line() in arch/s390/boot/ipl_parm.c. Such a line has no root= any more, and nothing boots.

    :raises PassthroughError: ``value_not_representable``
    """
    foreign = [parameter.text for parameter in found.command_line.parameters if not parameter.text.isascii()]
    if foreign or not str(found.command_line).isascii():
        raise PassthroughError(
            "value_not_representable",
            f"The parameters of {found.name!r} would have {' '.join(foreign) or 'arguments for init'}, which is not "
            "ASCII: the kernel on IBM Z would take all of them for EBCDIC, and not find its root file system.",
            "Write them in ASCII only.",
            path=found.path,
        )
