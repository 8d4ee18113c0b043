# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take back what kernel_parameters did on a host, by its records: exactly that, and nothing that came later.

Of each name, each place of the settings (see :class:`~.loader.BootLoader`) gets what it had before the first change of
ours, where it still has what the last one left. What somebody else has changed since is theirs: it stays, and is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.kept import Kept
from .._core.options import refuse_options_beside_revert
from .._core.plan import Plan
from .._core.state import Record, StateStore
from .cmdline import RUNNING_PATH, Request, Restoration
from .detect import detect
from .loader import ALL_KERNELS, RECORD_KIND, BootPlan, Detection, Observed
from .parameters import KernelParameters, Observation, build

Places = Mapping[str, Sequence[str]]


class RevertParameters(KernelParameters):
    """Give each name back what it had before; a :class:`~.._core.runner.Procedure`."""

    def __init__(self, host: Host, records: Sequence[Record], detection: Detection) -> None:
        """:param records: all of the kind ``kernel_parameter``. Those of a boot loader that this host no longer boots
        with are left alone: its settings are not in use
        """
        super().__init__(host, Request(), detection)
        self._records = [record for record in records if _loader_of(record) == detection.name]
        self._others = [record for record in records if _loader_of(record) != detection.name]

    def plan(self, observed: Observation) -> BootPlan:
        """The boot loader's own plan for what is to be given back.

        :raises PassthroughError: as the boot loader's plan for a request of an operator
        """
        restoration, _unused = restoration_of(self._records, observed.boot)
        plan = BootPlan(predicted=observed.boot.configuration)
        if restoration.keys:
            plan = self._loader.plan(observed.boot, restoration)
        # Also when nothing is left to do: an earlier run may have been killed just before it dropped them.
        plan.returned += [(record.kind, record.key) for record in self._records]
        return plan

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        """The result fields of kernel_parameters, and more; the running kernel is compared with what will be.

        ``kept`` is what somebody else changed after us. ``diverged`` are names that somebody else had changed between
        two changes of ours: they get what was there before the first one, and what was in between is lost.
        """
        restoration, kept = restoration_of(self._records, observed.boot)
        result = super().report(observed, plan)
        after = plan.predicted.normal if isinstance(plan, BootPlan) else observed.boot.configuration.normal
        warnings = [*result.get("warnings", ()), *(item.warning for item in kept)]
        for name in sorted({_loader_of(record) for record in self._others}):
            keys = ", ".join(record.key for record in self._others if _loader_of(record) == name)
            warnings.append(
                f"This collection also changed {keys} in the settings of {name}, with which this host does not boot "
                "now. That is left as it is; a revert takes it back when the host boots with it again."
            )
        return {
            **result,
            **({"warnings": warnings} if warnings else {}),
            "reboot_required": self._reboot_required(bool(restoration.differing(observed.running, after))),
            "kept": [item.as_result() for item in kept],
            "diverged": [record.key for record in self._records if record.diverged],
        }


class NothingToRevert:
    """A host on which nothing was ever done, and whose boot loader is not handled; a
    :class:`~.._core.runner.Procedure`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def observe(self) -> str:
        """The running kernel's command line."""
        return self._host.attribute(RUNNING_PATH) or ""

    def plan(self, observed: str) -> Plan:
        """Nothing."""
        return Plan()

    def report(self, observed: str, plan: Plan) -> dict[str, Any]:
        """The result fields of kernel_parameters, as far as there is something to say."""
        unknown = dict.fromkeys(("bootloader", "configured", "entries"))
        return {**unknown, "running": observed, "reboot_required": False, "kept": [], "diverged": []}


def build_any(host: Host, params: Mapping[str, Any]) -> KernelParameters | NothingToRevert:
    """Make the procedure that the options of the module kernel_parameters ask for.

    :raises PassthroughError: ``revert_excludes_options``, or as :func:`~.parameters.build`; as :func:`~.detect.detect`
        for a host on which something was done
    """
    kernels = params["kernels"]
    if not params["revert"]:
        return build(host, params["present"], params["absent"], params["bootloader"], kernels)
    asked = {**params, "kernels": None if kernels == ALL_KERNELS else kernels}
    refuse_options_beside_revert(asked, ("revert", "bootloader"))
    records = StateStore(host).all(RECORD_KIND)
    try:
        return RevertParameters(host, records, detect(host, params["bootloader"]))
    except PassthroughError:
        if records:
            raise  # else it is one that is not handled, so that nothing can have been done there
        return NothingToRevert(host)


def _loader_of(record: Record) -> str:
    """The name of the boot loader a record is about."""
    return str((record.restore or {}).get("bootloader", ""))


def restoration_of(records: Sequence[Record], seen: Observed) -> tuple[Restoration, list[Kept]]:
    """What brings everything back as far as nobody else has changed it, and what somebody else has.

    After a crash a place may have what any of the unfinished changes left, so none of that is somebody else's.
    """
    wanted: dict[str, dict[str, Sequence[str]]] = {}
    kept: list[Kept] = []
    for record in records:
        now: Places = seen.places(record.key)
        ours: list[Places] = [record.after, *record.pending]
        for place in sorted({place for state in (record.before, *ours) for place in state}):
            found = list(now.get(place, ()))
            before = list(record.before.get(place, ()))
            if found in (before, *(list(state.get(place, ())) for state in ours)):
                wanted.setdefault(place, {})[record.key] = before
            else:
                left = list(record.after.get(place, ()))
                what = {"name": record.key, "place": place}
                kept.append(Kept(f"The kernel parameter {record.key} in {place}", left, found, what))
    return Restoration.of_places(wanted), kept
