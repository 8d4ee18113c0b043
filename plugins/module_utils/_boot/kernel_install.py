# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``kernel-install``: what it makes boot entries and unified kernel images from, and letting it make one aside.

The rules are those of kernel-install(8) and of its plugins 90-loaderentry.install and 60-ukify.install (systemd 252
and 257 were read and run). ``kernel-install add`` itself works in place: it unlinks the kernel on the boot partition
before it copies it, and writes the entry with a plain redirection, so a host that loses power meanwhile may not boot.
Here it therefore only ever works in a directory of its own below /run, and what it made is swapped in by a rename.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from . import entries
from .cmdline import RUNNING_PATH, CommandLine, Request, running
from .words import edited, lines_of

PROGRAM = "kernel-install"
SETTINGS = "/etc/kernel/cmdline"
VENDOR_SETTINGS = "/usr/lib/kernel/cmdline"
CONFIGURATIONS = tuple(
    f"{directory}/install.conf"
    for directory in ("/etc/kernel", "/run/kernel", "/usr/local/lib/kernel", "/usr/lib/kernel")
)
ENTRY_PLUGIN = "90-loaderentry.install"
PLUGIN_DIRECTORIES = ("/etc/kernel/install.d", "/usr/lib/kernel/install.d")

# Plugins build initramfs images and sign what they made; an emulated machine is ten times slower than a real one.
TIMEOUT = 1200.0

_MACHINE_ID_PARAMETER = "systemd.machine_id"


@dataclass(frozen=True)
class Names:
    """What the entries of this system are named after."""

    machine_id: str
    tokens: tuple[str, ...]
    """Every entry token kernel-install may have used here, the one it uses first."""

    def split(self, identity: str) -> tuple[str, str] | None:
        """The token and the kernel version an entry is named after; None when it is not named so.

        :param identity: as :func:`.entries.identity` returns it
        """
        for token in self.tokens:
            if identity.startswith(f"{token}-") and len(identity) > len(token) + 1:
                return token, identity[len(token) + 1 :]
        return None


@dataclass(frozen=True)
class Settings:
    """The text kernel-install takes the parameters of a new kernel from, and where it is."""

    path: str
    """The file it is read from; /proc/cmdline when there is no other."""
    state: FileState
    """What is at :data:`SETTINGS` now, the only file that is ever written."""
    text: str
    has_comments: bool
    """Whether this version of kernel-install leaves lines out that begin with ``#``."""

    def command_line(self, token: str, machine_id: str) -> CommandLine:
        """The parameters an entry of that token gets.

        Blanks are squeezed (``tr -s``), also those inside of quotes; the result is read as the boot loader reads it.
        """
        lines = [line for line in self.text.split("\n") if not (self.has_comments and line.lstrip().startswith("#"))]
        text = re.sub(r"[ \t\n]+", " ", "\n".join(lines)).strip(" ")
        if token == machine_id and f"{_MACHINE_ID_PARAMETER}=" not in text:
            text += f" {_MACHINE_ID_PARAMETER}={machine_id}"
        return entries.command_line(f"options {text}\n")

    def with_request(self, request: Request) -> Settings:
        """The settings with the request met, to be written to :data:`SETTINGS`; these when it is met already.

        :raises PassthroughError: ``value_not_representable``
        """
        before = self.command_line("", "-")
        if not request.unmet(before):
            return self
        text = self.text
        spans = self._spans(text)
        if not spans:
            text += "\n" if text and not text.endswith("\n") else ""
            spans = [(len(text), len(text))]
        text = edited(text, request, spans)
        text += "" if text.endswith("\n") else "\n"
        result = replace(self, path=SETTINGS, text=text)
        wanted = request.apply(before)
        if result.command_line("", "-") != wanted:
            raise PassthroughError(
                "value_not_representable",
                f"{SETTINGS} cannot say {str(wanted)!r}: kernel-install would make "
                f"{str(result.command_line('', '-'))!r} of it.",
                "It squeezes several blanks in a row into one, inside of quotes, too, and a carriage return ends the "
                "line of an entry.",
                path=SETTINGS,
            )
        return result

    @property
    def wanted(self) -> FileState:
        """What :data:`SETTINGS` has to be for these settings."""
        return self.state.with_text(self.text)

    def _spans(self, text: str) -> list[tuple[int, int]]:
        """The parts of the text that are parameters: all of it, or runs of lines without a comment between them."""
        if not self.has_comments:
            return [(0, len(text))] if text.strip() else []
        spans: list[tuple[int, int]] = []
        place = 0
        for line in lines_of(text):
            if line.strip() and not line.lstrip().startswith("#"):
                spans.append((place, place + len(line)))
            place += len(line)
        return spans


def names(host: Host) -> Names:
    """What entries of this system may be named after: see ``ENTRY_TOKEN_SEARCH`` of kernel-install."""
    machine_id = _assignments(host, ("/etc/machine-info",)).get("KERNEL_INSTALL_MACHINE_ID", "")
    machine_id = machine_id or host.attribute("/etc/machine-id") or ""
    system = _assignments(host, ("/etc/os-release", "/usr/lib/os-release"))
    configured = (host.attribute("/etc/kernel/entry-token") or "").split("\n")[0].strip()
    found = [configured, machine_id, system.get("IMAGE_ID", ""), system.get("ID", ""), "Default"]
    return Names(machine_id, tuple(dict.fromkeys(token for token in found if token)))


def system_id(host: Host) -> str:
    """``ID`` of this system's os-release."""
    return _assignments(host, ("/etc/os-release", "/usr/lib/os-release")).get("ID", "linux")


def layout(host: Host) -> str:
    """The layout an administrator or the distribution has set: ``bls``, ``uki``, …; empty when it is left open."""
    return _assignments(host, CONFIGURATIONS).get("layout", "")


def settings(host: Host) -> Settings:
    """Where a new kernel's parameters come from, in kernel-install's order of precedence."""
    state = files.observe(host, SETTINGS)
    plugin = entry_plugin(host)
    # Plugins since systemd 253 run the file through grep -Gv '^\s*#'.
    # 60-ukify.install takes every word for a parameter, also those of comments.
    has_comments = plugin is not None and b"grep -Gv" in host.read_bytes(plugin) and layout(host) != "uki"
    if state.content is not None:
        return Settings(SETTINGS, state, state.text, has_comments)
    if host.exists(VENDOR_SETTINGS):
        return Settings(VENDOR_SETTINGS, state, host.read_text(VENDOR_SETTINGS), has_comments)
    return Settings(RUNNING_PATH, state, without_loader_words(running(host)), has_comments)


def settings_of_entry(found: Settings, line: CommandLine) -> Settings:
    """Settings for :data:`SETTINGS` that keep for new kernels what an existing entry has."""
    text = without_loader_words(line.without((_MACHINE_ID_PARAMETER,)))
    return replace(found, path=SETTINGS, text=f"{text}\n")


def entry_plugin(host: Host) -> str | None:
    """The plugin that writes entries of type 1; None when there is none, or somebody switched it off."""
    for directory in PLUGIN_DIRECTORIES:
        path = f"{directory}/{ENTRY_PLUGIN}"
        if host.exists(path):
            return path if host.real_path(path) != os.devnull else None
    return None


def kernel_image(host: Host, version: str) -> str | None:
    """The kernel of a version, where distributions hand it to kernel-install; None when it is not installed."""
    for path in (f"/usr/lib/modules/{version}/vmlinuz", f"/lib/modules/{version}/vmlinuz", f"/boot/vmlinuz-{version}"):
        if host.exists(path):
            return path
    return None


def trial_entry(host: Host, token: str, version: str, image: str) -> str:
    """The text of the entry kernel-install makes for a kernel from the settings as they are now.

    Only the plugin that writes entries runs, into a directory that is removed again.

    :raises PassthroughError: ``generator_failed``, or that the command failed
    """
    plugin = entry_plugin(host)
    if plugin is None:
        raise PassthroughError("generator_failed", f"{ENTRY_PLUGIN} is not there, or it is switched off.")
    with host.temporary_directory("kernel-install") as directory:
        _prepare(host, directory, token)
        _add(host, directory, version, image, [plugin])
        return host.read_text(_only(host, f"{directory}/loader/entries", ".conf", "entries", version, image))


def new_image(host: Host, token: str, version: str, image: str) -> bytes:
    """The unified kernel image kernel-install makes for a kernel from the settings as they are now.

    :raises PassthroughError: ``generator_failed``, or that the command failed
    """
    with host.temporary_directory("kernel-install") as directory:
        _prepare(host, directory, token)
        _add(host, directory, version, image, [])
        return host.read_bytes(_only(host, f"{directory}/EFI/Linux", ".efi", "unified kernel images", version, image))


def _prepare(host: Host, directory: str, token: str) -> None:
    """Make a directory look like the boot partition of this system: kernel-install goes by what is there."""
    files.put(host, f"{directory}/loader/entries.srel", FileState(b"type1\n"))
    files.put(host, f"{directory}/{token}/.keep", FileState(b""))


def _add(host: Host, directory: str, version: str, image: str, plugins: Sequence[str]) -> None:
    environment = [f"BOOT_ROOT={host.path(directory)}"]
    if plugins:
        environment.append(f"KERNEL_INSTALL_PLUGINS={' '.join(plugins)}")
    host.run(["env", *environment, PROGRAM, "add", version, host.path(image)], timeout=TIMEOUT)


def _only(host: Host, directory: str, suffix: str, what: str, version: str, image: str) -> str:
    """The path of the one file that was made.

    :param what: what it is, in the plural
    :raises PassthroughError: ``generator_failed`` when there is none, or several
    """
    found = [name for name in host.list_dir(directory) if name.endswith(suffix)]
    if len(found) != 1:
        raise PassthroughError(
            "generator_failed",
            f"{PROGRAM} ended without an error, but made {len(found)} {what} for the kernel {version} instead of one.",
            f"Run {PROGRAM} --verbose add {version} {image} by hand and look at what it says.",
        )
    return f"{directory}/{found[0]}"


def without_loader_words(line: CommandLine) -> str:
    """A command line without what the boot loader put there."""
    return str(line.without(("BOOT_IMAGE", "initrd")))


def _assignments(host: Host, paths: Sequence[str]) -> dict[str, str]:
    """The ``NAME=value`` lines of the first of these files that is there."""
    for path in paths:
        if host.exists(path):
            pairs = (line.strip().partition("=") for line in host.read_text(path).splitlines() if line[:1] != "#")
            return {name: value.strip("\"'") for name, equals, value in pairs if equals}
    return {}
