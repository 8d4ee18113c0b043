# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take back what sriov_vfs did on a host, by its records: numbers of VFs, their settings, and the next boot.

A PF gets the number of VFs that it had before the first change of ours, and its VFs the settings they had, where it
still has what the last change left. What somebody else has changed since is theirs: it stays, and is told. Nothing of
ours is left for the next boot in any case.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from .._core.host import Host
from .._core.kept import Kept
from .._core.options import refuse_options_beside_revert
from .._core.plan import Action, Plan
from .._core.state import Record, StateStore
from .._pci.address import PciAddress
from .._pci.device import Bus, PciDevice
from .._pci.selector import Selector
from .actions import PF_KIND, VF_KIND, PfState, Resize
from .channel import read_settings, write_settings
from .request import PfRequest, Request
from .settings import VfSettings
from .virtual_functions import Observation, PfTransition, SriovVfs


@dataclass
class Past:
    """What is remembered of one PF."""

    pf: Record | None
    settings: dict[tuple[int, str], Record]


class RevertSriovVfs(SriovVfs):
    """Give each PF back what it had before; a :class:`~.._core.runner.Procedure`."""

    def __init__(self, host: Host, force: frozenset[str], timeout: float) -> None:
        super().__init__(host, Request((), persistent=False, force=force, timeout=timeout))
        self._kept: list[Kept] = []
        self._gone: list[str] = []

    def observe(self) -> Observation:
        """Read the records and the host. No PF has VFs at the next boot because of us.

        :raises PassthroughError: as :meth:`SriovVfs.observe`; ``state_unreadable``
        """
        self._kept, self._gone = [], []
        bus = Bus(self._host)
        asked = []
        for key, past in _remembered(StateStore(self._host)).items():
            address, ids = key.split()
            device = bus.device(PciAddress.parse(address)) if PciAddress.parse(address) in bus else None
            if device is None or device.ids != ids:
                self._gone.append(f"{address} ({ids})")
            else:
                asked.append(self._request_for(device, past))
        self._request = replace(self._request, pfs=tuple(asked))
        return replace(super().observe(), persistent=())

    def _request_for(self, device: PciDevice, past: Past) -> PfRequest:
        now = PfState.of(device)
        wanted, settings = now, {}
        if past.pf is not None:
            before = PfState.from_json(past.pf.before)
            if past.pf.explains(now.to_json()) or now.count == before.count:
                wanted = before
            else:
                self._kept.append(
                    Kept(f"The number of virtual functions of {device.address}", past.pf.after, now.to_json())
                )
            if wanted == before and before.count != past.pf.after["count"]:
                # Those that were there vanished, and the ones made for them have their driver's settings.
                settings = {int(index): dict(found) for index, found in (past.pf.restore or {}).get("vfs", {}).items()}
        if wanted.count:
            present = read_settings(self._host, device.address) if now.count == wanted.count else None
            for (index, name), record in past.settings.items():
                if record.before is None or index >= wanted.count:
                    continue
                found = None if present is None else getattr(present.get(index, VfSettings()), name)
                if present is None or record.explains(found):
                    settings.setdefault(index, {})[name] = record.before
                else:
                    self._kept.append(Kept(f"The {name} of VF {index} of {device.address}", record.after, found))
            for index, found_there in (present or {}).items():
                # Of all that a driver told once, there may be things that it cannot set.
                differing = VfSettings(**settings.get(index, {})).beyond(found_there)
                settings[index] = differing.to_json()
        selector = Selector("revert", address=device.address)
        vfs = {index: VfSettings(**found) for index, found in sorted(settings.items())}
        return PfRequest(selector, "revert", wanted.count, wanted.drivers_autoprobe, vfs)

    def _resize(self, transition: PfTransition, observed: Observation, kind: type[Resize] = Resize) -> Resize:
        return super()._resize(transition, observed, Remake)

    def _settings(self, transition: PfTransition, store: StateStore) -> Iterator[Action]:
        return iter(()) if transition.resizes else super()._settings(transition, store)

    def plan(self, observed: Observation) -> Plan:
        """What gives everything back; all records are dropped when it is done.

        :raises PassthroughError: as :meth:`SriovVfs.plan`
        """
        plan = super().plan(observed)
        # Also when nothing is left to do: an earlier run may have been killed just before it dropped them.
        plan.returned += [
            (record.kind, record.key) for kind in (PF_KIND, VF_KIND) for record in observed.store.all(kind)
        ]
        plan.returned += [(record.kind, record.key) for action in plan.actions for record in action.records()]
        return plan

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        """The result fields of sriov_vfs, and ``kept``."""
        result = super().report(observed, plan)
        warnings = [*result.get("warnings", ()), *(item.warning for item in self._kept)]
        if self._gone:
            warnings.append(
                f"{', '.join(self._gone)} had virtual functions of this collection, and is not there any more."
            )
        result["kept"] = [item.as_result() for item in self._kept]
        return {**result, "warnings": warnings} if warnings else result


class Remake(Resize):
    """Bring a PF back to the number of VFs it had, and those VFs to the settings they had.

    What a VF has when it is made is known only then, and a driver tells settings that it cannot set, so that only what
    differs is set.
    """

    def apply(self, host: Host) -> None:
        super().apply(host)
        if not any(settings.to_json() for settings in self._settings.values()):
            return
        address = self._device.address
        present = read_settings(host, address)
        for index, settings in self._settings.items():
            write_settings(host, address, index, settings.beyond(present.get(index, VfSettings())))


def _remembered(store: StateStore) -> dict[str, Past]:
    """What is remembered, by address and ids of the PF."""
    found: dict[str, Past] = {record.key: Past(record, {}) for record in store.all(PF_KIND)}
    for record in store.all(VF_KIND):
        address, ids, _vf, index, name = record.key.split()
        found.setdefault(f"{address} {ids}", Past(None, {})).settings[int(index), name] = record
    return dict(sorted(found.items()))


def build_any(host: Host, params: Mapping[str, Any]) -> SriovVfs:
    """Make the procedure that the options of the module sriov_vfs ask for.

    :raises PassthroughError: with every problem of the options
    """
    if not params["revert"]:
        return SriovVfs(host, Request.from_params(dict(params)))
    refuse_options_beside_revert(params, ("revert", "persistent", "force", "timeout"))
    return RevertSriovVfs(host, frozenset(params["force"]), float(params["timeout"]))
