# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about how the host uses its devices rests on evidence, and evidence can be out of reach."""

from __future__ import annotations

from typing import Any, Callable, Generic, TypeVar

from .._core.host import Host

_Value = TypeVar("_Value")

# include/linux/proc_ns.h, PROC_PID_INIT_INO: the one PID namespace that has all processes.
_ALL_PROCESSES = "pid:[4026531836]"


class EvidenceMissing(Exception):
    """What decides a question cannot be read here (no permission, a missing program).

    It is no error of its own: whoever asked decides what not knowing means. A guard refuses, a report says "unknown".
    """


class evidence(Generic[_Value]):
    """A property that is read once, like ``cached_property``, and that is missing once and for all, too.

    Where evidence is missing, it is missing for thousands of devices, and each would run the command again.
    """

    def __init__(self, read: Callable[[Any], _Value]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._kept = f"_evidence{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> _Value:
        kept = instance.__dict__.get(self._kept)
        if kept is None:
            try:
                kept = (self._read(instance), None)
            except EvidenceMissing as error:
                kept = (None, error)
            instance.__dict__[self._kept] = kept
        value, missing = kept
        if missing is not None:
            raise missing.with_traceback(None)
        found: _Value = value
        return found


def demand_all_processes(host: Host) -> None:
    """Processes, and with them mounts and open files, are all of the host's; in a container they are its own only.

    :raises EvidenceMissing: in a container
    """
    if host.link_target("/proc/self/ns/pid") not in (None, _ALL_PROCESSES):
        raise EvidenceMissing("this run is in a container, which does not show what the host does outside of it")


def demand_the_hosts_network(host: Host) -> None:
    """Interfaces are the host's; another network namespace does not even show them below their PCI devices.

    :raises EvidenceMissing: in a container, or in another network namespace than the first process
    """
    demand_all_processes(host)
    own, first = (host.link_target(f"/proc/{process}/ns/net") for process in ("self", "1"))
    if own is not None and first is not None and own != first:
        raise EvidenceMissing("this run is in a network namespace of its own, which does not show the host's network")
