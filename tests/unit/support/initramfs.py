# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for the tools that build initramfs images: initramfs-tools, dracut, mkinitcpio.

They read the same settings as the real ones and make real images: cpio archives, of which the last is compressed. They
take the arguments they are known to be given and no others, and write as the real ones do: update-initramfs beside the
old image, the two others over it.
"""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.persistence import archive

from .tree import HostTree

RULES = "70-kvm-passthrough.rules"
CONF = "kvm-passthrough.conf"


def cpio(files: dict[str, bytes]) -> bytes:
    """An archive of the format "newc"."""
    data = b""
    for number, (name, content) in enumerate([*files.items(), ("TRAILER!!!", b"")], 1):
        path = name.encode() + b"\0"
        fields = (number, 0o100644, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        header = b"070701" + b"".join(b"%08x" % field for field in fields) + path
        data += header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
    return data + bytes(-len(data) % 512)


def image(files: dict[str, bytes]) -> bytes:
    """An image: processor microcode in front, and the rest compressed."""
    return cpio({"kernel/x86/microcode/GenuineIntel.bin": b"\1" * 5}) + gzip.compress(cpio(files), 1, mtime=0)


def _aliases(modules: Mapping[str, Collection[str]]) -> str:
    found = [(*one.upper().split(":"), name) for name, ids in modules.items() for one in ids]
    return "".join(f"alias pci:v0000{vendor}d0000{device}sv*sd*bc*sc*i* {name}\n" for vendor, device, name in found)


def contents(host: Host, path: str) -> tuple[list[str], dict[str, bytes]]:
    """The names in an image, and the files of this collection."""
    found = archive.read(host, path, {RULES, CONF})
    return sorted(found.names), dict(found.files)


class StandIn(HostTree):
    """A tool on a host whose tree is a directory."""

    def __init__(
        self, host: Host, root: Path, kernels: Sequence[str], modules: Mapping[str, Collection[str]], **_options: Any
    ) -> None:
        self.host = host
        super().__init__(root)
        self.fails = False
        """Whether it breaks off in the middle of an image."""
        self.ignores_settings = False
        self.lacks_modules = False
        for version in kernels:
            self.write(f"/lib/modules/{version}/modules.dep", "".join(f"kernel/{name}.ko.xz:\n" for name in modules))
            self.write(f"/lib/modules/{version}/modules.alias", _aliases(modules))
        for directory in ("/etc/udev/rules.d", "/etc/modprobe.d", "/etc/modules-load.d", "/boot"):
            self.path(directory).mkdir(parents=True, exist_ok=True)

    def run(self, argv: Sequence[str]) -> Completed | None:
        """What the command does; None for a command that is not one of this tool's."""
        raise NotImplementedError

    def kernels(self) -> list[str]:
        return self.host.list_dir("/lib/modules")

    def in_place(self, path: Path, data: bytes) -> bool:
        """Write over whatever is there, in pieces; returns whether it came to the end."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            half = len(data) // 2
            os.write(descriptor, data[:half])
            if self.fails:
                return False
            os.write(descriptor, data[half:])
        finally:
            os.close(descriptor)
        return True

    def common(self) -> dict[str, bytes]:
        return {"init": b"#!/bin/sh\n"}

    def file(self, path: str) -> bytes:
        return self.path(path).read_bytes()

    def module(self, version: str, name: str) -> dict[str, bytes]:
        """A module's file in the image, where the kernel has such a module."""
        if self.lacks_modules:
            return {}
        listed = self.path(f"/lib/modules/{version}/modules.dep").read_text()
        if f"kernel/{name}.ko.xz:" not in listed.replace("_", "-") and f"kernel/{name}.ko.xz:" not in listed:
            return {}
        return {f"usr/lib/modules/{version}/kernel/{name}.ko.xz": b"module"}


class InitramfsToolsStandIn(StandIn):
    """``update-initramfs -u -k all``: custom rules, modprobe's settings, and the modules that executable hooks add."""

    def __init__(self, host: Host, root: Path, kernels: Sequence[str], modules: Mapping[str, Collection[str]]) -> None:
        super().__init__(host, root, kernels, modules)
        self.write("/usr/share/initramfs-tools/hook-functions", "")
        self.path("/etc/initramfs-tools/hooks").mkdir(parents=True, exist_ok=True)
        self.write("/usr/sbin/update-initramfs", "", 0o755)
        for version in kernels:
            self.path(f"/boot/initrd.img-{version}").touch()
        self._update()

    def run(self, argv: Sequence[str]) -> Completed | None:
        if argv[0] != "update-initramfs":
            return None
        if list(argv[1:]) != ["-u", "-k", "all"]:
            return Completed(tuple(argv), 2, "", "Usage: update-initramfs {-c|-d|-u} [-k version]")
        return Completed(tuple(argv), 0 if self._update() else 1, "", "")

    def _update(self) -> bool:
        for version in self.kernels():
            path = self.path(f"/boot/initrd.img-{version}")
            if path.exists():
                if not self.in_place(path.with_name(f"{path.name}.new"), self._image(version)):
                    os.unlink(path.with_name(f"{path.name}.new"))
                    return False
                os.rename(path.with_name(f"{path.name}.new"), path)
        return True

    def _image(self, version: str) -> bytes:
        files = self.common()
        if not self.ignores_settings:
            for name in self.host.list_dir("/etc/udev/rules.d"):
                if name.endswith(".rules"):
                    files[f"usr/lib/udev/rules.d/{name}"] = self.file(f"/etc/udev/rules.d/{name}")
            for name in self.host.list_dir("/etc/modprobe.d"):
                if name.endswith(".conf"):
                    files[f"etc/modprobe.d/{name}"] = self.file(f"/etc/modprobe.d/{name}")
            for hook in self.host.list_dir("/etc/initramfs-tools/hooks"):
                path = self.path(f"/etc/initramfs-tools/hooks/{hook}")
                if os.access(path, os.X_OK):
                    for line in path.read_text().splitlines():
                        if line.startswith("manual_add_modules "):
                            for name in line.split()[1:]:
                                files.update(self.module(version, name))
        return image(files)


class DracutStandIn(StandIn):
    """``dracut --force IMAGE VERSION``: what the settings in *.conf add, written over the image and removed on failure.

    :param layout: how images are called; ``{}`` stands for the version
    """

    def __init__(
        self,
        host: Host,
        root: Path,
        kernels: Sequence[str],
        modules: Mapping[str, Collection[str]],
        layout: str = "/boot/initrd.img-{}",
    ) -> None:
        super().__init__(host, root, kernels, modules)
        self.path("/etc/dracut.conf.d").mkdir(parents=True, exist_ok=True)
        self.write("/usr/bin/dracut", "", 0o755)
        for version in kernels:
            path = self.path(layout.format(version))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._image(version))
            path.chmod(0o600)

    def run(self, argv: Sequence[str]) -> Completed | None:
        if "dracut" not in argv:
            return None
        *start, path, version = argv
        if start != ["env", "NO_POST_UPDATE_HOOKS=1", "dracut", "--force"] or version not in self.kernels():
            return Completed(tuple(argv), 1, "", "dracut[F]: Cannot find module directory")
        if not self.in_place(Path(path), self._image(version)):
            os.unlink(path)
            return Completed(tuple(argv), 1, "", f"dracut[F]: Creation of {path} failed")
        return Completed(tuple(argv), 0, "", "")

    def _image(self, version: str) -> bytes:
        files = self.common()
        if not self.ignores_settings:
            drivers, items = self._settings()
            for driver in drivers:
                files.update(self.module(version, driver))
            for item in items:
                files[item.lstrip("/")] = b"shell" if item == "/bin/sh" else self.file(item)
        return image(files)

    def _settings(self) -> tuple[list[str], list[str]]:
        """Read by bash, as dracut does."""
        script = "add_drivers= install_items=\n"
        for name in self.host.list_dir("/etc/dracut.conf.d"):
            if name.endswith(".conf"):
                script += f". {self.path('/etc/dracut.conf.d')}/{name}\n"
        return _lists(script, "echo $add_drivers; echo $install_items")


class MkinitcpioStandIn(StandIn):
    """``mkinitcpio -g IMAGE -k KERNEL OPTIONS``: the settings, and drop-ins unless another configuration is named."""

    PRESET = """\
# mkinitcpio preset file for the 'linux' package

#ALL_config="/etc/mkinitcpio.conf"
ALL_kver="/boot/vmlinuz-linux"

PRESETS=('default'
         'fallback')

#default_config="/etc/mkinitcpio.conf"
default_image="/boot/initramfs-linux.img"
#default_uki="/efi/EFI/Linux/arch-linux.efi"

fallback_image="/boot/initramfs-linux-fallback.img"
fallback_options="-S autodetect"
"""

    def __init__(self, host: Host, root: Path, kernels: Sequence[str], modules: Mapping[str, Collection[str]]) -> None:
        super().__init__(host, root, kernels[:1], modules)
        self.version = kernels[0]
        self.write(
            "/etc/mkinitcpio.conf", "MODULES=()\nFILES=()\nHOOKS=(base udev autodetect modconf block filesystems)\n"
        )
        self.path("/etc/mkinitcpio.conf.d").mkdir(parents=True, exist_ok=True)
        self.write("/etc/mkinitcpio.d/linux.preset", self.PRESET)
        self.write("/usr/bin/mkinitcpio", "", 0o755)
        self.write("/boot/vmlinuz-linux", "kernel")
        for name in ("linux", "linux-fallback"):
            self.path(f"/boot/initramfs-{name}.img").write_bytes(self._image(with_drop_ins=True))

    def run(self, argv: Sequence[str]) -> Completed | None:
        if argv[0] != "mkinitcpio":
            return None
        known = {("-k", "/boot/vmlinuz-linux"), ("-k", "/boot/vmlinuz-linux", "-S", "autodetect")}
        if argv[1] != "-g" or tuple(argv[3:]) not in known:
            return Completed(tuple(argv), 1, "", f"==> ERROR: unexpected arguments {argv}")
        done = self.in_place(Path(argv[2]), self._image(with_drop_ins="-c" not in argv))
        return Completed(tuple(argv), 0 if done else 1, "", "" if done else "==> ERROR: Image generation FAILED")

    def _image(self, *, with_drop_ins: bool) -> bytes:
        script = f". {self.path('/etc/mkinitcpio.conf')}\n"
        for name in self.host.list_dir("/etc/mkinitcpio.conf.d"):
            if name.endswith(".conf") and with_drop_ins and not self.ignores_settings:
                script += f". {self.path('/etc/mkinitcpio.conf.d')}/{name}\n"
        modules, items = _lists(script, 'echo "${MODULES[@]}"; echo "${FILES[@]}"')
        files = self.common()
        for module in modules:
            found = self.module(self.version, module.rstrip("?"))
            assert found or module.endswith("?"), f"==> ERROR: module not found: '{module}'"
            files.update(found)
        for item in items:
            files[item.lstrip("/")] = self.file(item)
        return image(files)


def _lists(script: str, show: str) -> tuple[list[str], list[str]]:
    done = subprocess.run(["bash", "-euc", script + show], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    return first.split(), second.split()
