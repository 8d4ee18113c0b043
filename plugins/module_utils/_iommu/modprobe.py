# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What decides how and whether a kernel module is loaded: modprobe's settings, kernel parameters, a closed kernel.

Sources: modprobe.d(5), modprobe(8), libkmod/libkmod-config.c (folders, ``modprobe.blacklist=``);
Documentation/admin-guide/kernel-parameters.txt (``module_blacklist=``) and kernel/module/main.c ``blacklisted``;
Documentation/admin-guide/sysctl/kernel.rst (``modules_disabled``).
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from .machine import Machine

# Where modprobe looks, strongest first: of two files with one name only the first is read.
FOLDERS = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
MODULES_DISABLED = "/proc/sys/kernel/modules_disabled"

_COMMANDS = ("blacklist", "install", "options")

# What people give as the command of an "install" line so that nothing is loaded.
_NOTHING = re.compile(r"(?:\S*/)?(?:true|false|nologin|:)(?:\s|;|$)|exit\b")


@dataclass(frozen=True)
class Directive:
    """One line of modprobe's settings: ``command module argument``, the module's name with underscores."""

    command: str
    module: str
    argument: str
    source: str

    def concerns(self, module: str) -> bool:
        """Whether the line is about a module; an ``install`` line may name several by a shell pattern."""
        return self.module == module or (self.command == "install" and fnmatch.fnmatchcase(module, self.module))


@dataclass(frozen=True)
class ModprobeSettings:
    """The lines of modprobe's settings that forbid or replace the loading of modules, or give them options."""

    directives: tuple[Directive, ...] = ()

    def blacklisting(self, module: str) -> Directive | None:
        """What keeps a module from being loaded by those who respect the blacklist (libvirt, systemd, udev)."""
        return self._first("blacklist", module)

    def disabling(self, module: str) -> Directive | None:
        """What makes modprobe do nothing in place of loading a module, for everybody."""
        found = self._first("install", module)
        return found if found is not None and _NOTHING.match(found.argument) else None

    def option(self, module: str, name: str) -> str | None:
        """What an option of a module is going to be set to (the last one counts); empty for one without a value."""
        found = None
        for each in self.directives:
            if each.command == "options" and each.concerns(module):
                for word in each.argument.split():
                    key, _equals, value = word.partition("=")
                    if key.replace("-", "_") == name:
                        found = value
        return found

    def _first(self, command: str, module: str) -> Directive | None:
        return next((each for each in self.directives if each.command == command and each.concerns(module)), None)


def parse(text: str, source: str) -> list[Directive]:
    """The ``blacklist``, ``install`` and ``options`` lines of a file; what cannot be read is skipped, as modprobe does.

    :param source: where the text is from, for messages
    """
    found = []
    for line in text.replace("\\\n", "").split("\n"):
        words = line.split(None, 2)
        if line.startswith("#") or len(words) < 2 or words[0] not in _COMMANDS:
            continue
        argument = words[2].strip() if len(words) > 2 else ""
        found.append(Directive(words[0], words[1].replace("-", "_"), argument, source))
    return found


def modprobe_settings(machine: Machine) -> ModprobeSettings:
    """What modprobe was told, in its folders and by ``modprobe.blacklist=`` on the command line."""
    files: dict[str, str] = {}
    for folder in FOLDERS:
        for name in machine.host.list_dir(folder):
            if name.endswith(".conf"):
                files.setdefault(name, f"{folder}/{name}")
    found: list[Directive] = []
    for path in sorted(files.values(), key=lambda path: path.rpartition("/")[2]):
        found += parse(machine.read(path) or "", path)
    for parameter in machine.command_line.named("modprobe.blacklist"):
        for name in (parameter.value or "").split(","):
            found.append(Directive("blacklist", name.replace("-", "_"), "", f"the kernel parameter {parameter.text}"))
    return ModprobeSettings(tuple(found))


def kernel_refusal(machine: Machine, module: str) -> str | None:
    """Why the running kernel itself refuses to load a module, in words; None when it does not."""
    # The last one counts, and names are compared as they are: a dash is no underscore here.
    given = machine.command_line.named("module_blacklist")
    if given and module in (given[-1].value or "").split(","):
        return f"the kernel was started with {given[-1].text}"
    if machine.read(MODULES_DISABLED) == "1":
        return "the loading of modules was switched off for this boot (sysctl kernel.modules_disabled = 1)"
    return None
