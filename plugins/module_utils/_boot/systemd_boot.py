# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""systemd-boot, and unified kernel images that the firmware starts itself: both read the same two directories.

Where a parameter is written:

* Entries that ``kernel-install`` made (``loader/entries/TOKEN-VERSION.conf``) have it from ``/etc/kernel/cmdline``.
  That file is changed, so that the next kernel has it, too; then each of the entries is, in its ``options`` line only.
  Where the file is missing, a new kernel gets whatever the running one was started with; it is made then.
* Unified kernel images (``EFI/Linux/TOKEN-VERSION.efi``) have it built in. kernel-install builds each of them again, in
  a directory in /run; it is inspected, and replaces the old one.
* Entries written by hand are changed in place.
* Entries of other systems on the same partition are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import Action, WriteFile
from .._core.state import Record
from . import entries, kernel_install, pe
from .cmdline import RUNNING_PATH, CommandLine, Request, may_share_a_root, roots, running
from .efi import loader_variable, variable_evidence
from .kernel_install import SETTINGS, Names, Settings
from .loader import (
    ALL_KERNELS,
    BootPlan,
    Configuration,
    Entry,
    check_length,
    records_of,
    refuse_default_kernel,
    spellings,
)

NAME = "systemd-boot"
IMAGE_NAME = "uki"
PROGRAM = "bootctl"
ENTRIES = "loader/entries"
IMAGES = "EFI/Linux"
USUAL_MOUNTS = ("/efi", "/boot", "/boot/efi")  # where bootctl and kernel-install look

MADE = "made"
BY_HAND = "by hand"
FOREIGN = "foreign"


@dataclass(frozen=True)
class Found:
    """One entry or image on the boot partition."""

    path: str
    state: FileState
    kind: str
    """:data:`MADE` by kernel-install for this system, written :data:`BY_HAND`, or :data:`FOREIGN`."""
    title: str
    kernel: str
    command_line: CommandLine
    token: str = ""
    version: str = ""
    is_image: bool = False

    @property
    def is_rescue(self) -> bool:
        """Whether it is dracut's rescue entry (51-dracut-rescue.install)."""
        return self.version == "0-rescue"

    @property
    def is_on_its_own(self) -> bool:
        """Whether its parameters are not those of the settings."""
        return self.kind != MADE or self.is_rescue

    @property
    def source(self) -> str:
        """Where it has its parameters from, for records."""
        return self.path if self.is_on_its_own else SETTINGS

    def wanted(self, request: Request) -> Request:
        """What is wanted of it."""
        return request.of_entry(self.command_line, self.source, is_rescue=self.is_rescue)

    @property
    def changeable(self) -> bool:
        """Whether it is of this system, so that it is to have what is wanted."""
        return self.kind != FOREIGN

    def as_entry(self) -> Entry:
        """What it is to the rest of this collection."""
        return Entry(
            self.title, self.kernel, self.command_line, self.is_rescue, self.kind == MADE, in_place=self.kind == BY_HAND
        )


@dataclass(frozen=True)
class Seen:
    """The settings, and all entries and images."""

    settings: Settings
    names: Names
    found: tuple[Found, ...]
    leftovers: tuple[str, ...] = ()
    """The files beside which a killed run left a temporary one: that of an image may fill the partition."""

    @property
    def configuration(self) -> Configuration:
        """What a new kernel gets, and what the entries have."""
        line = self.settings.command_line("", "-")
        if not self.is_installed_to and self.settings.state.content is None:
            line = next((found.command_line for found in self.found if found.changeable), line)
        return Configuration(line, CommandLine(), tuple(found.as_entry() for found in self.found))

    def places(self, key: str) -> dict[str, list[str]]:
        """The settings, and the entries that are not made from them, that have a name."""
        lines = {found.path: found.command_line for found in self.found if found.changeable and found.is_on_its_own}
        if self.settings.path == SETTINGS:
            lines[SETTINGS] = self.settings.command_line("", "-")
        return spellings(lines, key)

    @property
    def is_installed_to(self) -> bool:
        """Whether kernel-install puts kernels here."""
        return any(found.kind == MADE for found in self.found)


class SystemdBoot:
    """systemd-boot; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = "systemd-boot"
    drives = frozenset((IMAGE_NAME,))
    variable = "LoaderInfo"
    beginning = "systemd-boot"
    directories: tuple[str, ...] = (ENTRIES, IMAGES)

    def __init__(self, host: Host) -> None:
        self._host = host

    def evidence(self) -> list[str]:
        """Its EFI variable."""
        return variable_evidence(self._host, self.variable, self.beginning)

    def missing(self) -> list[str]:
        """What finding its entries needs."""
        missing = [] if self._host.which(PROGRAM) else [PROGRAM]
        directories = [f"{mount}/{name}" for mount in USUAL_MOUNTS for name in self.directories]
        if not any(self._host.list_dir(path) for path in directories):
            missing.append(f"any entry in {' or '.join(directories)}")
        return missing

    def doubt(self) -> str:
        """What the variable says instead."""
        text = loader_variable(self._host, self.variable)
        return f"the EFI variable {self.variable} " + (f"says {text!r}" if text else "is not there")

    def observe(self) -> Seen:
        """Read the settings, all entries and all images.

        :raises PassthroughError: ``boot_partition_not_found``, ``file_unreadable``
        """
        names = kernel_install.names(self._host)
        settings = kernel_install.settings(self._host)
        root = roots(running(self._host))
        found: list[Found] = []
        for directory in _boot_directories(self._host):
            for name in self._host.list_dir(f"{directory}/{ENTRIES}"):
                if name.lower().endswith(".conf") and not name.startswith("."):
                    found += self._entry(f"{directory}/{ENTRIES}/{name}", names, root)
            for name in self._host.list_dir(f"{directory}/{IMAGES}"):
                if name.lower().endswith(".efi") and not name.startswith("."):
                    found += self._image(f"{directory}/{IMAGES}/{name}", names)
        paths = [SETTINGS, *(item.path for item in found)]
        leftovers = files.with_leftovers(self._host, paths)
        return Seen(settings, names, tuple(found), leftovers)

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """Change the settings and every entry of this system where they are not as wanted.

        :raises PassthroughError: ``kernels_default_unsupported``, ``boot_entries_missing``,
            ``value_not_representable``, ``command_line_too_long``, ``image_not_rebuildable``, ``file_unwritable``
        """
        refuse_default_kernel(kernels, self.title, "/etc/kernel/cmdline is for every kernel")
        changeable = [found for found in seen.found if found.changeable]
        if not changeable:
            raise PassthroughError(
                "boot_entries_missing",
                f"No boot entry of this system was found{_seen_instead(seen.found)}.",
                "Is the boot partition mounted, and does bootctl list show the entry that is booted?",
            )
        stale = [found for found in changeable if found.wanted(request).unmet(found.command_line)]
        base = self._base(seen, request, stale)
        is_read = base.path != RUNNING_PATH and (base.state.content is not None or seen.is_installed_to)
        settings = base.with_request(request.at(SETTINGS)) if is_read else base
        changes = [(found, self._changed(found, settings, request, seen.names)) for found in stale]
        after = {found.path: line for found, (line, _state) in changes}
        for found in changeable:
            check_length(found.title, found.command_line, after.get(found.path, found.command_line))
        predicted = replace(
            seen,
            settings=settings,
            found=tuple(replace(f, command_line=after.get(f.path, f.command_line)) for f in seen.found),
        )
        plan = BootPlan(predicted=replace(predicted, settings=_written(settings)).configuration)
        records: Sequence[Record] = records_of(self.name, request, replace(seen, settings=base), predicted)
        if settings is not seen.settings:
            plan.add(self._write_settings(seen, settings, records))
            records = ()
        for found, (line, state) in changes:
            if state is None:
                action: Action = BuildImage(found, line, request, self._image_source(found))
            else:
                action = WriteFile(
                    found.path,
                    found.state,
                    state,
                    description=f"change the kernel parameters in {found.path}"
                    + ("" if found.kind == MADE else ", which kernel-install did not make"),
                    records=records,
                )
                records = ()
            plan.add(action)
        files.require_writable(self._host, sorted(plan.targets))
        plan.sweep(seen.leftovers)
        return plan

    # -- observing ---------------------------------------------------------------------------------------

    def _entry(self, path: str, names: Names, root: frozenset[str]) -> list[Found]:
        """The entry of type 1 at ``path``; none when it starts something else than a Linux kernel."""
        state = files.observe(self._host, path)
        text = state.text
        kernel = entries.value(text, "linux")
        if not kernel:
            return []
        line = entries.command_line(text)
        identity = entries.identity(path.rpartition("/")[2])
        # The directory a kernel is in and the name of its entry tell what kernel-install made.
        token, version = (["", "", *kernel.split("/")])[-3:-1]
        is_made = kernel.endswith("/linux") and identity == f"{token}-{version}"
        owner = entries.value(text, "machine-id")
        kind = BY_HAND
        if is_made:
            kind = MADE if token in names.tokens else FOREIGN
        elif owner not in ("", names.machine_id) or not may_share_a_root(root, roots(line)):
            kind = FOREIGN
        title = entries.value(text, "title") or identity
        return [Found(path, state, kind, title, kernel, line, *((token, version) if is_made else ("", "")))]

    def _image(self, path: str, names: Names) -> list[Found]:
        """The unified kernel image at ``path``; none when it is another EFI program, or of another system."""
        state = files.observe(self._host, path)
        try:
            image = pe.parse(state.content or b"")
        except pe.NotPortableExecutable as error:
            raise PassthroughError(
                "boot_entries_not_understood",
                f"{path} cannot be read as a unified kernel image: {error}.",
                "It is damaged or was cut off. Build it again before the next reboot, or remove it.",
                path=path,
            ) from error
        if ".linux" not in image.sections:
            return []
        identity = entries.identity(path.rpartition("/")[2])
        token, version = names.split(identity) or ("", "")
        release = dict(line.partition("=")[::2] for line in image.text(".osrel").splitlines())
        is_ours = bool(token) or release.get("ID", "").strip("\"'") == kernel_install.system_id(self._host)
        line = CommandLine.parse(image.text(".cmdline"))
        title = release.get("PRETTY_NAME", "").strip("\"'") or identity
        kind = MADE if is_ours else FOREIGN
        # What is in it is read again when it is replaced; several of these may be hundreds of megabytes.
        state = replace(state, content=b"")
        return [Found(path, state, kind, title, path, line, token, version, is_image=True)]

    # -- planning ----------------------------------------------------------------------------------------

    def _base(self, seen: Seen, request: Request, stale: Sequence[Found]) -> Settings:
        """The settings to change: those that are there, or those a missing file is made with.

        Nothing is made where kernel-install is not used, or where new kernels get what is wanted as it is.
        """
        settings = seen.settings
        made = [found for found in seen.found if found.kind == MADE and not found.is_rescue]
        is_unmet = bool(stale or request.at(SETTINGS).unmet(settings.command_line("", "-")))
        if settings.path == RUNNING_PATH and made and is_unmet:
            return kernel_install.settings_of_entry(settings, self._current(made).command_line)
        return settings

    def _current(self, made: Sequence[Found]) -> Found:
        """The entry that was started; the last one, which is that of the newest kernel, when nothing says which."""
        started = entries.identity(loader_variable(self._host, "LoaderEntrySelected"))
        for found in made:
            if entries.identity(found.path.rpartition("/")[2]).lower() == started.lower():
                return found
        return made[-1]

    def _changed(
        self, found: Found, settings: Settings, request: Request, names: Names
    ) -> tuple[CommandLine, FileState | None]:
        """The command line an entry is going to have, and its file; None for an image, which has to be built."""
        if found.is_image:
            self._image_source(found)
            return settings.command_line(found.token, names.machine_id), None
        text = entries.with_request(found.state.text, found.wanted(request), found.path)
        return entries.command_line(text), found.state.with_text(text)

    def _image_source(self, found: Found) -> str:
        """The kernel an image is built from.

        :raises PassthroughError: ``image_not_rebuildable``
        """
        source = kernel_install.kernel_image(self._host, found.version) if found.version else None
        problems = []
        if not found.version:
            problems.append("its name is not that of an entry token and a kernel version")
        elif source is None:
            problems.append(f"the kernel {found.version} is not installed")
        if self._host.which(kernel_install.PROGRAM) is None:
            problems.append(f"{kernel_install.PROGRAM} is not installed")
        layout = kernel_install.layout(self._host)
        if layout != "uki":
            problems.append(f"the layout of kernel-install is {layout or 'not set'} and not uki")
        if problems or source is None:
            raise PassthroughError(
                "image_not_rebuildable",
                f"{found.path} has its kernel parameters built in, and kernel-install does not build it: "
                f"{'; '.join(problems)}.",
                f"Put the parameters into {SETTINGS} and build it with the tool that made it (mkinitcpio -P, dracut "
                "--uefi, ukify), or remove the image when it is no longer used.",
                path=found.path,
            )
        return source

    @staticmethod
    def _write_settings(seen: Seen, settings: Settings, records: Sequence[Record]) -> Action:
        state = seen.settings.state
        description = f"change the kernel parameters in {SETTINGS}"
        if state.content is None:
            origin = seen.settings.path if seen.settings.path != RUNNING_PATH else "the entry in use"
            description = f"write {SETTINGS}, which was missing, from {origin}, so that new kernels get the parameters"
        trial = next(
            (f for f in reversed(seen.found) if f.kind == MADE and not f.is_image and not f.is_rescue),
            None,
        )
        return WriteSettings(state, settings.wanted, description, records, trial, settings)


class UnifiedKernelImage(SystemdBoot):
    """A unified kernel image that was started without systemd-boot; a :class:`~.loader.BootLoader`."""

    name = IMAGE_NAME
    title = "a unified kernel image"
    drives = frozenset()
    variable = "StubInfo"
    beginning = ""
    directories = (IMAGES,)


class WriteSettings(WriteFile):
    """Write /etc/kernel/cmdline, and let kernel-install make an entry from it, aside, to see that it understood."""

    def __init__(
        self,
        observed: FileState,
        wanted: FileState,
        description: str,
        records: Sequence[Record],
        trial: Found | None,
        settings: Settings,
    ) -> None:
        """:param trial: an entry whose kernel is taken for the trial; None where kernel-install makes no entries"""
        super().__init__(SETTINGS, observed, wanted, description=description, records=records)
        self._trial = trial
        self._settings = settings

    def apply(self, host: Host) -> None:
        super().apply(host)
        self.partial = True
        trial = self._trial
        if trial is None or host.which(kernel_install.PROGRAM) is None or kernel_install.entry_plugin(host) is None:
            return
        if kernel_install.layout(host) not in ("", "bls"):
            return
        image = _kernel_file(host, trial)
        if image is None:
            return
        text = kernel_install.trial_entry(host, trial.token, trial.version, image)
        machine_id = kernel_install.names(host).machine_id
        wanted = self._settings.command_line(trial.token, machine_id)
        made = entries.command_line(text)
        if made != wanted:
            raise PassthroughError(
                "boot_entries_wrong",
                f"kernel-install would give a new kernel {str(made)!r} instead of {str(wanted)!r}.",
                f"A plugin in {' or '.join(kernel_install.PLUGIN_DIRECTORIES)} adds or drops parameters, or {SETTINGS} "
                "has a backslash, which the plugin's echo takes for a command.",
            )


class BuildImage(Action):
    """Let kernel-install build a unified kernel image aside, inspect it, and swap it in."""

    regenerates = False

    def __init__(self, found: Found, line: CommandLine, request: Request, source: str) -> None:
        self.description = f"build {found.path} again, with the kernel parameters of {SETTINGS}"
        self.target = found.path
        self.before = str(found.command_line)
        self.after = str(line)
        self._found = found
        self._line = line
        self._request = request
        self._source = source
        self._former: FileState | None = None

    def apply(self, host: Host) -> None:
        former = files.observe(host, self.target)
        content = kernel_install.new_image(host, self._found.token, self._found.version, self._source)
        self._inspect(former.content or b"", content)
        if files.observe(host, self.target) != former:
            raise PassthroughError(
                "file_changed_meanwhile",
                f"{self.target} was changed by somebody else while it was built; theirs was left alone.",
                "Run the module again when the other change (a package upgrade) is complete.",
                path=self.target,
            )
        self._former = former
        self.partial = True  # the last flush may fail when the new file is in place
        files.put(host, self.target, replace(former, content=content))

    def undo(self, host: Host) -> None:
        if self._former is not None and files.observe(host, self.target) != self._former:
            files.put(host, self.target, self._former)

    def _inspect(self, former: bytes, content: bytes) -> None:
        """See that the new image boots what the old one did, with what is wanted.

        :raises PassthroughError: ``boot_entries_not_understood``, ``boot_entries_wrong``
        """
        problem = ""
        try:
            old, new = pe.parse(former), pe.parse(content)
        except pe.NotPortableExecutable as error:
            raise PassthroughError(
                "boot_entries_not_understood",
                f"kernel-install made a file for {self.target} that is no unified kernel image: {error}.",
                "The old image is kept.",
                path=self.target,
            ) from error
        lost = sorted({".linux", ".initrd"} & set(old.sections) - set(new.sections))
        line = CommandLine.parse(new.text(".cmdline"))
        if lost:
            problem = f"it has no {' and no '.join(lost)}, which the old one has"
        elif old.is_signed and not new.is_signed:
            problem = "it is not signed, and the old one is: with Secure Boot the firmware would refuse it"
        elif self._request.differing(line, self._line):
            problem = f"its kernel parameters are {str(line)!r} instead of {str(self._line)!r}"
        if problem:
            raise PassthroughError(
                "boot_entries_wrong",
                f"kernel-install built a wrong image for {self.target}: {problem}.",
                "The old image is kept. Run kernel-install --verbose by hand and look at what it says.",
                path=self.target,
            )


def _boot_directories(host: Host) -> list[str]:
    """Where the boot loader looks for entries: the EFI system partition, and $BOOT when that is another one.

    :raises PassthroughError: ``boot_partition_not_found``
    """
    found: list[str] = []
    printed = ""
    for option in ("--print-boot-path", "--print-esp-path"):
        done = host.run([PROGRAM, option], check=False)
        path = done.stdout.strip()
        if done.rc == 0 and path.startswith("/") and path not in found:
            found.append(path)
        printed = printed or done.stderr.strip()
    if not found:
        raise PassthroughError(
            "boot_partition_not_found",
            f"{PROGRAM} does not find the EFI system partition: {printed[-500:] or 'it printed nothing'}.",
            "Mount it at /efi, /boot or /boot/efi.",
        )
    return found


def _written(settings: Settings) -> Settings:
    """Settings as they are observed when they have been written."""
    if settings.path == SETTINGS and settings.state.content is None:
        return replace(settings, state=settings.wanted)
    return settings


def _kernel_file(host: Host, found: Found) -> str | None:
    """The kernel of an entry, as a path of this host; None when it is not there."""
    mount = found.path.rpartition(f"/{ENTRIES}/")[0]
    # kernel-install counts from the root of the file system, which is not the mount point in a bind mount.
    return next((path for path in (f"{mount}{found.kernel}", found.kernel) if host.exists(path)), None)


def _seen_instead(found: Iterable[Found]) -> str:
    others = [item.path for item in found]
    return f", but entries of other systems: {', '.join(others[:5])}" if others else ""
