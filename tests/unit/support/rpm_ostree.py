# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host on OSTree deployments in a directory, and a stand-in for rpm-ostree that is as strict with its arguments.

What it does with arguments follows src/app/rpmostree-builtin-kargs.cxx and kernel_arg_transaction_execute() of
rpm-ostree, and src/libostree/ostree-kernel-args.c of OSTree before 2024, which splits at every space.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Completed, Host

from .tree import HostTree

DEPLOYMENTS = "/ostree/deployments"
"""Where the stand-in keeps what it knows of the deployments, in the order in which they are booted."""
ENTRIES = "/boot/loader/entries"
LINE = "root=UUID=1234-abcd rw quiet intel_iommu=off"


class OstreeError(Exception):
    """What rpm-ostree prints after ``error:``."""


class Kargs:
    """OstreeKernelArgs: keys with values, in order."""

    def __init__(self, text: str) -> None:
        self.items = [_split(word) for word in text.split(" ") if word]

    def delete(self, text: str) -> None:
        """ostree_kernel_args_delete()"""
        key, value = _split(text)
        entries = [item for item in self.items if item[0] == key]
        if not entries:
            raise OstreeError(f"No key '{key}' found")
        if len(entries) == 1 and value is None:
            self.items.remove(entries[0])
        elif (key, value) in entries:
            self.items.remove((key, value))
        else:
            raise OstreeError(f"Multiple values for key '{key}' found" if value is None else f"No karg '{text}' found")

    def append(self, text: str) -> None:
        """ostree_kernel_args_append()"""
        self.items.append(_split(text))

    def __str__(self) -> str:
        return " ".join(key if value is None else f"{key}={value}" for key, value in self.items)


class OstreeHost(HostTree):
    """A Fedora CoreOS in a directory; ``host`` is how code under test sees it."""

    def __init__(self, root: Path, line: str = LINE, programs: Sequence[str] = ("rpm-ostree",)) -> None:
        super().__init__(root)
        self.commands: list[tuple[str, ...]] = []
        self.intercept: Callable[[Sequence[str]], Completed | None] | None = None
        """Called before each command; what it returns is taken for the command's result."""
        self.transaction: list[str] | None = None
        """The transaction that is under way, as the status shows it."""
        self.host = Host(str(root), runner=self._run, clock=lambda: 1_700_000_000.0)
        for program in programs:
            self.write(f"/usr/bin/{program}", "", 0o755)
        self.write("/run/ostree-booted", "")
        self.path("/var/lib").mkdir(parents=True)
        self._write([_deployment("a" * 64, "41.1", line, booted=True), _deployment("9" * 64, "41.0", line)])
        self._finalize()

    @property
    def deployments(self) -> list[dict[str, Any]]:
        """All of them, the one that is booted next first."""
        found: list[dict[str, Any]] = json.loads(self.path(DEPLOYMENTS).read_text())
        return found

    def upgrade(self) -> None:
        """Somebody stages an update."""
        self._stage("b" * 64, "41.2", self.deployments[0]["kargs"])

    def reboot(self) -> None:
        """Finalise what is staged, and start it."""
        found = self.deployments
        for number, deployment in enumerate(found):
            deployment.update(booted=number == 0, staged=False)
        self._write(found[:2])
        self._finalize()

    def rpm_ostree(self, *arguments: str) -> str:
        """What rpm-ostree does and prints."""
        if arguments == ("status", "--json"):
            shown = [
                {name: value for name, value in item.items() if name != "kargs"} | {"id": _identity(item)}
                for item in self.deployments
            ]
            return json.dumps({"deployments": shown, "transaction": self.transaction, "cached-update": None})
        if self.transaction and arguments != ("kargs",):
            raise OstreeError(
                f"Transaction in progress: {self.transaction[0]}\n You can cancel the current transaction with "
                "`rpm-ostree cancel`"
            )
        if arguments == ("cleanup", "--pending"):
            booted = next(number for number, item in enumerate(self.deployments) if item["booted"])
            self._write(self.deployments[booted:])
            return ""
        assert arguments[0] == "kargs", arguments
        options = [argument.partition("=")[::2] for argument in arguments[1:]]
        assert all(name in ("--delete", "--append") and text for name, text in options), arguments
        kargs = Kargs(self.deployments[0]["kargs"])
        if not options:
            return f"{kargs} ostree=/ostree/boot.1/fcos/{self.deployments[0]['checksum']}/0\n"
        for name, text in options:
            if name == "--delete":
                kargs.delete(text)
        for name, text in options:
            if name == "--append":
                kargs.append(text)
        self._stage(self.deployments[0]["checksum"], self.deployments[0]["version"], str(kargs))
        return "Staging deployment... done\n"

    def _stage(self, checksum: str, version: str, kargs: str) -> None:
        kept = [item for item in self.deployments if not item["staged"]]
        made = _deployment(checksum, version, kargs, staged=True)
        made["serial"] = len([item for item in kept if item["checksum"] == checksum])
        self._write([made, *kept])

    def _write(self, found: list[dict[str, Any]]) -> None:
        temporary = self.path("/run/deployments")
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(found))
        self.path(DEPLOYMENTS).parent.mkdir(parents=True, exist_ok=True)
        os.replace(temporary, self.path(DEPLOYMENTS))

    def _finalize(self) -> None:
        found = self.deployments
        for name in self.host.list_dir(ENTRIES):
            self.path(f"{ENTRIES}/{name}").unlink()
        for number, item in enumerate(found):
            options = f"{item['kargs']} ostree=/ostree/boot.1/fcos/{item['checksum']}/0"
            self.write(
                f"{ENTRIES}/ostree-{len(found) - number}.conf",
                f"title Fedora CoreOS {item['version']} (ostree:{number})\nversion {len(found) - number}\n"
                f"options {options}\nlinux /ostree/fcos-{item['checksum']}/vmlinuz-6.12\n",
            )
            if item["booted"]:
                self.write("/proc/cmdline", f"BOOT_IMAGE=(hd0,gpt3)/ostree/vmlinuz-6.12 {options}\n")

    def _run(self, argv: Sequence[str], timeout: float, stdin: str | None) -> Completed:
        assert tuple(argv[:3]) == ("env", "LC_ALL=C.UTF-8", "rpm-ostree"), argv
        self.commands.append(tuple(argv[3:]))
        answer = self.intercept(argv[3:]) if self.intercept is not None else None
        if answer is not None:
            return answer
        try:
            return Completed(tuple(argv), 0, self.rpm_ostree(*argv[3:]), "")
        except OstreeError as error:
            return Completed(tuple(argv), 1, "", f"error: {error}\n")


def _split(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    return key, value if equals else None


def _identity(item: dict[str, Any]) -> str:
    return f"{item['osname']}-{item['checksum']}.{item['serial']}"


def _deployment(
    checksum: str, version: str, kargs: str, *, booted: bool = False, staged: bool = False
) -> dict[str, Any]:
    return {
        "osname": "fcos",
        "checksum": checksum,
        "serial": 0,
        "version": version,
        "kargs": kargs,
        "booted": booted,
        "staged": staged,
        "pinned": False,
    }
