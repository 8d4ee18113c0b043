# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""grub.cfg, which GRUB 2's generator makes of the settings: its entries, what becomes of them, and having it made.

It is generated beside the real one, every entry in it is inspected, and only then it is swapped in.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import Action
from .cmdline import CommandLine, Parameter, Request
from .grub_layout import Layout
from .grub_script import BootEntry, GrubSyntaxError, boot_entries
from .grub_settings import NORMAL_ENTRY, RECOVERY, RECOVERY_ENTRY, Settings
from .loader import Configuration, Entry, changed_entries, check_length

# What 10_linux itself puts into recovery entries, whatever is set.
RECOVERY_WORDS = frozenset(("single", "recovery", "nomodeset", "dis_ucode_ldr"))

# The scripts of /etc/grub.d whose entries boot another system, whose parameters are its own business.
OTHER_SYSTEMS = frozenset(("30_os-prober",))

# grub-mkconfig probes every disk for other systems; an emulated machine is ten times slower than a real one.
GENERATOR_TIMEOUT = 1200.0
GENERATOR_ATTEMPTS = 3
WRITE_BACK_TIMEOUT = 60.0  # the whole file system is flushed, guests' disks on it included


def read_entries(text: str, layout: Layout) -> list[BootEntry]:
    """The entries of a grub.cfg.

    :raises PassthroughError: ``boot_entries_not_understood``
    """
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


def entry_of(entry: BootEntry, line: CommandLine) -> Entry:
    """An entry as the rest of this collection knows it, with this command line."""
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


def predict(
    found: Iterable[BootEntry], before: Settings, after: Settings, request: Request, recovery_word: str
) -> Configuration:
    """What generating grub.cfg is going to make of the entries that are there.

    :param before: the settings they were made from, or should have been
    :param recovery_word: what 10_linux takes for an empty ``GRUB_CMDLINE_LINUX_RECOVERY``
    :raises PassthroughError: ``command_line_too_long``
    """
    entries = []
    for entry in found:
        line = entry.command_line
        if entry.is_generated:
            variables = RECOVERY_ENTRY if entry.is_recovery else NORMAL_ENTRY
            keys = [key for key in request.keys if not (entry.is_recovery and key in RECOVERY_WORDS)]
            wanted = after.command_line(*variables)
            if entry.is_recovery and before.values[RECOVERY] and not after.values[RECOVERY]:
                wanted = replace(wanted, parameters=(Parameter.parse(recovery_word), *wanted.parameters))
            line = _regenerated(line, before.command_line(*variables), wanted, keys)
            check_length(entry.title, entry.command_line, line, put_before=f"BOOT_IMAGE={entry.kernel} ")
        entries.append(entry_of(entry, line))
    return Configuration(after.command_line(*NORMAL_ENTRY), after.command_line(*RECOVERY_ENTRY), tuple(entries))


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
        entries = [entry_of(entry, entry.command_line) for entry in read_entries(text, self._layout)]
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
