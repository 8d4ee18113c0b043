# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is to become of each PCI device of the host in a definition, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Optional

from .._pci.address import PciAddress
from .change import hostdev_text
from .definition import Definition, PciHostdev
from .hostdev import Hostdev, changed_to, unlike
from .rules.context import Subject

PRESENT = "present"
ABSENT = "absent"
EXACT = "exact"


@dataclass(frozen=True)
class Wanted:
    """One device of the request, and what is asked of its hostdev."""

    where: str
    hostdev: Hostdev


@dataclass(frozen=True)
class Target:
    """A device's hostdev as it is and as it shall be; None: none."""

    source: PciAddress
    present: Optional[PciHostdev]
    final: Optional[Hostdev]
    changes: bool
    wanted: Optional[Wanted] = None

    @property
    def rank(self) -> int:
        """Those that leave more zPCI ids to libvirt are written later: it makes up what is missing one by one."""
        return 0 if self.final is None else self.final.zpci_ids_missing

    @property
    def text(self) -> str | None:
        """The element as it shall be."""
        return None if self.final is None else hostdev_text(self.final, self.present)


@dataclass(frozen=True)
class Step:
    """A device's hostdev goes from ``before`` to ``after``, each the text of an element or None for none."""

    source: PciAddress
    before: Optional[str]
    after: Optional[str]
    final: Optional[Hostdev]
    """What ``after`` says."""


def targets_of(definition: Definition, requested: Sequence[Wanted], state: str) -> list[Target]:
    """Every PCI hostdev of the definition, as it is and as it shall be, in the order of the devices' addresses."""
    wanted = {one.hostdev.source: one for one in requested}
    exact = state == EXACT
    targets = []
    for source in sorted({*wanted, *(one.source for one in definition.hostdevs)}):
        present = definition.hostdev(source)
        request = wanted.get(source)
        if state == ABSENT or request is None:
            gone = exact or request is not None
            final = None if gone or present is None else present.value
            targets.append(Target(source, present, final, changes=gone and present is not None))
            continue
        value = None if present is None else present.value
        final = changed_to(request.hostdev, value, exact=exact)
        changes = value is None or bool(unlike(request.hostdev, value, exact=exact))
        targets.append(Target(source, present, final, changes, request))
    return _with_multifunction(targets, definition)


def subjects_of(targets: Sequence[Target]) -> list[Subject]:
    """What the rules look at: the hostdevs as they shall be."""
    return [
        Subject(
            target.final,
            None if target.wanted is None else target.wanted.where,
            None if target.wanted is None else target.wanted.hostdev,
        )
        for target in targets
        if target.final is not None
    ]


def steps_of(targets: Sequence[Target]) -> list[Step]:
    """First what goes, then what changes, then what comes: what asks for zPCI ids before what leaves them to libvirt,
    and function 0 of a guest slot before the others.

    A hostdev that is to have what another one still has (a guest address, an alias, …) is taken out at the beginning
    and put back at the end. What the guest does not get comes first and goes last: libvirt takes it off the host's
    driver meanwhile, so that the IOMMU group of the others is whole as long as a guest that runs has them.
    """
    changes = [target for target in targets if target.changes]
    removed = [target for target in changes if target.final is None]
    added = [target for target in changes if target.present is None]
    replaced = [target for target in changes if target.final is not None and target.present is not None]
    crossing = [target for target in replaced if _crosses(target, replaced)]
    straight = [target for target in replaced if target not in crossing]
    leaving = sorted([*removed, *crossing], key=_withheld)
    return [
        *(_step(target, goes_only=True) for target in leaving),
        *(_step(target) for target in _ordered(straight)),
        *(_step(target, comes_only=True) for target in _ordered([*crossing, *added])),
    ]


def _step(target: Target, *, goes_only: bool = False, comes_only: bool = False) -> Step:
    before = None if comes_only or target.present is None else target.present.text
    final = None if goes_only else target.final
    return Step(target.source, before, None if final is None else target.text, final)


def _with_multifunction(targets: Sequence[Target], definition: Definition) -> list[Target]:
    """The targets, with ``multifunction`` set in function 0 of each guest slot that has other functions too."""
    addresses = [target.final.guest_address for target in targets if target.final is not None]
    addresses += [occupant.guest_address for occupant in definition.occupants]
    functions = Counter(address.with_function(0) for address in addresses if address is not None)
    return [
        replace(target, final=replace(target.final, multifunction=True))
        if target.final is not None
        and target.changes
        and target.final.multifunction is None
        and target.final.guest_address is not None
        and target.final.guest_address.function == 0
        and functions[target.final.guest_address] > 1
        else target
        for target in targets
    ]


# What no two devices of a guest may have at the same time.
_EXCLUSIVE = ("guest_address", "boot_order", "alias", "acpi_index", "zpci_uid", "zpci_fid", "mac")


def _crosses(target: Target, others: Sequence[Target]) -> bool:
    """Whether the hostdev is to have what another one has now, or has now what another one is to have."""
    for other in others:
        if other is target or target.present is None or other.present is None:
            continue
        for name in _EXCLUSIVE:
            takes = getattr(target.final, name)
            gives = getattr(target.present.value, name)
            if takes is not None and takes == getattr(other.present.value, name):
                return True
            if gives is not None and gives == getattr(other.final, name):
                return True
    return False


def _withheld(target: Target) -> bool:
    return target.present is not None and target.present.value.assigned is False


def _ordered(targets: Sequence[Target]) -> list[Target]:
    def place(target: Target) -> tuple[int, bool, int]:
        if target.final is None:
            return 0, False, 0
        address = target.final.guest_address
        function = 0 if address is None else address.function
        return target.rank, target.final.assigned is not False, function

    return sorted(targets, key=lambda target: (place(target), target.source))
