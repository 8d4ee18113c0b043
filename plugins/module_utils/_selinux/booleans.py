# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module ``selinux_booleans`` does: several booleans, now and for every boot, each in one transaction."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional

from .._core.errors import PassthroughError, Problem
from .._core.host import Host
from .._core.plan import Action, Forget, Plan
from .._core.state import Record, StateStore
from .libsemanage import LibsemanageStore
from .policy import Policy
from .setsebool import SetseboolStore, set_now
from .store import Store, Stored

FAIL, IGNORE = "fail", "ignore"

PERSISTENT_KIND = "selinux_boolean"
"""Records of what was set for every boot: the setting of this host, None for none."""
RUNTIME_KIND = "selinux_boolean_runtime"

# What libselinux takes for a name is any file name. These are all that policies use, and no option of setsebool.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_VALUES = {"on": True, "yes": True, "true": True, "1": True, "off": False, "no": False, "false": False, "0": False}

FindStore = Callable[[Host, Policy], Optional[Store]]


def find_store(host: Host, policy: Policy) -> Optional[Store]:
    """The way to the policy store of this host; None where there is no policy."""
    found: Optional[Store] = LibsemanageStore.find()
    if found is None and policy.enabled:
        found = SetseboolStore(host, policy.name)
    return found


@dataclass(frozen=True)
class Request:
    """What is asked for; see the options of the module."""

    booleans: Mapping[str, bool]
    runtime: bool = True
    persistent: bool = True
    missing: str = FAIL
    exclusive: bool = False

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Request:
        """Read the module's options.

        :raises PassthroughError: with every problem of every option
        """
        problems = []
        booleans = {}
        for name, value in params["booleans"].items():
            read = value if isinstance(value, bool) else _VALUES.get(str(value).strip().lower())
            if not _NAME.fullmatch(name):
                problems.append(
                    _problem(
                        "boolean_invalid",
                        f"booleans: {name!r} is no name of an SELinux boolean.",
                        "A name has letters, digits and underscores.",
                        name,
                    )
                )
            elif read is None:
                problems.append(
                    _problem(
                        "boolean_invalid",
                        f"booleans: {value!r}, for {name}, is neither on nor off.",
                        "Use true or false.",
                        name,
                    )
                )
            else:
                booleans[name] = read
        if not (params["runtime"] or params["persistent"]):
            problems.append(
                Problem(
                    "nothing_to_set",
                    "runtime and persistent are both false, so that there is nothing to set.",
                    "Leave at least one of them out.",
                    {"field": "persistent", "value": False},
                )
            )
        if problems:
            raise PassthroughError.of(problems)
        return cls(booleans, params["runtime"], params["persistent"], params["missing"], params["exclusive"])


@dataclass(frozen=True)
class Observation:
    """The booleans of a host at one moment."""

    policy: Policy
    store: Optional[Store]
    stored: Mapping[str, Stored]
    owned: Sequence[Record]
    """What this collection set."""

    @property
    def names(self) -> set[str]:
        """Every boolean of the policy, as far as it can be told."""
        return set(self.policy.runtime) or set(self.stored)

    def canonical(self, name: str) -> Optional[str]:
        """What a boolean is called in this policy; None when it has none of that name, nor of a later one."""
        names = self.names
        return next((each for each in (name, self.policy.renamed.get(name)) if each in names), None)

    def local(self, name: str) -> Optional[bool]:
        """What was set for a boolean on this host, for every boot."""
        return self.stored[name].local if name in self.stored else None

    def at_boot(self, name: str) -> Optional[bool]:
        """What a boolean is from the next boot on; None where that cannot be told."""
        return self.stored[name].value if name in self.stored else None


@dataclass(frozen=True)
class Intent:
    """What becomes of the booleans, by their names in the policy."""

    persistent: Mapping[str, Optional[bool]]
    """What is to be set for every boot; None: the setting of this host goes."""
    runtime: Mapping[str, bool]
    outlived: Sequence[Record]
    """What is as it was before this collection, so that nothing has to be given back."""
    warnings: Sequence[str]


def build(host: Host, params: Mapping[str, Any], find: FindStore = find_store) -> SelinuxBooleans:
    """Check the options of the module, all of them at once.

    :raises PassthroughError: ``boolean_invalid``, ``nothing_to_set``
    """
    return SelinuxBooleans(host, Request.from_params(params), find)


class SelinuxBooleans:
    """The procedure of the module; see :class:`_core.runner.Procedure`."""

    def __init__(self, host: Host, request: Request, find: FindStore) -> None:
        self._host = host
        self._request = request
        self._find = find

    def observe(self) -> Observation:
        """Read the policy, the store and the record.

        :raises PassthroughError: ``policy_store_failed``
        """
        policy = Policy.of(self._host)
        store = self._find(self._host, policy)
        records = StateStore(self._host)
        owned = [*records.all(PERSISTENT_KIND), *records.all(RUNTIME_KIND)]
        return Observation(policy, store, store.booleans() if store else {}, owned)

    def plan(self, observed: Observation) -> Plan:
        """At most two changes: for every boot, and for now.

        :raises PassthroughError: ``boolean_unknown``, ``boolean_contradictory``, ``persistent_needs_runtime``
        """
        intent = self._intent(observed)
        plan = Plan()
        for record in intent.outlived:
            plan.add(Forget(record.key, [(record.kind, record.key)], "that is over, and not through this collection"))
        store = observed.store
        if intent.persistent and store is not None:
            if store.sets_runtime and observed.policy.enabled and not self._request.runtime:
                raise PassthroughError(
                    "persistent_needs_runtime",
                    f"runtime is false, but {store.through} -P sets a boolean now, too, and nothing else is there.",
                    "Install the Python bindings of libsemanage (python3-semanage, Fedora and RHEL: "
                    "python3-libsemanage), or leave runtime out.",
                    field="runtime",
                    value=False,
                )
            plan.add(SetPersistent(store, observed, intent.persistent))
        covered = intent.persistent if store is not None and store.sets_runtime else {}
        now = {name: value for name, value in intent.runtime.items() if covered.get(name) is not value}
        if now:
            plan.add(SetRuntime(observed, now))
        return plan

    def report(self, observed: Observation, plan: Plan) -> dict[str, Any]:
        """The result fields of the module."""
        intent = self._intent(observed)
        policy = observed.policy
        listed: list[dict[str, Any]] = []
        for name in [*self._request.booleans, *sorted({*intent.persistent, *intent.runtime})]:
            boolean = observed.canonical(name)
            if any(boolean == item["boolean"] and boolean is not None for item in listed):
                continue
            listed.append({"name": name, "boolean": boolean, **_values(observed, intent, boolean)})
        return {
            "selinux": {
                "mode": policy.mode,
                "policy": policy.name if policy.enabled or observed.store else "",
                "through": observed.store.through if observed.store else None,
            },
            "booleans": listed,
            "warnings": list(intent.warnings),
        }

    def _intent(self, observed: Observation) -> Intent:
        if observed.store is None and not observed.policy.enabled:
            return Intent({}, {}, (), ())
        wanted, warnings = self._wanted(observed)
        persistent: dict[str, Optional[bool]] = {}
        runtime: dict[str, bool] = {}
        if self._request.persistent:
            persistent = {name: value for name, value in wanted.items() if observed.at_boot(name) is not value}
        if self._request.runtime and observed.policy.enabled:
            runtime = {name: value for name, value in wanted.items() if observed.policy.runtime.get(name) is not value}
        outlived: list[Record] = []
        if self._request.exclusive:
            for record in observed.owned:
                if record.key not in wanted:
                    warnings += _give_back(observed, record, persistent, runtime, outlived)
        return Intent(persistent, runtime, outlived, warnings)

    def _wanted(self, observed: Observation) -> tuple[dict[str, bool], list[str]]:
        """What is asked for, by the names of the policy, and what there is to say about it."""
        wanted: dict[str, bool] = {}
        problems: list[Problem] = []
        warnings: list[str] = []
        asked: dict[str, str] = {}
        for name, value in self._request.booleans.items():
            boolean = observed.canonical(name)
            if boolean is None:
                problem = _unknown(name, observed)
                if self._request.missing == IGNORE:
                    warnings.append(problem.message)
                else:
                    problems.append(problem)
            elif wanted.setdefault(boolean, value) is not value:
                problems.append(
                    _problem(
                        "boolean_contradictory",
                        f"booleans: {asked[boolean]} and {name} are the same boolean, {boolean}, and one is to be on "
                        "and the other off.",
                        f"Leave {name if name != boolean else asked[boolean]} out.",
                        name,
                    )
                )
            else:
                asked[boolean] = name
        if problems:
            raise PassthroughError.of(problems)
        return wanted, warnings


def _give_back(
    observed: Observation,
    record: Record,
    persistent: dict[str, Optional[bool]],
    runtime: dict[str, bool],
    outlived: list[Record],
) -> list[str]:
    """Add what brings back what was there before this collection; return what a person has to know."""
    name = record.key
    if record.kind == RUNTIME_KIND:
        present = observed.policy.runtime.get(name)
        # Another boot has its own values, and a boolean that is gone needs none.
        if present is None or present is record.before:
            outlived.append(record)
        else:
            runtime[name] = record.before
        return []
    if name not in observed.names:
        outlived.append(record)
        return [f"{name}, which this collection once set, is in no policy of this host any more."]
    present = observed.local(name)
    if present is record.before:
        outlived.append(record)
        return []
    if not record.explains(present):
        return [
            f"{name} was set to {_word(record.after)} for every boot, and somebody else changed it to "
            f"{_word(present)} since; it was left alone."
        ]
    persistent[name] = record.before
    return []


def _unknown(name: str, observed: Observation) -> Problem:
    """A boolean that the policy does not have."""
    policy = f"the SELinux policy {observed.policy.name!r}" if observed.policy.name else "the SELinux policy"
    similar = difflib.get_close_matches(name, sorted(observed.names), n=3)
    later = observed.policy.renamed.get(name)
    called = f" (nor {later}, which it was renamed to)" if later else ""
    remedy = f"Similar ones: {', '.join(similar)}." if similar else "getsebool -a lists those it has."
    if name.startswith("virt_") and not similar:
        remedy = "libvirt labels the devices of a guest itself, so passthrough may need none: leave it out."
    return _problem(
        "boolean_unknown",
        f"booleans: {policy} has no boolean {name}{called}.",
        f"{remedy} Or set missing to ignore.",
        name,
        similar=similar,
    )


def _problem(code: str, message: str, remedy: str, name: str, **details: Any) -> Problem:
    return Problem(code, message, remedy, {"field": "booleans", "boolean": name, **details})


def _values(observed: Observation, intent: Intent, boolean: Optional[str]) -> dict[str, Any]:
    """The two values of one boolean, before and after."""
    if boolean is None:
        nothing = {"before": None, "after": None}
        return {"runtime": nothing, "persistent": nothing}
    now = observed.policy.runtime.get(boolean)
    stored = observed.at_boot(boolean)
    later: Optional[bool] = stored
    if boolean in intent.persistent:
        later = intent.persistent[boolean]
    return {
        "runtime": {"before": now, "after": intent.runtime.get(boolean, now)},
        "persistent": {"before": stored, "after": later},
    }


def _word(value: Optional[bool]) -> str:
    return "the policy's own value" if value is None else "on" if value else "off"


def _shown(values: Mapping[str, Optional[bool]]) -> str:
    return ", ".join(f"{name} {_word(value)}" for name, value in values.items())


class SetPersistent(Action):
    """Set booleans for every boot, in one transaction."""

    target = "SELinux policy store"

    def __init__(self, store: Store, observed: Observation, settings: Mapping[str, Optional[bool]]) -> None:
        now = store.sets_runtime and observed.policy.enabled
        self.description = f"set SELinux booleans {'now and ' if now else ''}for every boot: {_shown(settings)}"
        self._store = store
        self._settings = settings
        self._former = {name: observed.local(name) for name in settings}
        self._runtime = {name: observed.policy.runtime[name] for name in settings} if now else {}
        self.before = {name: _word(observed.at_boot(name)) for name in settings}
        self.after = {name: _word(value) for name, value in settings.items()}

    def apply(self, host: Host) -> None:
        self._store.write(self._settings)

    def undo(self, host: Host) -> None:
        self._store.write(self._former)

    def records(self) -> Sequence[Record]:
        return [
            *_records(PERSISTENT_KIND, self._former, self._settings),
            *_records(RUNTIME_KIND, self._runtime, self._settings),
        ]


class SetRuntime(Action):
    """Set booleans until the next boot, in one transaction."""

    target = "SELinux booleans in force"

    def __init__(self, observed: Observation, values: Mapping[str, bool]) -> None:
        self.description = f"set SELinux booleans now: {_shown(values)}"
        self._values = values
        self._former = {name: observed.policy.runtime[name] for name in values}
        self.before = {name: _word(value) for name, value in self._former.items()}
        self.after = {name: _word(value) for name, value in values.items()}

    def apply(self, host: Host) -> None:
        set_now(host, self._values)

    def undo(self, host: Host) -> None:
        set_now(host, self._former)

    def records(self) -> Sequence[Record]:
        return _records(RUNTIME_KIND, self._former, self._values)


def _records(
    kind: str, former: Mapping[str, Optional[bool]], settings: Mapping[str, Optional[bool]]
) -> Sequence[Record]:
    return [Record(kind, name, former[name], settings[name]) for name in former]
