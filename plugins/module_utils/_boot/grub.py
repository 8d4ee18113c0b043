# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""GRUB 2 whose grub.cfg is generated from /etc/default/grub and, where the generator reads them, its drop-ins.

That is Debian, Ubuntu, SUSE, Arch, Gentoo, and Fedora or RHEL with ``GRUB_ENABLE_BLSCFG=false``: 10_linux and the
variables are upstream's everywhere; what the programs and files are called, :mod:`.grub_layout` finds out. The settings
are edited by :mod:`.grub_settings`, and grub.cfg is made of them by :mod:`.grub_config`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .cmdline import CommandLine, Request, running
from .efi import variable_evidence
from .grub_config import GenerateConfig, entry_of, predict, read_entries, stale
from .grub_layout import Layout, find_layout, read_config
from .grub_script import BootEntry, GrubSyntaxError, boot_entries, uses_boot_loader_specification
from .grub_settings import DEFAULTS, NORMAL_ENTRY, RECOVERY_ENTRY, Settings, SettingsFiles, settings_writes
from .loader import ALL_KERNELS, BootPlan, Configuration, records_of, refuse_default_kernel

NAME = "grub"

RECOVERY_MENU = "/lib/recovery-mode/recovery-menu"  # of Ubuntu's friendly-recovery

# Syslinux and its kin write BOOT_IMAGE= as GRUB does, but with it the initrd, which GRUB hands over in another way
# (syslinux com32/elflink/ldlinux/kernel.c, new_linux_kernel; grub-core/loader).
SYSLINUX_MARK = "initrd"


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
            entries=tuple(entry_of(entry, entry.command_line) for entry in self.boot_entries),
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

    @cached_property
    def settings(self) -> SettingsFiles:
        """The files with its settings."""
        return SettingsFiles(self._host, self.layout)

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
        settings = self.settings.observe()
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
        settings = self.settings.edited(seen.settings, request)
        predicted = self.predict(seen.boot_entries, seen.settings, settings, request)
        plan = BootPlan(predicted=predicted)
        records = records_of(self.name, request, seen.settings, settings)
        plan.extend(settings_writes(seen.settings, settings, records))
        if plan.changed or stale(seen.configuration.entries, predicted, request):
            plan.add(self._generation(seen, predicted, request, plan.changed))
        files.require_writable(self._host, sorted(self._replaced(plan.targets)))
        plan.sweep(seen.leftovers)
        return plan

    def predict(self, found: Sequence[BootEntry], before: Settings, after: Settings, request: Request) -> Configuration:
        """What generating grub.cfg from other settings is going to make of entries; see :func:`.grub_config.predict`.

        :raises PassthroughError: ``command_line_too_long``
        """
        return predict(found, before, after, request, "recovery" if self._host.exists(RECOVERY_MENU) else "single")

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

    def _kernels(self) -> set[str]:
        """The kernel files grub.cfg names; empty for a damaged one: that is reported where its entries are read."""
        try:
            return {without_device(entry.kernel) for entry in boot_entries(read_config(self._host))}
        except GrubSyntaxError:
            return set()


def runs_blscfg(host: Host) -> bool:
    """Whether grub.cfg takes its entries from /boot/loader/entries; a damaged one is reported where it is read."""
    try:
        return uses_boot_loader_specification(read_config(host))
    except GrubSyntaxError:
        return False


def boot_image(line: CommandLine) -> str | None:
    """The kernel file GRUB says it loaded, without the device it may name before it: ``(hd0,gpt2)/vmlinuz``."""
    for parameter in line.named("BOOT_IMAGE"):
        return without_device(parameter.value or "")
    return None


def without_device(path: str) -> str:
    """A path as GRUB names it, without the device before it."""
    return path.partition(")")[2] if path.startswith("(") else path
