# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Proxmox VE's ``proxmox-boot-tool``, which keeps kernels and boot entries on one or more EFI system partitions.

The rules are those of its scripts proxmox-boot-tool and zz-proxmox-boot (proxmox-kernel-helper 8). For each partition
of /etc/kernel/proxmox-boot-uuids:

* With systemd-boot, ``refresh`` writes ``loader/entries/proxmox-VERSION.conf`` with the first line of
  /etc/kernel/cmdline, or, without that file, with /proc/cmdline.
* With GRUB (legacy boot, or ``init … grub``) it runs GRUB's generator with the partition in the place of /boot, from
  /etc/default/grub.

The settings of those boot loaders that are in use are changed, ``refresh`` is run, and every partition is looked at,
before and after. They are not mounted; for a look they are, read-only, in a mount namespace of our own. ``refresh``
ends without an error for a partition it skips, so that its exit status proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import RunCommand, WriteFile
from . import entries, grub, grub_config, grub_settings
from .cmdline import RUNNING_PATH, CommandLine, Request, running
from .efi import variable_evidence
from .grub_script import BootEntry, GrubSyntaxError, boot_entries
from .kernel_install import SETTINGS, without_loader_words
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
from .words import edited

NAME = "proxmox-boot-tool"
PARTITIONS = "/etc/kernel/proxmox-boot-uuids"
DEVICES = "/dev/disk/by-uuid"
FIRMWARE = "/sys/firmware/efi"

ENTRIES = "loader/entries/"
GRUB_CONFIG = "grub/grub.cfg"

# An emulated machine is ten times slower than a real one, and several partitions get kernels and initramfs images.
TIMEOUT = 1200.0

# What is looked at, as NUL-terminated triples: "E", UUID, what is there; "F", path, content. The private namespace ends
# with the shell, and all that is mounted in it.
LOOK = r"""
set -e
for uuid do
  place=$(findmnt -rn -o TARGET -S "UUID=$uuid" | head -n 1)
  if [ -z "$place" ]; then
    mount -t vfat -o ro "/dev/disk/by-uuid/$uuid" /mnt
    place=/mnt
  fi
  cd "$place"
  found=
  for file in EFI/proxmox/grub*.efi; do if [ -e "$file" ]; then found="$found grub.efi"; fi; done
  for name in loader/loader.conf EFI/proxmox grub; do if [ -e "$name" ]; then found="$found $name"; fi; done
  printf 'E\0%s\0%s\0' "$uuid" "$found"
  for file in loader/entries/*.conf grub/grub.cfg; do
    if [ -f "$file" ]; then
      printf 'F\0%s\0' "$file"
      cat "$file"
      printf '\0'
    fi
  done
  cd /
  if [ "$place" = /mnt ]; then umount /mnt; fi
done
"""


@dataclass(frozen=True)
class Partition:
    """One EFI system partition of the list."""

    uuid: str
    is_grub: bool
    """Whether the tool keeps GRUB on it, and not systemd-boot."""
    files: Mapping[str, str]
    """Boot entries and grub.cfg: path on the partition -> text."""

    def boot_entries(self) -> tuple[BootEntry, ...]:
        """The entries of its grub.cfg; none for one that was cut off, which the tool writes again anyway."""
        try:
            return tuple(boot_entries(self.files.get(GRUB_CONFIG, "")))
        except GrubSyntaxError:
            return ()

    def loader_entries(self) -> list[Entry]:
        """What systemd-boot offers. An entry of the tool that was cut off has no kernel."""
        found = []
        for path, text in self.files.items():
            if not path.startswith(ENTRIES):
                continue
            is_made = path.startswith(f"{ENTRIES}proxmox-")
            kernel = entries.value(text, "linux")
            title = " ".join(filter(None, (entries.value(text, "title"), entries.value(text, "version"))))
            if kernel or is_made:
                name = title or path[len(ENTRIES) :]
                written_in = "" if is_made else f"{path} on the partition {self.uuid}"
                line = entries.command_line(text)
                found.append(
                    Entry(f"{name} ({self.uuid})", kernel, line, False, is_made, in_place=False, written_in=written_in)
                )
        return found

    def configuration(self) -> tuple[Entry, ...]:
        """All its entries."""
        if not self.is_grub:
            return tuple(self.loader_entries())
        return self.named([grub_config.entry_of(entry, entry.command_line) for entry in self.boot_entries()])

    def named(self, found: Sequence[Entry]) -> tuple[Entry, ...]:
        """Entries of its grub.cfg with the partition in their titles."""
        return tuple(replace(entry, title=f"{entry.title} ({self.uuid})") for entry in found)


@dataclass(frozen=True)
class KernelLine:
    """What the tool gives to entries of systemd-boot."""

    state: FileState
    """What is at :data:`SETTINGS` now."""
    text: str
    is_file: bool
    """False where there is no file, so that the tool takes what runs."""

    @property
    def first(self) -> str:
        """The line that counts (``get_first_line``)."""
        return self.text.split("\n", 1)[0].rstrip("\r")

    @property
    def command_line(self) -> CommandLine:
        """As systemd-boot reads it in an entry."""
        return entries.command_line(f"options {self.first}\n")

    def with_request(self, request: Request) -> KernelLine:
        """The line with the request met; the same object when it is met already.

        :raises PassthroughError: ``value_not_representable``
        """
        before = self.command_line
        request = request.at(SETTINGS)
        if not request.unmet(before):
            return self
        text = edited(self.text, request, [(0, len(self.first))])
        result = replace(self, text=text if text.endswith("\n") else f"{text}\n", is_file=True)
        wanted = request.apply(before)
        if result.command_line != wanted:
            raise PassthroughError(
                "value_not_representable",
                f"{SETTINGS} cannot say {str(wanted)!r}: systemd-boot would read {str(result.command_line)!r}.",
                "A line whose first and last characters are double quotes loses them; add another parameter after it.",
                path=SETTINGS,
            )
        return result

    @property
    def wanted(self) -> FileState:
        """What :data:`SETTINGS` has to be for this line."""
        return self.state.with_text(self.text)


@dataclass(frozen=True)
class Seen:
    """The settings of the boot loaders that are in use, and the partitions."""

    line: KernelLine | None
    grub: grub_settings.Settings | None
    partitions: tuple[Partition, ...]
    leftovers: tuple[str, ...] = ()
    """The files beside which a killed run left a temporary one."""

    @property
    def configuration(self) -> Configuration:
        """What they come to."""
        found = tuple(entry for partition in self.partitions for entry in partition.configuration())
        return self.configured(found)

    def configured(self, found: tuple[Entry, ...]) -> Configuration:
        """The settings, with these entries."""
        normal = recovery = CommandLine()
        if self.grub is not None:
            normal = self.grub.command_line(*grub_settings.NORMAL_ENTRY)
            recovery = self.grub.command_line(*grub_settings.RECOVERY_ENTRY)
        if self.line is not None:
            normal = self.line.command_line
        return Configuration(normal, recovery, found)

    def places(self, key: str) -> dict[str, list[str]]:
        """Where parameters of a name stand, for records."""
        places = self.grub.places(key) if self.grub is not None else {}
        if self.line is not None:  # a file that is made counts as what it is made of
            places.update(spellings({SETTINGS: self.line.command_line}, key))
        return places


class ProxmoxBootTool:
    """proxmox-boot-tool with systemd-boot or GRUB; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = "proxmox-boot-tool"
    drives = frozenset((grub.NAME, "systemd-boot"))

    def __init__(self, host: Host) -> None:
        self._host = host
        self._grub = grub.Grub(host)

    def evidence(self) -> list[str]:
        """Its list of partitions, unless the kernel was started from somewhere else."""
        listed = _listed(self._host)
        if not listed:
            return []
        line = running(self._host)
        evidence = [f"{PARTITIONS} lists {', '.join(listed)}"]
        image = grub.boot_image(line)
        if image is not None:
            # On its partitions kernels are at the top; GRUB without the tool has them in /boot of the root file system.
            return [*evidence, f"/proc/cmdline has BOOT_IMAGE={image}"] if image.rfind("/") <= 0 else []
        return evidence + variable_evidence(self._host, "LoaderInfo")

    def missing(self) -> list[str]:
        """The tool, and its list."""
        missing = [] if self._host.which(NAME) else [NAME]
        return missing + ([] if _listed(self._host) else [f"a partition in {PARTITIONS}"])

    def doubt(self) -> str:
        """What is missing of the proof."""
        if not _listed(self._host):
            return f"{PARTITIONS} lists no partition"
        return "BOOT_IMAGE= in /proc/cmdline names a kernel that is not at the top of a file system"

    def observe(self) -> Seen:
        """Read the settings, and look at every partition.

        :raises PassthroughError: ``boot_partition_not_found``, ``settings_not_evaluated``, ``settings_not_understood``
        """
        partitions = tuple(look(self._host))
        state = files.observe(self._host, SETTINGS)
        is_file = state.content is not None
        line = KernelLine(state, state.text if is_file else without_loader_words(running(self._host)), is_file)
        if is_file and "root=" not in line.first:
            raise PassthroughError(
                "settings_not_understood",
                f"The first line of {SETTINGS} has no root=: {line.first!r}. {NAME} refresh fails with that.",
                "The tool reads the first line only. Write all parameters there, root= among them.",
                path=SETTINGS,
            )
        uses_grub = any(partition.is_grub for partition in partitions)
        uses_line = not all(partition.is_grub for partition in partitions)
        settings = self._grub.settings.observe() if uses_grub else None
        paths = [*([SETTINGS] if uses_line else []), *(settings.sources if settings is not None else ())]
        leftovers = files.with_leftovers(self._host, paths)
        return Seen(line if uses_line else None, settings, partitions, leftovers)

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """Change the settings that are in use, and refresh the partitions where an entry is not as they say.

        :raises PassthroughError: ``kernels_default_unsupported``, ``boot_entries_missing``, ``settings_too_clever``,
            ``value_not_representable``, ``command_line_too_long``, ``file_unwritable``
        """
        refuse_default_kernel(kernels, self.title, "its settings are for every kernel")
        if not any(entry.generated for entry in seen.configuration.entries):
            raise PassthroughError(
                "boot_entries_missing",
                f"None of the partitions of {PARTITIONS} has an entry that {NAME} made.",
                f"Run {NAME} refresh once, and look at what it says.",
            )
        wanted = replace(
            seen,
            line=seen.line.with_request(request) if seen.line is not None else None,
            grub=self._grub.settings.edited(seen.grub, request) if seen.grub is not None else None,
        )
        plan = BootPlan(predicted=seen.configuration)
        records = records_of(NAME, request, seen, wanted)
        if seen.line is not None and wanted.line is not None and wanted.line is not seen.line:
            description = f"change the kernel parameters in {SETTINGS}"
            if not seen.line.is_file:
                description = f"write {SETTINGS}, which was missing, from {RUNNING_PATH}"
            state = seen.line.state
            plan.add(WriteFile(SETTINGS, state, wanted.line.wanted, description=description, records=records))
            records = []
        if seen.grub is not None and wanted.grub is not None:
            plan.extend(grub_settings.settings_writes(seen.grub, wanted.grub, records))
        files.require_writable(self._host, sorted(plan.targets))
        predicted = self._predict(seen, wanted, request)
        if plan.changed or any(_problem(partition, wanted, request) for partition in seen.partitions):
            plan.predicted = predicted
            plan.add(Refresh(self._host, seen, wanted, predicted, request))
        plan.sweep(seen.leftovers)
        return plan

    def _predict(self, seen: Seen, wanted: Seen, request: Request) -> Configuration:
        """What a refresh makes of the entries that are there."""
        found: list[Entry] = []
        for partition in seen.partitions:
            if partition.is_grub and seen.grub is not None and wanted.grub is not None:
                made = self._grub.predict(partition.boot_entries(), seen.grub, wanted.grub, request)
                found += partition.named(made.entries)
                continue
            for entry in partition.loader_entries():
                if entry.generated and wanted.line is not None:
                    check_length(entry.title, entry.command_line, wanted.line.command_line)
                    entry = replace(entry, command_line=wanted.line.command_line)
                found.append(entry)
        return wanted.configured(tuple(found))


class Refresh(RunCommand):
    """Let the tool write all partitions, and look at them; undone by letting it write them again."""

    def __init__(self, host: Host, seen: Seen, wanted: Seen, predicted: Configuration, request: Request) -> None:
        uuids = [partition.uuid for partition in seen.partitions]
        super().__init__(
            grub_config.in_system_language(host, [NAME, "refresh"]),
            target=f"boot partitions {', '.join(uuids)}",
            description=f"run {NAME} refresh, which writes the boot entries of {', '.join(uuids)}",
            timeout=TIMEOUT,
            check=self._inspect,
        )
        self.before, self.after = changed_entries(seen.configuration.entries, predicted.entries)
        self._wanted = wanted
        self._request = request

    def _inspect(self, host: Host) -> None:
        """See that every partition boots something, with what is wanted.

        :raises PassthroughError: ``boot_entries_wrong``
        """
        problems = [(p.uuid, _problem(p, self._wanted, self._request)) for p in look(host)]
        wrong = [f"on {uuid} {problem}" for uuid, problem in problems if problem]
        if wrong:
            raise PassthroughError(
                "boot_entries_wrong",
                f"{NAME} refresh ended without an error, but {'; '.join(wrong)}.",
                f"Run {NAME} refresh by hand and look at what it skips: a kernel without its files in /boot, or a "
                "partition that was not initialised. The settings are brought back.",
            )


def look(host: Host) -> list[Partition]:
    """Every partition of the list, as the tool would treat it.

    :raises PassthroughError: ``boot_partition_not_found``, or that the look failed
    """
    listed = _listed(host)
    for uuid in listed:
        if not host.exists(f"{DEVICES}/{uuid}"):
            raise PassthroughError(
                "boot_partition_not_found",
                f"{PARTITIONS} lists {uuid}, and there is no {DEVICES}/{uuid}: {NAME} would leave it as it is.",
                f"Attach the disk, or, if it is gone for good, run {NAME} clean.",
                uuid=uuid,
            )
    done = host.run(["unshare", "--mount", "--propagation", "private", "sh", "-c", LOOK, "sh", *listed], timeout=120.0)
    fields = done.stdout.split("\0")[:-1]
    partitions: list[Partition] = []
    is_grub = False
    for kind, name, text in zip(*(iter(fields),) * 3):
        if kind == "F":
            last = partitions[-1]
            partitions[-1] = replace(last, files={**last.files, name: text})
            continue
        there = text.split()
        # zz-proxmox-boot sets its variable grub for the first such partition, and never resets it for the next ones.
        is_grub = is_grub or "grub.efi" in there
        with_grub = is_grub or not host.exists(FIRMWARE)
        needed = ("grub",) if with_grub else ("loader/loader.conf", "EFI/proxmox")
        lacking = [part for part in needed if part not in there]
        if lacking:
            raise PassthroughError(
                "boot_partition_not_found",
                f"The partition {name} of {PARTITIONS} has no {' and no '.join(lacking)}: {NAME} would skip it.",
                f"Run {NAME} init {DEVICES}/{name}, or take it out of the list.",
                uuid=name,
            )
        partitions.append(Partition(name, with_grub, {}))
    return partitions


def _problem(partition: Partition, wanted: Seen, request: Request) -> str:
    """What is wrong with the entries of a partition, as a clause; empty when nothing is.

    :param wanted: has the settings they are to be made from
    """
    found = [entry for entry in partition.configuration() if entry.generated]
    if not any(not entry.recovery for entry in found):
        return f"there is no entry that {NAME} made"
    cut_off = next((entry for entry in found if not entry.kernel), None)
    if cut_off is not None:
        return f"{cut_off.title!r} has no kernel"
    if partition.is_grub:
        wrong = grub_config.stale(found, replace(wanted, line=None).configured(()), request)
    else:
        line = wanted.configured(()).normal
        wrong = [entry for entry in found if request.differing(entry.command_line, line)]
    return f"{wrong[0].title!r} has {str(wrong[0].command_line)!r}" if wrong else ""


def _listed(host: Host) -> list[str]:
    """The partitions the tool looks at: it skips lines that do not look like the UUID of a FAT file system."""
    lines = (host.attribute(PARTITIONS) or "").split("\n")
    return list(dict.fromkeys(line for line in lines if re.search(r"[0-9a-fA-F]{4}-[0-9a-fA-F]{4}", line)))
