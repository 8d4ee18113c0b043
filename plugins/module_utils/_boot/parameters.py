# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module kernel_parameters does, for whichever boot loader the host has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .._core.host import Host
from .._core.plan import Plan
from .cmdline import CommandLine, Request, running
from .detect import AUTO, LOADERS, detect
from .loader import ALL_KERNELS, BootLoader, BootPlan, Configuration, Detection, Observed


@dataclass(frozen=True)
class Observation:
    """The boot loader's settings and entries, and what the running kernel was started with."""

    boot: Observed
    running: CommandLine


class KernelParameters:
    """Set and remove kernel parameters; a :class:`~.._core.runner.Procedure`."""

    def __init__(self, host: Host, request: Request, detection: Detection, kernels: str = ALL_KERNELS) -> None:
        """:param kernels: one of :data:`~.loader.KERNELS`"""
        self._host = host
        self._request = request
        self._kernels = kernels
        self._detection = detection
        self._loader: BootLoader[Any] = LOADERS[detection.name](host)

    def observe(self) -> Observation:
        """Read the boot loader's configuration and /proc/cmdline."""
        return Observation(self._loader.observe(), running(self._host))

    def plan(self, observed: Observation) -> BootPlan:
        """The boot loader's own plan."""
        return self._loader.plan(observed.boot, self._request, self._kernels)

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        """The result fields; ``reboot_required`` compares what is wanted with what runs, changed or not."""
        before = observed.boot.configuration
        after = plan.predicted if isinstance(plan, BootPlan) else before
        return {
            "bootloader": {"name": self._detection.name, "evidence": list(self._detection.evidence)},
            "configured": {"before": _configured(before), "after": _configured(after)},
            "entries": {
                "before": [entry.as_result() for entry in before.entries],
                "after": [entry.as_result() for entry in after.entries],
            },
            "running": str(observed.running),
            "reboot_required": self._reboot_required(bool(self._request.unmet(observed.running))),
            **self._warnings(after),
        }

    def _reboot_required(self, lacking: bool) -> bool:
        """Whether a reboot would give the running kernel what it lacks; that of a container is its host's."""
        return lacking and self._detection.container is None

    def _warnings(self, configured: Configuration) -> dict[str, list[str]]:
        """What Ansible shows as warnings: a container, and entries written by hand that contradict the request."""
        found = []
        if self._detection.container is not None:
            found.append(
                f"This is a container ({self._detection.container}): the files of {self._loader.title} are changed in "
                "it, as the task says, and no kernel is ever started with them here."
            )
        for entry in configured.entries:
            keys = self._request.contradicted(entry.command_line) if entry.written_in else ()
            still = " ".join(parameter.text for key in keys for parameter in entry.command_line.named(key))
            if still:
                found.append(
                    f"The boot entry {entry.title!r} still has {still}: it does not come from the boot loader's "
                    f"settings, but was written by hand in {entry.written_in}. Change it there if this system is ever "
                    "to be booted with it."
                )
        return {"warnings": found} if found else {}


def build(
    host: Host,
    present: Sequence[str] = (),
    absent: Sequence[str] = (),
    bootloader: str = AUTO,
    kernels: str = ALL_KERNELS,
) -> KernelParameters:
    """Check what is asked for, find the boot loader, and make the procedure.

    :raises PassthroughError: for a bad parameter (all of them), or a host whose boot loader is not handled
    """
    request = Request.of(present, absent)
    return KernelParameters(host, request, detect(host, bootloader), kernels)


def configuration(host: Host) -> Configuration:
    """What this host is set to boot with, for modules that only ask.

    :raises PassthroughError: when its boot loader is not handled, or its files cannot be read
    """
    loader = LOADERS[detect(host).name](host)
    observed: Observed = loader.observe()
    return observed.configuration


def _configured(found: Configuration) -> dict[str, str]:
    return {"normal": str(found.normal), "recovery": str(found.recovery)}
