# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees of hosts on IBM Z, and a stand-in for zipl.

The stand-in refuses what zipl refuses (s390-tools, zipl/src/scan.c and job.c): unknown options and keywords, keywords
that are there twice or not allowed or missing, sections that are not there, files that are not there, parameters that
are too long. It writes the parameters of what it installs into the boot map.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host

from .kill import PROGRESS, progress_environment
from .tree import HostTree

CONFIG = "/etc/zipl.conf"
SETTINGS = "/etc/kernel/cmdline"
BOOT_MAP = "/boot/bootmap"
MACHINE_ID = "0c99374c4a59467f8b8425bf98911411"
KERNELS = ("5.14.0-503.el9.s390x", "5.14.0-570.el9.s390x")
ROOT = "root=/dev/disk/by-path/ccw-0.0.0100-part1"
LINE = f"{ROOT} quiet intel_iommu=off"

DEBIAN = f"""\
[defaultboot]
default = debian

[debian]
target = /boot
image = /boot/vmlinuz
ramdisk = /boot/initrd.img
parameters = {LINE}
"""

UBUNTU = f"""\
# This has been modified by the cloud image build process
[defaultboot]
defaultmenu = menu

:menu
target = /boot
1 = ubuntu
2 = old
3 = elsewhere
default = 1
prompt = 1
timeout = 10

[ubuntu]
target = /boot
image = /boot/vmlinuz
ramdisk = /boot/initrd.img
parameters = "{LINE}"

[old]
target = /boot
image = /boot/vmlinuz.old
ramdisk = /boot/initrd.img.old
parameters = '{LINE} dyndbg="file x +p"'
optional = 1

[elsewhere]
target=/boot
image=/boot/vmlinuz,0x10000
parameters="root=/dev/dasdb1 intel_iommu=off"

[dump]
dumpto=/dev/dasdc1
"""

RHEL = """\
[defaultboot]
defaultauto
prompt=1
timeout=5
target=/boot
"""

KEYWORDS = {
    "image": {"image", "target", "ramdisk", "parameters", "parmfile", "kdump", "secure", "optional"},
    "dumpto": {"dumpto", "target"},
}
MENU_KEYWORDS = {"default", "target", "prompt", "timeout", "secure"}
DEFAULT_KEYWORDS = {"default", "defaultauto", "defaultmenu", "target", "prompt", "timeout", "secure"}


def entry_path(version: str) -> str:
    """Where kernel-install's plugin writes the entry of a kernel."""
    return f"/boot/loader/entries/{MACHINE_ID}-{version}.conf"


def entry(version: str, options: str = LINE) -> str:
    """The entry of a kernel."""
    return (
        f"title Red Hat Enterprise Linux ({version}) 9.4 (Plow)\nversion {version}\n"
        f"linux /boot/vmlinuz-{version}\ninitrd /boot/initramfs-{version}.img\noptions {options}\n"
        "grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class rhel\n"
    )


WRITE_BOOT_MAP = r"""
set -e
@PROGRESS@
progress
printf %b "$3" >"$2/bootmap_temp.x"
progress
mv "$2/bootmap_temp.x" "$1"
progress
"""


class Refused(Exception):
    """zipl would fail with this."""


class ZiplHost(HostTree):
    """A host on IBM Z in a directory; ``host`` is how code under test sees it."""

    def __init__(
        self,
        root: Path,
        config: str = DEBIAN,
        entries: Mapping[str, str] | None = None,
        files: Mapping[str, str] | None = None,
        longest: int = 4096,
    ) -> None:
        """:param entries: version of the kernel -> text of its entry
        :param longest: COMMAND_LINE_SIZE of the kernel
        """
        super().__init__(root)
        self.longest = longest
        self._installed = 0
        self.commands: list[tuple[str, ...]] = []
        self.intercept: Callable[[Sequence[str]], Completed | None] | None = None
        """Called before each command; what it returns is taken for the command's result."""
        self.host = Host(str(root), runner=self._run, clock=lambda: 1_700_000_000.0)
        self.write("/usr/sbin/zipl", "", 0o755)
        self.write(CONFIG, config)
        self.write("/etc/machine-id", f"{MACHINE_ID}\n")
        self.write("/sys/firmware/ipl/ipl_type", "ccw\n")
        self.write("/proc/cmdline", f"{LINE} BOOT_IMAGE=0\n")
        for name in ("vmlinuz", "initrd.img"):
            self.write(f"/boot/{name}", name)
        for version, text in (entries or {}).items():
            self.write(f"/boot/vmlinuz-{version}", version)
            self.write(f"/boot/initramfs-{version}.img", version)
            self.write(entry_path(version), text)
        for path, text in (files or {}).items():
            self.write(path, text)
        for directory in ("/run", "/var/lib"):
            self.path(directory).mkdir(parents=True)
        self.zipl()
        self.settle()

    def settle(self) -> None:
        """Let all that is there be of yesterday, and the boot map the newest."""
        for path in [*self.path("/etc").rglob("*"), *self.path("/boot").rglob("*")]:
            os.utime(path, (1_700_000_000, 1_700_000_000))
        os.utime(self.path(BOOT_MAP), (1_700_000_001, 1_700_000_001))

    def installed(self) -> dict[str, str]:
        """What the boot map has: section -> parameters."""
        lines = self.read(BOOT_MAP).split("\0")
        return dict(zip(lines[::2], lines[1::2]))

    def zipl(self, *options: str) -> None:
        """What zipl does; raises :class:`Refused`."""
        for option in options:
            if option not in ("--noninteractive", "--dry-run"):
                raise Refused(f"unknown option {option}")
        sections = self._sections()
        default = sections.get(("[", "defaultboot"))
        if default is None:
            raise Refused("No 'defaultboot' section found")
        if "defaultauto" in default or "target" in default:
            names = [name for (kind, name), values in sections.items() if kind == "[" and "image" in values]
        elif "defaultmenu" in default:
            menu = sections.get((":", default["defaultmenu"]))
            if menu is None:
                raise Refused(f"Menu section {default['defaultmenu']!r} not found")
            names = [value for key, value in menu.items() if key.isdigit()]
        elif "default" in default:
            names = [default["default"]]
        else:
            raise Refused("Section 'defaultboot' requires one of keywords 'default', 'defaultmenu', …")
        made = []
        for name in names:
            values = sections.get(("[", name))
            if values is None:
                raise Refused(f"Configuration section {name!r} not found")
            image = values["image"].split(",")[0]
            if not self.path(image).exists():
                if values.get("optional") == "1":
                    continue
                raise Refused(f"Image file {image!r}: not there")
            text = values.get("parameters", "")
            if "parmfile" in values:
                if not self.path(values["parmfile"].split(",")[0]).exists():
                    raise Refused(f"Parmfile {values['parmfile']!r}")
                text = re.sub("\n+", " ", self.read(values["parmfile"].split(",")[0])) + text
            if len(text.encode("utf-8", "surrogateescape")) >= self.longest:
                raise Refused("The length of the parameters line exceeds the allowed maximum")
            made += [name, text]
        if "--dry-run" not in options:
            self._write_boot_map("\0".join(made))

    def _write_boot_map(self, text: str) -> None:
        """In a process of its own, as zipl is one; what it leaves when it is killed lies beside the boot map there."""
        self._installed += 1
        # Whoever is killed in here is killed once, and not again when things are brought back.
        progress = progress_environment() if self._installed == 2 else {}
        content = "".join(f"\\0{byte:03o}" for byte in text.encode("utf-8", "surrogateescape"))
        script = WRITE_BOOT_MAP.replace("@PROGRESS@", PROGRESS)
        done = subprocess.run(
            ["sh", "-c", script, "zipl", self.path(BOOT_MAP), self.path("/run"), content],
            env={"PATH": os.environ["PATH"], **progress},
            check=False,
        )
        if done.returncode:
            raise Refused("killed")

    def _sections(self) -> dict[tuple[str, str], dict[str, str]]:
        """The sections of the configuration and the entries, checked."""
        sections: dict[tuple[str, str], dict[str, str]] = {}
        values: dict[str, str] | None = None
        for line in self.read(CONFIG).split("\n"):
            body = line.strip(" \t")
            if not body or body[0] == "#":
                continue
            if body[0] in "[:":
                name = body[1:].rstrip("]") if body[0] == "[" else body[1:]
                good = body.endswith("]") if body[0] == "[" else name.isalnum()
                if not name or not good or (body[0], name) in sections:
                    raise Refused(f"bad section heading {body!r}")
                values = sections[body[0], name] = {}
                continue
            key, equals, text = (part.strip(" \t") for part in body.partition("="))
            if not equals and key != "defaultauto":
                raise Refused(f"unknown keyword {body!r}")
            if values is None or key in values:
                raise Refused(f"keyword {key!r} already specified, or outside of a section")
            if text[:1] in ("'", '"'):
                inner, rest = text[1:].split(text[0], 1) if text[0] in text[1:] else ("", "x")
                if rest:
                    raise Refused(f"unterminated quotes or unexpected characters in {text!r}")
                text = inner
            values[key] = text
        for (kind, name), values in sections.items():
            allowed = MENU_KEYWORDS if kind == ":" else DEFAULT_KEYWORDS if name == "defaultboot" else None
            if allowed is None:
                main = next((key for key in KEYWORDS if key in values), None)
                if main is None or (main == "image" and "target" not in values):
                    raise Refused(f"missing keyword in section {name!r}")
                allowed = KEYWORDS[main]
            wrong = [key for key in values if key not in allowed and not (kind == ":" and key.isdigit())]
            if wrong:
                raise Refused(f"keyword {wrong[0]!r} not allowed in section {name!r}")
        for path in sorted(self.path("/boot/loader/entries").glob("*.conf"), reverse=True):
            fields: dict[str, str] = {}
            for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n"):
                key, _blank, text = line.strip(" \t").partition(" ")
                if key in ("title", "linux", "initrd", "options") and key in fields:
                    raise Refused(f"keyword {key!r} already specified")
                fields[key] = text.strip(" \t")
            if ("[", fields["title"]) in sections:
                raise Refused(f"section name {fields['title']!r} already specified")
            sections["[", fields["title"]] = {"image": fields["linux"], "parameters": fields.get("options", "")}
        return sections

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        self.commands.append(tuple(argv))
        answer = self.intercept(argv) if self.intercept is not None else None
        if answer is not None:
            return answer
        assert argv[0] == "zipl", argv
        try:
            self.zipl(*argv[1:])
        except Refused as error:
            return Completed(tuple(argv), 1, "", f"Error: {error}")
        return Completed(tuple(argv), 0, "Done.", "")
