# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees of hosts that boot with systemd-boot, and stand-ins for bootctl and kernel-install.

The entries are those that kernel-install of systemd 257 (Debian 13) wrote in a chroot; what the stand-in makes was
compared with what it made there from the same settings. It refuses whatever the real one would not understand.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host

from .tree import HostTree

MACHINE_ID = "0c99374c4a59467f8b8425bf98911411"
KERNELS = ("6.12.48+deb13-amd64", "6.12.57+deb13-amd64")
SETTINGS = "/etc/kernel/cmdline"
ESP = "/efi"
ENTRY_PLUGIN = "/usr/lib/kernel/install.d/90-loaderentry.install"
LINE = "root=UUID=aa ro quiet intel_iommu=off"
_EFI_VARIABLE = "/sys/firmware/efi/efivars/{}-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
"""One of the boot loader interface (systemd.io)."""
LOADER_INFO = _EFI_VARIABLE.format("LoaderInfo")
STUB_INFO = _EFI_VARIABLE.format("StubInfo")
SELECTED_ENTRY = _EFI_VARIABLE.format("LoaderEntrySelected")

_VARIABLES = {"BOOT_ROOT", "KERNEL_INSTALL_PLUGINS"}


def efi_text(text: str) -> bytes:
    """A text variable as efivarfs shows it."""
    return b"\x06\x00\x00\x00" + f"{text}\0".encode("utf-16-le")


def entry_path(version: str, token: str = MACHINE_ID) -> str:
    """Where kernel-install writes the entry of a kernel."""
    return f"{ESP}/loader/entries/{token}-{version}.conf"


def image_path(version: str, token: str = MACHINE_ID) -> str:
    """Where kernel-install puts the unified kernel image of a kernel."""
    return f"{ESP}/EFI/Linux/{token}-{version}.efi"


def portable_executable(sections: Mapping[str, bytes], *, signed: bool = False) -> bytes:
    """A PE32+ file with these sections, laid out as ukify does it: raw data in multiples of 512 bytes."""
    optional = struct.pack("<H", 0x20B) + bytes(110) + bytes(8 * 4)
    optional += struct.pack("<II", 0x400, 8 if signed else 0) + bytes(8 * 11)
    header = b"PE\0\0" + struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, len(optional), 0x22) + optional
    start = 0x80 + len(header) + 40 * len(sections)
    start += -start % 512
    table, body = b"", b""
    for name, content in sections.items():
        padded = content + bytes(-len(content) % 512)
        table += struct.pack(
            "<8sIIIIIIHHI", name.encode(), len(content), 0, len(padded), start + len(body), 0, 0, 0, 0, 0
        )
        body += padded
    front = b"MZ" + bytes(58) + struct.pack("<I", 0x80) + bytes(64) + header + table
    return front + bytes(start - len(front)) + body


class SystemdBootHost(HostTree):
    """A Debian-like host in a directory, which boots with systemd-boot; ``host`` is how code under test sees it."""

    def __init__(
        self,
        root: Path,
        settings: str | None = None,
        *,
        layout: str = "",
        token: str = MACHINE_ID,
        kernels: Sequence[str] = KERNELS,
        has_comments: bool = True,
    ) -> None:
        """:param settings: of /etc/kernel/cmdline; None leaves it out, as Debian does"""
        super().__init__(root)
        self.commands: list[tuple[str, ...]] = []
        self.intercept: Callable[[Sequence[str]], Completed | None] | None = None
        """Called before each command; what it returns is taken for the command's result."""
        self.signed = False
        self.host = Host(str(root), runner=self._run, clock=lambda: 1_700_000_000.0)
        for program in ("bootctl", "kernel-install"):
            self.write(f"/usr/bin/{program}", "", 0o755)
        self.write(ENTRY_PLUGIN, "grep -Gv '^#'\n" if has_comments else "tr -s\n", 0o755)
        self.write("/etc/machine-id", f"{MACHINE_ID}\n")
        self.write("/etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nID=debian\n')
        self.write(LOADER_INFO, efi_text("systemd-boot 257.8-1~deb13u2"))
        self.write("/proc/cmdline", f"initrd=\\{token}\\initrd {LINE}\n")
        self.write(f"{ESP}/loader/entries.srel", "type1\n")
        self.write(f"{ESP}/loader/loader.conf", f"default {token}-*\n")
        self.path(f"{ESP}/loader/entries").mkdir()
        self.path(f"{ESP}/{token}").mkdir()
        for directory in ("/run", "/var/lib"):
            self.path(directory).mkdir(parents=True)
        if token != MACHINE_ID:
            self.write("/etc/kernel/entry-token", f"{token}\n")
        if layout:
            self.write("/etc/kernel/install.conf", f"# see kernel-install(8)\nlayout={layout}\n")
        if settings is not None:
            self.write(SETTINGS, settings)
        for version in kernels:
            self.write(f"/boot/vmlinuz-{version}", version)
            self.install_kernel(version)

    def install_kernel(self, version: str) -> None:
        """What a package does when it installs a kernel."""
        self.write(f"/boot/vmlinuz-{version}", version)
        done = self._kernel_install({"BOOT_ROOT": str(self.path(ESP))}, ["add", version, f"/boot/vmlinuz-{version}"])
        assert done.rc == 0, done.stderr

    def lines(self) -> dict[str, str]:
        """The command line of every entry, by the name of its file."""
        found = {}
        for path in sorted(self.path(f"{ESP}/loader/entries").glob("*.conf")):
            found[path.name] = " ".join(re.findall(r"(?m)^options +(.*)$", path.read_text(errors="surrogateescape")))
        for path in sorted(self.path(f"{ESP}/EFI/Linux").glob("*.efi")):
            content = path.read_bytes()
            number = content[:1024].find(b".cmdline")
            if number < 0:
                continue
            size, _address, _raw, start = struct.unpack_from("<IIII", content, number + 8)
            found[path.name] = content[start : start + size].decode().strip(" \0")
        return found

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        self.commands.append(tuple(argv))
        if self.intercept is not None:
            answer = self.intercept(argv)
            if answer is not None:
                return answer
        if argv[0] == "bootctl":
            assert list(argv[1:]) in (["--print-boot-path"], ["--print-esp-path"]), argv
            return Completed(tuple(argv), 0, f"{ESP}\n", "")
        assert argv[0] == "env", argv
        place = argv.index("kernel-install")
        return self._kernel_install(
            dict(setting.split("=", 1) for setting in argv[1:place]), list(argv[place + 1 :]), argv
        )

    def _kernel_install(
        self, environment: Mapping[str, str], arguments: list[str], argv: Sequence[str] = ()
    ) -> Completed:
        def failed(text: str) -> Completed:
            return Completed(tuple(argv), 1, "", text)

        assert set(environment) <= _VARIABLES, environment
        if len(arguments) < 3 or arguments[0] != "add":
            return failed("Error: not enough arguments")
        version, image = arguments[1:3]
        kernel = Path(image) if image.startswith(str(self.root)) else self.path(image)
        if not kernel.is_file():
            return failed(f"Error: kernel image argument {image} not a file")
        boot = Path(environment["BOOT_ROOT"])
        plugins = environment.get("KERNEL_INSTALL_PLUGINS", ENTRY_PLUGIN).split()
        for plugin in plugins:
            if not (Path(plugin) if plugin.startswith(str(self.root)) else self.path(plugin)).is_file():
                return failed(f"{plugin}: not found")
        token = next((name for name in self._tokens() if (boot / name).is_dir()), self._tokens()[0])
        layout = self._layout(boot)
        if layout == "bls":
            directory = boot / token / version
            directory.mkdir(parents=True, exist_ok=True)
            (directory / "linux").write_bytes(kernel.read_bytes())
            (boot / "loader/entries").mkdir(exist_ok=True)
            prefix = "" if boot == self.path(ESP) else f"/{boot.name}"
            (boot / f"loader/entries/{token}-{version}.conf").write_text(
                "# Boot Loader Specification type#1 entry\n"
                f"# File created by {ENTRY_PLUGIN} (systemd 257.13-1~deb13u1)\n"
                "title      Debian GNU/Linux 13 (trixie)\n"
                f"version    {version}\n"
                + (f"machine-id {self._machine_id()}\n" if token == self._machine_id() else "")
                + "sort-key   debian\n"
                f"options    {self._options(token, comments=True)}\n"
                f"linux      {prefix}/{token}/{version}/linux\n"
                f"initrd     {prefix}/{token}/{version}/initrd.img-{version}\n",
                errors="surrogateescape",
            )
        elif layout == "uki" and "KERNEL_INSTALL_PLUGINS" not in environment:
            (boot / "EFI/Linux").mkdir(parents=True, exist_ok=True)
            sections = {
                ".text": b"stub",
                ".osrel": self.path("/etc/os-release").read_bytes(),
                ".cmdline": f" {self._options(token, comments=False)}\0".encode("utf-8", "surrogateescape"),
                ".uname": version.encode(),
                ".linux": kernel.read_bytes(),
                ".initrd": b"initrd",
            }
            content = portable_executable(sections, signed=self.signed)
            (boot / f"EFI/Linux/{token}-{version}.efi").write_bytes(content)
        return Completed(tuple(argv), 0, "", "")

    def _tokens(self) -> list[str]:
        configured = self.path("/etc/kernel/entry-token")
        return [configured.read_text().strip()] if configured.exists() else [self._machine_id(), "debian", "Default"]

    def _machine_id(self) -> str:
        return self.read("/etc/machine-id").strip()

    def _layout(self, boot: Path) -> str:
        configured = self.path("/etc/kernel/install.conf")
        if configured.exists():
            found = re.search(r"(?m)^layout=(.*)$", configured.read_text())
            if found:
                return found.group(1)
        marked = boot / "loader/entries.srel"
        return "bls" if marked.exists() and marked.read_text() == "type1\n" else "other"

    def _options(self, token: str, *, comments: bool) -> str:
        """What 90-loaderentry.install and 60-ukify.install make of the settings; only the former knows comments."""
        comments = comments and "grep -Gv" in self.read(ENTRY_PLUGIN)
        for path in (SETTINGS, "/usr/lib/kernel/cmdline"):
            if self.path(path).exists():
                lines = self.read(path).split("\n")
                kept = "\n".join(line for line in lines if not (comments and re.match(r"\s*#", line)))
                words = re.sub(r"[ \t\n]+", " ", kept).rstrip(" ")
                break
        else:
            words = " ".join(
                w for w in self.read("/proc/cmdline").split() if not w.startswith(("BOOT_IMAGE=", "initrd="))
            )
        if token == self._machine_id() and "systemd.machine_id=" not in words:
            words += f" systemd.machine_id={token}"
        return words
