# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""bootc without rpm-ostree: the kernel parameters are part of the container image, and are not changed here.

bootc takes them from ``/usr/lib/bootc/kargs.d/*.toml`` of the image: at an upgrade it appends what the new image has
more, and removes what it has no longer (bootc-dev.github.io/bootc/building/kernel-arguments.html). There is no such
directory in /etc. A host that has what is wanted is fine; another one is told what belongs into its image.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .._core.errors import PassthroughError
from .._core.host import Host
from . import ostree, rpm_ostree
from .cmdline import CommandLine, Request
from .loader import ALL_KERNELS, BootPlan, Configuration, Entry, refuse_default_kernel

NAME = "bootc"
PROGRAM = "bootc"
KARGS = "/usr/lib/bootc/kargs.d"
OURS = f"{KARGS}/50-kvm-passthrough.toml"


@dataclass(frozen=True)
class Seen:
    """The boot entries of the deployments on disk."""

    on_disk: tuple[Entry, ...]

    @property
    def configuration(self) -> Configuration:
        """What the default deployment has, and all entries."""
        line = self.on_disk[0].command_line if self.on_disk else CommandLine()
        return Configuration(line, CommandLine(), self.on_disk)

    def places(self, _key: str) -> dict[str, list[str]]:
        """None: nothing is ever changed, and so there are no records."""
        return {}


class Bootc:
    """bootc on OSTree, without rpm-ostree; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = "bootc"
    drives = ostree.DRIVEN

    def __init__(self, host: Host) -> None:
        self._host = host

    def evidence(self) -> list[str]:
        """The mark of a system that was started from a deployment, with bootc, and without rpm-ostree."""
        if self._host.which(rpm_ostree.PROGRAM) or not self._host.which(PROGRAM):
            return []
        return ostree.present(self._host, ostree.BOOTED)

    def missing(self) -> list[str]:
        """What looking at the boot entries needs."""
        missing = [path for path in (ostree.BOOTED, ostree.ENTRIES) if not self._host.exists(path)]
        return missing + ([] if self._host.which(PROGRAM) else [PROGRAM])

    def doubt(self) -> str:
        """Why it is not proved."""
        return f"{ostree.BOOTED} or {PROGRAM} is not there, or {rpm_ostree.PROGRAM} is, which then does it"

    def observe(self) -> Seen:
        """Read the boot entries.

        :raises PassthroughError: ``boot_entries_missing``, ``file_unreadable``
        """
        found = tuple(ostree.boot_entries(self._host))
        if not found:
            raise PassthroughError(
                "boot_entries_missing",
                f"{ostree.ENTRIES} has no entry of an OSTree deployment.",
                "Is /boot mounted? A system installed with bootc's composefs backend is not handled by this release.",
                path=ostree.ENTRIES,
            )
        return Seen(found)

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """An empty plan for a host that has what is wanted.

        :raises PassthroughError: ``parameters_belong_to_image`` for any other, ``kernels_default_unsupported``,
            ``invalid_parameter``
        """
        refuse_default_kernel(kernels, self.title, "parameters belong to the image, and its next version has them, too")
        ostree.refuse_own_parameter(request)
        line = seen.configuration.normal
        unmet = request.unmet(line)
        if not unmet:
            return BootPlan(predicted=seen.configuration)
        wanted = [p.text for key in unmet for p in request.wanted(key)]
        unwanted = [p.text for key in unmet for p in line.named(key) if request.wanted(key) or request.is_unwanted(p)]
        steps = []
        if unwanted:
            steps.append(" ".join(self._removal(text) for text in unwanted))
        if wanted:
            steps.append(f"Put into {OURS} of the image: {snippet(wanted)}")
        staged = (
            " An update is staged already; if it brings them, reboot."
            if self._host.exists(ostree.STAGED)
            else " Build the image, run bootc upgrade, and reboot."
        )
        raise PassthroughError(
            "parameters_belong_to_image",
            "This host runs a bootc image and has no rpm-ostree: kernel parameters are part of its image, and this "
            f"module does not change them. It is set to boot with {str(line)!r}.",
            " ".join(steps) + staged,
            path=OURS,
            toml=snippet(wanted) if wanted else "",
            remove=unwanted,
        )

    def _removal(self, text: str) -> str:
        """Where a parameter has to be taken away."""
        quoted = (json.dumps(text, ensure_ascii=False), f"'{text}'")
        files = [f"{KARGS}/{name}" for name in self._host.list_dir(KARGS) if name.endswith(".toml")]
        named = [path for path in files if any(form in self._host.read_text(path) for form in quoted)]
        if named:
            return f"Remove {text} from {' and '.join(named)} of the image."
        return (
            f"{text} is not from {KARGS}, but was set on this host (bootc install --karg, say), and an image cannot "
            "remove it; an image with rpm-ostree installed lets this module do it."
        )


def snippet(texts: list[str]) -> str:
    """The line of a file in kargs.d that adds parameters. A JSON string is a basic string of TOML."""
    return f"kargs = [{', '.join(json.dumps(text, ensure_ascii=False) for text in texts)}]"
