# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a module is going to do, as a value: an ordered list of actions that can be shown, applied and undone."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable

from . import files
from .errors import PassthroughError
from .files import FileState
from .host import Host
from .state import FILE_KIND, Record


class Action(ABC):
    """One step of a plan. ``before`` and ``after`` are JSON values that may be shown to anybody."""

    description: str
    """What is done, in words, with the name of the thing: ``bind 0000:01:10.0 to vfio-pci``."""
    target: str
    """What is changed: a path, a PCI address, a domain."""
    before: Any
    after: Any
    regenerates: bool = False
    """True for a step that derives files from others (``update-initramfs``): on failure it is undone last, when
    what it derives from has been restored."""
    partial: bool = False
    """Set by an :meth:`apply` that may leave something of the change although it fails (``update-grub`` that ended
    half-way): the runner then undoes this action too."""

    @abstractmethod
    def apply(self, host: Host) -> None:
        """Make the change. On failure nothing of it may be left, unless ``partial`` says so.

        :raises PassthroughError: when it cannot be made
        """

    @abstractmethod
    def undo(self, host: Host) -> None:
        """Bring ``before`` back, after a successful or ``partial`` :meth:`apply` of this object.

        :raises PassthroughError: when it cannot be brought back
        """

    def records(self) -> Sequence[Record]:
        """What is to be remembered of this change, for revert. ``module`` and ``time`` are filled in by the runner.

        Asked before :meth:`apply`, and again when all actions are done: ``after`` may then say more exactly what is
        there.
        """
        return ()

    def forgets(self) -> Sequence[tuple[str, str]]:
        """Kind and key of the records that are dropped with this step, before it is applied."""
        return ()

    def diff(self) -> dict[str, str]:
        """What Ansible shows for this step with ``--diff``."""
        return {
            "before_header": self.target,
            "after_header": self.target,
            "before": _lines(self.before),
            "after": _lines(self.after),
        }

    def as_result(self) -> dict[str, Any]:
        """The step in a module's ``actions``."""
        return {"description": self.description, "target": self.target, "before": self.before, "after": self.after}


def _lines(value: Any) -> str:
    if value is None or value == []:
        return ""
    if isinstance(value, dict):
        return "".join(f"{name}: {value[name]}\n" for name in sorted(value))
    if isinstance(value, (list, tuple)):
        return "".join(f"{item}\n" for item in value)
    return f"{value}\n"


@dataclass
class Plan:
    """Actions in the order in which they are applied. An empty plan means that everything is as wanted."""

    actions: list[Action] = field(default_factory=list)
    returned: list[tuple[str, str]] = field(default_factory=list)
    """Kind and key of what the plan gives back: when all is done, nothing of ours is left in it, and its record goes,
    whatever somebody else has made of it meanwhile."""

    def add(self, action: Action) -> None:
        """Append one action."""
        self.actions.append(action)

    def extend(self, actions: Iterable[Action]) -> None:
        """Append several actions."""
        self.actions.extend(actions)

    def sweep(self, leftovers: Iterable[str]) -> None:
        """Append the removal of what killed runs left beside these files; one that is written loses it anyway."""
        written = self.targets
        self.extend(RemoveLeftovers(path) for path in leftovers if path not in written)

    @property
    def targets(self) -> set[str]:
        """What is changed."""
        return {action.target for action in self.actions}

    @property
    def changed(self) -> bool:
        """Whether applying the plan changes the host."""
        return bool(self.actions)

    def as_result(self) -> list[dict[str, Any]]:
        """The plan in a module's result: the same value for a check and for a run."""
        return [action.as_result() for action in self.actions]

    def diff(self) -> list[dict[str, str]]:
        """The plan as Ansible's ``--diff`` shows it."""
        return [action.diff() for action in self.actions]


class WriteFile(Action):
    """Replace, make or (``wanted.content`` None) remove a file that was observed before.

    ``before`` and ``after`` in the result say only whether the file is there; the diff shows the text.
    """

    def __init__(
        self,
        path: str,
        observed: FileState,
        wanted: FileState,
        *,
        description: str = "",
        validate: Callable[[str], None] | None = None,
        records: Sequence[Record] | None = None,
    ) -> None:
        """:param observed: what :func:`files.observe` returned; when the file is different by the time it is
            written, somebody else changes it at the same time, and nothing is written
        :param validate: see :func:`files.put`
        :param records: what to remember instead of the whole former file (for a file that others edit too)
        """
        verb = "remove" if wanted.content is None else "write" if observed.content is None else "change"
        self.description = description or f"{verb} {path}"
        self.target = path
        self.before = None if observed.content is None else "present"
        self.after = None if wanted.content is None else "present" if observed.content is None else "changed"
        self._observed = observed
        self._wanted = wanted
        self._validate = validate
        self._records = records
        self._made_directories: list[str] = []

    def apply(self, host: Host) -> None:
        if files.observe(host, self.target) != self._observed:
            raise PassthroughError(
                "file_changed_meanwhile",
                f"{self.target} was changed by somebody else while this module was planning; it was left alone.",
                "Run the module again when the other change is complete.",
                path=self.target,
            )
        missing = files.missing_directories(host, self.target)
        try:
            self._made_directories = files.put(host, self.target, self._wanted, self._validate)
        except BaseException:
            with contextlib.suppress(PassthroughError):  # the first error is the one to tell
                if files.observe(host, self.target) != self._observed:
                    files.put(host, self.target, self._observed)
                    files.remove_directories(host, missing)
            raise

    def undo(self, host: Host) -> None:
        files.put(host, self.target, self._observed)
        files.remove_directories(host, self._made_directories)

    def records(self) -> Sequence[Record]:
        if self._records is not None:
            return self._records
        return (
            Record(
                FILE_KIND,
                self.target,
                self._observed.fingerprint(),
                self._wanted.fingerprint(),
                restore=self._observed.to_json(),
            ),
        )

    def diff(self) -> dict[str, str]:
        return {
            "before_header": self.target,
            "after_header": self.target,
            "before": (self._observed.content or b"").decode("utf-8", "replace"),
            "after": (self._wanted.content or b"").decode("utf-8", "replace"),
        }


class RemoveLeftovers(Action):
    """Remove what a killed run left beside a file that is as wanted, so that nobody writes it again."""

    before = "present"
    after = None

    def __init__(self, path: str) -> None:
        self.description = f"remove the temporary file that a killed run left beside {path}"
        self.target = path

    def apply(self, host: Host) -> None:
        files.remove_leftovers(host, self.target)

    def undo(self, host: Host) -> None:
        """Nothing: it was of no use to anybody."""


class Forget(Action):
    """Drop records that say nothing true any more: a thing is gone, or somebody else took it back."""

    before = "remembered"
    after = None

    def __init__(self, target: str, names: Iterable[tuple[str, str]], why: str) -> None:
        """:param names: kind and key of the records"""
        self.description = f"forget what {target} had: {why}"
        self.target = target
        self._names = tuple(names)

    def apply(self, host: Host) -> None:
        """Nothing: the runner drops the records."""

    def undo(self, host: Host) -> None:
        """Nothing: the runner puts them back."""

    def forgets(self) -> Sequence[tuple[str, str]]:
        return self._names


class RunCommand(Action):
    """Run a command of the distribution that derives files from others, again after an undo."""

    regenerates = True

    def __init__(
        self,
        argv: Sequence[str],
        *,
        target: str,
        description: str = "",
        timeout: float = 600.0,
        check: Callable[[Host], None] | None = None,
    ) -> None:
        """:param check: looks at what the command made and raises :class:`PassthroughError` when it is not right"""
        self.description = description or f"run {' '.join(argv)}"
        self.target = target
        self.before = "stale"
        self.after = "regenerated"
        self._argv = list(argv)
        self._timeout = timeout
        self._check = check

    def apply(self, host: Host) -> None:
        try:
            host.run(self._argv, timeout=self._timeout)
        except PassthroughError as error:
            self.partial = error.code not in ("command_missing", "command_not_started")
            raise
        self.partial = True
        if self._check is not None:
            self._check(host)

    def undo(self, host: Host) -> None:
        host.run(self._argv, timeout=self._timeout)
