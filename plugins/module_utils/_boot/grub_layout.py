# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What GRUB 2's generator, checker and configuration are called on this host.

GRUB is configured with ``--program-transform-name`` and ``--with-grubdir`` where GRUB legacy had its names first
(Fedora, RHEL, SUSE, Mageia: ``grub2-mkconfig``, /boot/grub2), and without elsewhere (Debian, Ubuntu, Arch, Gentoo).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from .._core.errors import PassthroughError
from .._core.host import Host
from .grub_script import GrubSyntaxError, only_loads_another_file

EFI = "/sys/firmware/efi"
# Fedora's and RHEL's own link to the grub.cfg an EFI system boots with. It leads to the EFI system partition where the
# whole file is there (RHEL 8, Fedora 33 and before), and to /boot/grub2 where there is only a file that loads that one.
EFI_LINK = "/etc/grub2-efi.cfg"


@dataclass(frozen=True)
class Layout:
    """The names of one host's GRUB 2: two programs, and the file GRUB reads at boot."""

    generator: str
    checker: str
    config: str

    @property
    def refresh(self) -> str:
        """What an administrator types to have the file generated again."""
        return f"{self.generator} -o {self.config}"


WITHOUT_NUMBER = Layout("grub-mkconfig", "grub-script-check", "/boot/grub/grub.cfg")
WITH_NUMBER = Layout("grub2-mkconfig", "grub2-script-check", "/boot/grub2/grub.cfg")


def find_layout(host: Host) -> Layout:
    """The layout this host has; the one without a number where nothing of GRUB 2 is to be found.

    A program that is only a link to the other one (many administrators make one for their fingers) does not count:
    each knows the directory it was built for.
    """
    built = [layout for layout in (WITHOUT_NUMBER, WITH_NUMBER) if _is_built_as(host, layout.generator)]
    in_use = [layout for layout in built if host.exists(layout.config)]
    layout = (in_use or built or [WITHOUT_NUMBER])[0]
    if layout is WITH_NUMBER:
        return replace(layout, config=_efi_config(host) or layout.config)
    return layout


def read_config(host: Host) -> str:
    """The text of grub.cfg, empty when there is none.

    :raises PassthroughError: ``file_unreadable``
    """
    config = find_layout(host).config
    return host.read_text(config) if host.exists(config) else ""


def _is_built_as(host: Host, program: str) -> bool:
    path = host.which(program)
    return path is not None and os.path.basename(host.real_path(path)) == program


def _efi_config(host: Host) -> str | None:
    """The grub.cfg on the EFI system partition, where it is the whole one; None elsewhere."""
    if not host.exists(EFI) or not host.exists(EFI_LINK):
        return None
    config = host.real_path(EFI_LINK)
    try:
        return None if only_loads_another_file(host.read_text(config)) else config
    except (GrubSyntaxError, PassthroughError):
        return config  # a damaged one is reported where it is read for its entries
