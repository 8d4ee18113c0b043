# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The option ROM that the guest sees."""

from __future__ import annotations

from collections.abc import Iterator

from ..._core.errors import Problem
from .context import Context


def enabled(context: Context) -> Iterator[Problem]:
    """A ROM that is switched off has no other settings.

    Source: libvirt ``virDomainDeviceInfoValidate`` ("ROM tuning is not supported when ROM is disabled").
    """
    for subject in context.requested:
        if subject.hostdev.rom_enabled is not False:
            continue
        for field in ("rom_bar", "rom_file"):
            value = getattr(subject.hostdev, field)
            if value is not None:
                yield subject.problem(
                    "rom_conflict",
                    f"rom.{field[4:]} is given, but rom.enabled is false.",
                    f"Leave rom.{field[4:]} out, or set rom.enabled: true.",
                    field,
                    value,
                )


def file_exists(context: Context) -> Iterator[Problem]:
    """The ROM file is there; QEMU opens it at start (``pci_add_option_rom``), libvirt does not look."""
    for subject in context.requested:
        path = subject.hostdev.rom_file
        if path is not None and not context.host.exists(path):
            yield subject.problem(
                "rom_file_missing",
                f"rom.file {path} does not exist on this host, so that the domain would not start.",
                "Put the ROM image there first.",
                "rom_file",
                path,
            )
