# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""File trees of hosts with boot loader specification entries (RHEL 8, RHEL 9, Fedora), and a stand-in for grubby.

grubby is not packaged for the systems these tests run on. The stand-in does what the shell script ``grubby-bls`` does
(grubby 8.40 of RHEL 8 and Fedora, from its source): it takes the same options and no others, prints the same, and
``--update-kernel`` edits as carelessly as the real one, so that tests can let an administrator use it, too.
A kernel is installed as 20-grub.install and, on RHEL 8, the kernel package's own entry do it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host, run_subprocess

from .tree import HostTree

MACHINE_ID = "0c99374c4a59467f8b8425bf98911411"
ENTRIES = "/boot/loader/entries"
ENVIRONMENT = "/boot/grub2/grubenv"
SETTINGS = "/etc/kernel/cmdline"
DEFAULTS = "/etc/default/grub"
CONFIG = "/boot/grub2/grub.cfg"
ROOT = "root=/dev/mapper/rhel-root ro"
LINE = f"{ROOT} crashkernel=1G-4G:192M rd.lvm.lv=rhel/root quiet intel_iommu=off"

_OPTIONS_WITH_VALUE = ("args", "bls-directory", "env", "info", "remove-args", "update-kernel")
_OPTIONS = ("default-index", "default-kernel", "default-title", "grub2", "no-etc-grub-update")


@dataclass(frozen=True)
class Flavour:
    """What one release does in its own way."""

    system: str
    kernels: Sequence[str]
    has_kernelopts: bool = False
    """Whether entries say ``$kernelopts``."""
    has_identity: bool = True
    """Whether ``--info`` prints ``id=``."""


RHEL_8 = Flavour("Red Hat Enterprise Linux", ("4.18.0-477.el8.x86_64", "4.18.0-553.el8.x86_64"), True)
RHEL_9 = Flavour("Red Hat Enterprise Linux", ("5.14.0-427.el9.x86_64", "5.14.0-503.el9.x86_64"))
FEDORA = Flavour("Fedora Linux", ("6.14.5-300.fc42.x86_64", "6.15.3-200.fc42.x86_64"))
FLAVOURS = {"RHEL 8": RHEL_8, "RHEL 9": RHEL_9, "Fedora": FEDORA}


def entry_path(version: str, machine_id: str = MACHINE_ID) -> str:
    """Where the entry of a kernel is."""
    return f"{ENTRIES}/{machine_id}-{version}.conf"


def environment_block(variables: Mapping[str, str]) -> str:
    """A grubenv as grub2-editenv writes it."""
    text = "# GRUB Environment Block\n" + "".join(f"{name}={value}\n" for name, value in variables.items())
    return text + "#" * (1024 - len(text.encode("utf-8", "surrogateescape")))


class GrubbyHost(HostTree):
    """A host in a directory; ``host`` is how code under test sees it."""

    def __init__(
        self,
        root: Path,
        flavour: Flavour = RHEL_9,
        *,
        line: str = LINE,
        settings: str | None = "",
        defaults: str | None = "",
        suffix: str = "",
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """:param line: what the entries hand to the kernel
        :param settings: of /etc/kernel/cmdline; empty for those of the line (RHEL 8 has none), None leaves it out
        :param defaults: of /etc/default/grub; empty for those of the line, None leaves it out
        :param suffix: what the options of entries end with, `` $tuned_params`` for instance
        :param variables: more variables of grubenv
        """
        super().__init__(root)
        self.flavour = flavour
        self.suffix = suffix
        self.commands: list[tuple[str, ...]] = []
        self.intercept: Callable[[Sequence[str]], Completed | None] | None = None
        """Called before each command; what it returns is taken for the command's result."""
        self.host = Host(str(root), runner=self._run, clock=lambda: 1_700_000_000.0)
        for program in ("grubby", "grub2-mkconfig"):
            self.write(f"/usr/sbin/{program}", "", 0o755)
        self.write("/etc/machine-id", f"{MACHINE_ID}\n")
        self.write("/etc/os-release", f'NAME="{flavour.system}"\nID=rhel\n')
        self.write(CONFIG, 'load_env\nset tuned_initrd=""\ninsmod blscfg\nblscfg\n')
        self.write("/proc/cmdline", f"BOOT_IMAGE=(hd0,gpt2)/vmlinuz-{flavour.kernels[-1]} {line}\n")
        for directory in ("/run", "/var/lib"):
            self.path(directory).mkdir(parents=True)
        words = line.replace(f"{ROOT} ", "", 1).replace("\\", "\\\\").replace('"', '\\"')
        if defaults is not None:
            self.write(DEFAULTS, defaults or f'GRUB_ENABLE_BLSCFG=true\nGRUB_CMDLINE_LINUX="{words}"\n')
        if settings is not None and not (flavour.has_kernelopts and not settings):
            self.write(SETTINGS, settings or f"{line}\n")
        saved = f"{MACHINE_ID}-{flavour.kernels[-1]}"
        kernelopts = {"kernelopts": f"{line} "} if flavour.has_kernelopts else {}
        block = environment_block({"saved_entry": saved, **kernelopts, "boot_success": "0", **(variables or {})})
        self.write(ENVIRONMENT, block)
        for version in flavour.kernels:
            self._add_entry(version, line)
        rescue = f"0-rescue-{MACHINE_ID}"
        self._add_entry(rescue, line, f"{MACHINE_ID}-0-rescue.conf")

    def options(self, version: str) -> str:
        """The options line of a kernel's entry."""
        return _value(self.read(entry_path(version)), "options")

    def lines(self) -> dict[str, str]:
        """What GRUB hands to the kernel, by the name of the entry's file."""
        names = sorted(os.listdir(self.path(ENTRIES)))
        texts = {name: _value(self.read(f"{ENTRIES}/{name}"), "options") for name in names if name.endswith(".conf")}
        return {name: self._expanded(text, ("kernelopts", "tuned_params")) for name, text in texts.items()}

    def install_kernel(self, version: str) -> None:
        """What a package does when it installs a kernel."""
        settings, defaults = self.path(SETTINGS), self.path(DEFAULTS)
        if settings.exists():
            if defaults.exists():
                # 20-grub.install runs grub2-mkconfig then, which writes other options into every entry.
                assert settings.stat().st_mtime_ns >= defaults.stat().st_mtime_ns
            words = self.read(SETTINGS).split()
        else:
            running = self.read("/proc/cmdline").split()
            words = [word for word in running if not word.startswith(("initrd=", "BOOT_IMAGE="))]
        self._add_entry(version, " ".join(words))

    def grubby(self, *arguments: str) -> Completed:
        """Run grubby as an administrator does."""
        return self._grubby(("grubby", *arguments))

    def _add_entry(self, version: str, line: str, name: str = "") -> None:
        options = "$kernelopts" if self.flavour.has_kernelopts else line
        self.write(
            f"{ENTRIES}/{name}" if name else entry_path(version),
            f"title {self.flavour.system} ({version}) 9.5 (Plow)\nversion {version}\nlinux /vmlinuz-{version}\n"
            f"initrd /initramfs-{version}.img\noptions {options}{self.suffix}\ngrub_users $grub_users\n"
            "grub_arg --unrestricted\ngrub_class rhel\n",
        )

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        self.commands.append(tuple(argv))
        if self.intercept is not None:
            answer = self.intercept(argv)
            if answer is not None:
                return answer
        if argv[0] == "grubby":
            return self._grubby(argv)
        if argv[0] == "sync":
            return Completed(tuple(argv), 0, "", "")  # not the disks of this machine
        assert argv[0] == "env", argv  # the shell that evaluates /etc/default/grub
        return run_subprocess(argv, timeout, stdin)

    # -- grubby ------------------------------------------------------------------------------------------

    def _grubby(self, argv: Sequence[str]) -> Completed:
        def ended(rc: int, output: str = "", error: str = "") -> Completed:
            return Completed(tuple(argv), rc, output, error)

        given: dict[str, str] = {}
        rest = list(argv[1:])
        if not rest:
            return ended(1, "", "no action specified\n")
        while rest:
            name, equals, value = rest.pop(0).partition("=")
            name = name[2:] if name.startswith("--") else ""
            if name in _OPTIONS_WITH_VALUE and (equals or rest):
                given[name] = value if equals else rest.pop(0)
            elif name in _OPTIONS and not equals:
                given[name] = ""
            else:
                return ended(1, "", f"grubby: unrecognized option '{argv[1]}'\n")
        if ("args" in given or "remove-args" in given) and "update-kernel" not in given:
            return ended(1, "", "The args or remove-args options need an update-kernel option\n")
        unknown = ended(1, "", "The param is incorrect\n")
        names = self._sorted_names()
        chosen = self._chosen(names, given.get("info", given.get("update-kernel", "DEFAULT")))
        if not chosen:
            return unknown
        if "info" in given:
            return ended(0, "".join(self._info(names.index(name), name) for name in chosen))
        if "update-kernel" in given:
            self._update(chosen, given)
        return ended(0)

    def _sorted_names(self) -> list[str]:
        """The entries, the newest first (rpm-sort)."""
        names = [name[: -len(".conf")] for name in os.listdir(self.path(ENTRIES)) if name.endswith(".conf")]

        def parts(name: str) -> list[int]:
            return [int(part) if part.isdigit() else -1 for part in re.split(r"[.-]", name)]

        return sorted((name for name in names if not name.startswith(".")), key=parts, reverse=True)

    def _chosen(self, names: list[str], which: str) -> list[str]:
        if which == "ALL":
            return names
        if which == "DEFAULT":
            saved = self._environment().get("saved_entry", "")
            titles = [_value(self.read(f"{ENTRIES}/{name}.conf"), "title") for name in names]
            if saved.isdigit():
                return names[int(saved) : int(saved) + 1]
            return [name for name, title in zip(names, titles) if saved in (name, title)][:1] if saved else names[:1]
        kernels = {name: _value(self.read(f"{ENTRIES}/{name}.conf"), "linux") for name in names}
        by_kernel = [name for name in names if kernels[name] in (which, which[len("/boot") :])]
        return by_kernel or ([names[int(which)]] if which.isdigit() and int(which) < len(names) else [])

    def _info(self, index: int, name: str) -> str:
        text = self.read(f"{ENTRIES}/{name}.conf")
        words = self._expanded(_value(text, "options"), ("kernelopts",)).split()
        root = next((word for word in words if word.startswith("root=")), "")
        if root:
            words.remove(root)
        shown = f'index={index}\nkernel="/boot{_value(text, "linux")}"\nargs="{" ".join(words)}"\n'
        shown += f'root="{root[len("root=") :]}"\n' if root else ""
        shown += f'initrd="/boot{_value(text, "initrd")}"\ntitle="{_value(text, "title")}"\n'
        return shown + (f'id="{name}"\n' if self.flavour.has_identity else "")

    def _update(self, chosen: Sequence[str], given: Mapping[str, str]) -> None:
        is_all = given["update-kernel"] == "ALL"
        remove, add = given.get("remove-args", "").split(), given.get("args", "").split()
        environment = self._environment()
        if is_all:
            if "no-etc-grub-update" not in given and self.path(DEFAULTS).exists():
                text = self.read(DEFAULTS)
                found = re.search(r'(?m)^GRUB_CMDLINE_LINUX="(.*)"$', text)
                if found:
                    new = f'GRUB_CMDLINE_LINUX="{_updated(found.group(1), remove, add)}"'
                    self.write(DEFAULTS, re.sub(r"(?m)^GRUB_CMDLINE_LINUX=.*$", lambda _unused: new, text))
            if "kernelopts" in environment:
                environment["kernelopts"] = _updated(environment["kernelopts"], remove, add)
                self.write(ENVIRONMENT, environment_block(environment))
            if self.path(SETTINGS).exists():
                self.write(SETTINGS, _updated(self.read(SETTINGS), remove, add) + "\n")
        for name in chosen:
            text = self.read(f"{ENTRIES}/{name}.conf")
            options = _value(text, "options")
            if is_all and "$kernelopts" in options.split():
                continue
            new = _updated(self._expanded(options, ("kernelopts",)), remove, add)
            self.write(f"{ENTRIES}/{name}.conf", text.replace(f"options {options}", f"options {new}"))

    def _environment(self) -> dict[str, str]:
        lines = self.read(ENVIRONMENT).split("\n") if self.path(ENVIRONMENT).exists() else []
        return dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")

    def _expanded(self, options: str, names: Sequence[str]) -> str:
        environment = self._environment()
        for name in names:
            options = options.replace(f"${name}", environment.get(name, ""))
        return options.strip()


def _value(text: str, key: str) -> str:
    """``get_bls_value()``: the values of all lines that begin with the key."""
    return "\n".join(re.findall(rf"(?m)^{key}[ \t]+(.*)$", text))


def _updated(line: str, remove: Sequence[str], add: Sequence[str]) -> str:
    """``update_args()``: what is removed goes first, then every former value of what is added, which is appended."""
    for pattern in (*remove, *(argument.partition("=")[0] for argument in add)):
        if "=" in pattern:
            line = re.sub(rf"(^|\s){pattern}(\s|$)", " ", line, count=1)
        else:
            line = re.sub(rf"(^|\s){pattern}((\s|$)|(=[^ ]*))", " ", line)
    return " ".join([*line.split(), *add])
