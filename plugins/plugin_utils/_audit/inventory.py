# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is not as the inventory asks for it: the modules were asked in check mode what they would do about it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .devices import HOST_CODES
from .finding import DRIFT, ERROR, WARNING, Finding, device_moved
from .results import Answer, mappings, text_of


@dataclass(frozen=True)
class Variable:
    """What of the inventory a module is asked about."""

    name: str
    playbook: str
    """The playbook that does it."""
    kind: str | None = None
    """What each of its items is (``domain``), where it is a list of such."""

    def where(self, answer: Answer) -> str | None:
        """The item that an answer is about, as findings name it."""
        return f"{self.kind} {answer.about}" if self.kind and answer.about else None


INVENTORY: Mapping[str, Variable] = {
    "kernel_parameters": Variable("vfio_host_kernel_parameters or vfio_host_iommu_parameters", "host"),
    "selinux_booleans": Variable("vfio_host_selinux_booleans", "host"),
    "sriov_vfs": Variable("vfio_host_pfs", "host"),
    "vfio_devices": Variable("vfio_host_devices", "host"),
    "hostdev_network": Variable("vfio_guest_networks", "guest", "network"),
    "domain_hostdevs": Variable("vfio_guest_domains", "guest", "domain"),
}
"""By the module, in the order in which the roles do it."""

# What stands against a module only until the role vfio_host has made virtual functions and bound devices; those that
# the role vfio_guest does not take for an objection before.
WAITING_CODES = frozenset(
    {
        "device_not_bound",
        "device_not_found",
        "group_not_viable",
        "has_vfs",
        "index_out_of_range",
        "no_match",
        "pf_without_vfs",
        "vf_needed",
    }
)


def inventory_findings(
    inventory: Mapping[str, Sequence[Answer]], known: Collection[tuple[str, str | None, tuple[str, ...]]]
) -> Iterator[Finding]:
    """What there would be to do, or stands against it, so that the host and its guests are as the inventory says.

    :param inventory: what each module of :data:`INVENTORY` predicts in check mode
    :param known: code, place and devices of what was found otherwise; it is not told twice
    """
    given_up = {
        (answer.about, _hostdev(step))
        for answer in inventory.get("domain_hostdevs", ())
        for step in _steps(answer)
        if step.get("after") is None
    }
    made_ready = False
    for module, variable in INVENTORY.items():
        answers = inventory.get(module, ())
        for answer in answers:
            yield from _to_be_done(variable, answer)
            for item in mappings(answer.result.get("problems")) if not answer.answered else ():
                code = text_of(item.get("code")) or ""
                if code in HOST_CODES or (code, variable.where(answer), _device(item)) in known:
                    continue
                waits = (made_ready and code in WAITING_CODES) or (
                    # Another domain has it, and would lose it in the same run.
                    code == "device_in_other_domain"
                    and (text_of(item.get("domain")), text_of(item.get("device"))) in given_up
                )
                yield (_waiting if waits else _refused)(variable, answer, item)
        made_ready |= module in ("sriov_vfs", "vfio_devices") and any(map(_steps, answers))


def _steps(answer: Answer) -> Sequence[Mapping[str, Any]]:
    return mappings(answer.result.get("actions")) if answer.answered else []


def _to_be_done(variable: Variable, answer: Answer) -> Iterator[Finding]:
    steps = [text_of(step.get("description")) or "" for step in _steps(answer)]
    if steps:
        yield Finding(
            DRIFT,
            WARNING,
            "inventory_drift",
            f"{_unlike(variable, answer)} To be done: {'; '.join(steps)}.",
            f"Run kvm.passthrough.{variable.playbook} on this host.",
            variable.where(answer),
            tuple(dict.fromkeys(_changed(answer))),
        )
    for item in mappings(answer.result.get("stale")):
        found = text_of(item.get("found"))
        yield device_moved(text_of(item.get("address")) or "", text_of(item.get("ids")) or "", found)


def _changed(answer: Answer) -> Iterator[str]:
    """The devices that something would be done to."""
    for item in mappings(answer.result.get("devices")):
        address = text_of(item.get("address"))
        if address is not None and item.get("before") != item.get("after"):
            yield address
    yield from filter(None, map(_hostdev, _steps(answer)))


def _hostdev(step: Mapping[str, Any]) -> str | None:
    """The device in the target of an action of ``domain_hostdevs``: ``domain web01, hostdev 0000:01:10.0``."""
    return (text_of(step.get("target")) or "").partition(", hostdev ")[2] or None


def _refused(variable: Variable, answer: Answer, item: Mapping[str, Any]) -> Finding:
    """What the inventory asks for and the module would not do."""
    return Finding(
        DRIFT,
        ERROR,
        text_of(item.get("code")) or "",
        f"{variable.name} of the inventory cannot be had: {text_of(item.get('message')) or ''}",
        text_of(item.get("remedy")) or "",
        variable.where(answer),
        _device(item),
    )


def _waiting(variable: Variable, answer: Answer, item: Mapping[str, Any]) -> Finding:
    """What the module would do only after something else that is to be done, too."""
    return Finding(
        DRIFT,
        WARNING,
        "inventory_drift",
        f"{_unlike(variable, answer)} This waits for other changes that it asks for; until then: "
        f"{text_of(item.get('message')) or ''}",
        "Run kvm.passthrough.site on this host.",
        variable.where(answer),
        _device(item),
    )


def _unlike(variable: Variable, answer: Answer) -> str:
    return f"The {variable.where(answer) or 'host'} is not as {variable.name} of the inventory says."


def _device(item: Mapping[str, Any]) -> tuple[str, ...]:
    device = text_of(item.get("device"))
    return (device,) if device else ()
