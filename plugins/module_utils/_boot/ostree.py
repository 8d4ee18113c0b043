# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What systems on OSTree deployments have in common, whatever drives OSTree: rpm-ostree or bootc."""

from __future__ import annotations

from .._core.errors import PassthroughError
from .._core.host import Host
from . import entries
from .cmdline import CommandLine, Request
from .loader import Entry

BOOTED = "/run/ostree-booted"
"""Made by ostree-prepare-root in the initramfs of a system that was started from a deployment."""

STAGED = "/run/ostree/staged-deployment"
"""There while a deployment waits for the shutdown, which makes its boot entry (ostree-sysroot-private.h)."""

ENTRIES = "/boot/loader/entries"
DRIVEN = frozenset(("grub", "grub-bls", "systemd-boot", "uki", "extlinux", "zipl"))
"""The boot loaders for which OSTree writes entries."""

# The path of the deployment in an entry. OSTree writes it, and it changes with every deployment.
OWN_PARAMETER = "ostree"


def present(host: Host, path: str) -> list[str]:
    """The path as evidence, when it is there."""
    return [f"{path} is there"] if host.exists(path) else []


def without_path(line: CommandLine) -> CommandLine:
    """A command line without the parameter that names the deployment."""
    return line.without((OWN_PARAMETER,))


def boot_entries(host: Host) -> list[Entry]:
    """The boot entries of the deployments on disk, that of the default one first; a staged one has none yet.

    OSTree numbers them by their ``version``, the highest for the default (install_deployment_kernel() in
    ostree-sysroot-deploy.c).
    """
    found: list[tuple[int, Entry]] = []
    for name in host.list_dir(ENTRIES):
        if not (name.startswith("ostree-") and name.endswith(".conf")):
            continue
        text = host.read_text(f"{ENTRIES}/{name}")
        version = entries.value(text, "version")
        entry = Entry(
            title=entries.value(text, "title") or name,
            kernel=entries.value(text, "linux"),
            command_line=without_path(entries.command_line(text)),
            recovery=False,
            generated=False,
        )
        found.append((int(version) if version.isdecimal() else 0, entry))
    return [entry for _unused, entry in sorted(found, key=lambda item: -item[0])]


def refuse_own_parameter(request: Request) -> None:
    """Fail when a request is about the parameter OSTree writes.

    :raises PassthroughError: ``invalid_parameter``
    """
    if OWN_PARAMETER in request.keys:
        raise PassthroughError(
            "invalid_parameter",
            "ostree is the path of the deployment, which OSTree writes for each deployment anew.",
            "Leave it out of present and absent.",
            value=OWN_PARAMETER,
        )
