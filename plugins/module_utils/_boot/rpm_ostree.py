# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""rpm-ostree: Fedora CoreOS, Silverblue and IoT, RHEL for Edge, and image mode (bootc) where rpm-ostree is installed.

A deployment has its kernel parameters for itself, and the next one inherits them. ``rpm-ostree kargs`` makes a new
deployment from the one that would be booted next, with all changes at once: the booted one, or one that somebody
(an update, say) has already made and that waits. That one's content is kept, only its parameters change. The new one
is staged: its boot entry is made at the shutdown, and until then the host boots what it booted before.

What rpm-ostree and libostree do with arguments (rpmostreed-transaction-types.cxx, ostree-kernel-args.c):

* All ``--delete`` are done first, then all ``--append``. A ``--delete`` of what is not there fails, and then nothing
  is changed. ``--append-if-missing`` and ``--delete-if-present`` look at the name only, so they are of no use here.
* The name ends at the first ``=``, and ``-`` and ``_`` are two characters: each spelling is deleted as it stands.
* Older versions split arguments at every space, in quotes, too, so that such a value cannot be deleted again; newer
  ones have crashed on them at the next upgrade (ostreedev/ostree, issues 3228 and 3544). They are refused.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from .._core.errors import PassthroughError
from .._core.host import Host
from .._core.plan import Action
from .._core.state import Record
from . import ostree
from .cmdline import CommandLine, Parameter, Request
from .loader import (
    ALL_KERNELS,
    BootPlan,
    Configuration,
    Entry,
    check_length,
    records_of,
    refuse_default_kernel,
    spellings,
)

NAME = "rpm-ostree"
PROGRAM = "rpm-ostree"
PLACE = "rpm-ostree kargs"
# Staging checks out a whole system; looking has to start the daemon at most.
TIMEOUT = 1200.0
LOOK_TIMEOUT = 120.0
# GLib converts what it prints and reads by the locale, and in "C" that is ASCII.
COMMAND = ("env", "LC_ALL=C.UTF-8", PROGRAM)
# rpmostreed_sysroot_prep_for_txn() in rpmostreed-sysroot.cxx
BUSY = "Transaction in progress"


@dataclass(frozen=True)
class Seen:
    """The deployment that is booted next, and the boot entries of all on disk."""

    kargs: CommandLine
    deployment: str
    """The identity of the one that is booted next."""
    version: str
    is_booted: bool
    """Whether it is the running one: then nothing waits."""
    is_staged: bool
    on_disk: tuple[Entry, ...] = ()
    transaction: str = ""
    """What rpm-ostree is doing just now; empty when it is idle."""

    @property
    def configuration(self) -> Configuration:
        """What is booted next, and what else can be."""
        if self.is_staged:
            found = (self._staged(), *self.on_disk)
        else:
            found = (*(replace(e, generated=True) for e in self.on_disk[:1]), *self.on_disk[1:])
        return Configuration(self.kargs, CommandLine(), found)

    def places(self, key: str) -> dict[str, list[str]]:
        """The one place there is, when it has a name."""
        return spellings({PLACE: self.kargs}, key)

    def with_kargs(self, kargs: CommandLine) -> Seen:
        """The same with a staged deployment that has these parameters."""
        return replace(self, kargs=kargs, is_booted=False, is_staged=True)

    def _staged(self) -> Entry:
        return Entry(f"staged deployment of {self.version}", "", self.kargs, recovery=False, generated=True)


class RpmOstree:
    """rpm-ostree; a :class:`~.loader.BootLoader`."""

    name = NAME
    title = "rpm-ostree"
    drives = ostree.DRIVEN

    def __init__(self, host: Host) -> None:
        self._host = host

    def evidence(self) -> list[str]:
        """The mark of a system that was started from a deployment, and the program."""
        return ostree.present(self._host, ostree.BOOTED) if self._host.which(PROGRAM) else []

    def missing(self) -> list[str]:
        """What changing parameters needs."""
        missing = [] if self._host.exists(ostree.BOOTED) else [ostree.BOOTED]
        return missing + ([] if self._host.which(PROGRAM) else [PROGRAM])

    def doubt(self) -> str:
        """Why it is not proved."""
        return f"{ostree.BOOTED} or {PROGRAM} is not there"

    def observe(self) -> Seen:
        """Ask rpm-ostree for the deployments and for the parameters of the one that is booted next.

        :raises PassthroughError: ``deployments_not_understood``, ``command_failed``
        """
        return observe(self._host)

    def plan(self, seen: Seen, request: Request, kernels: str = ALL_KERNELS) -> BootPlan:
        """One transaction with everything that has to change.

        :raises PassthroughError: ``kernels_default_unsupported``, ``invalid_parameter``, ``value_not_representable``,
            ``command_line_too_long``, ``transaction_in_progress``
        """
        refuse_default_kernel(kernels, self.title, "parameters belong to a deployment, and the next one inherits them")
        ostree.refuse_own_parameter(request)
        change = Change.of(request.at(PLACE), seen.kargs)
        if change.is_empty:
            return BootPlan(predicted=seen.configuration)
        change.require_representable(seen.kargs)
        kargs = change.apply(seen.kargs)
        check_length("the next deployment", seen.kargs, kargs, put_before=f"{ostree.OWN_PARAMETER}={'x' * 160} ")
        _refuse_while_busy(seen)
        plan = BootPlan(predicted=seen.with_kargs(kargs).configuration)
        plan.add(ChangeKargs(seen, change, kargs, request))
        return plan


@dataclass(frozen=True)
class Change:
    """What one ``rpm-ostree kargs`` does."""

    deleted: tuple[Parameter, ...]
    appended: tuple[Parameter, ...]

    @classmethod
    def of(cls, request: Request, kargs: CommandLine) -> Change:
        """What meets a request: of a name that is not as wanted, all values go, and the wanted ones are appended."""
        deleted: list[Parameter] = []
        appended: list[Parameter] = []
        for key in request.unmet(kargs):
            wanted = request.wanted(key)
            deleted += [p for p in kargs.named(key) if wanted or request.is_unwanted(p)]
            appended += wanted
        return cls(tuple(deleted), tuple(appended))

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not self.deleted and not self.appended

    @property
    def options(self) -> list[str]:
        """The options for ``rpm-ostree kargs``."""
        return [f"--delete={p.text}" for p in self.deleted] + [f"--append={p.text}" for p in self.appended]

    def apply(self, kargs: CommandLine) -> CommandLine:
        """What rpm-ostree makes of ``kargs``."""
        kept = list(kargs.parameters)
        for parameter in self.deleted:
            kept.remove(parameter)
        return replace(kargs, parameters=(*kept, *self.appended))

    def require_representable(self, kargs: CommandLine) -> None:
        """Fail for what cannot be handed to rpm-ostree as one argument.

        :raises PassthroughError: ``value_not_representable``
        """
        reason = ""
        spaced = [p.text for p in (*self.deleted, *self.appended) if any(c.isspace() for c in p.text)]
        if spaced:
            reason = f"OSTree splits {', '.join(spaced)} at the spaces in spite of the quotes, or crashes later"
        elif self.appended and kargs.init_arguments:
            reason = "the parameters end with --, after which everything is for init, and new ones are put at the end"
        if reason:
            raise PassthroughError(
                "value_not_representable",
                f"rpm-ostree kargs cannot make this change: {reason}.",
                "Make this one change with rpm-ostree kargs --editor.",
            )


class ChangeKargs(Action):
    """Let rpm-ostree stage a deployment with other parameters.

    Undone as it was made, by the parameters, so that a deployment somebody else made meanwhile, or before, is kept.
    Only a deployment that is still exactly the one this action made, when nothing waited before, is thrown away.
    """

    target = "the next deployment"

    def __init__(self, seen: Seen, change: Change, kargs: CommandLine, request: Request) -> None:
        self.description = f"stage a deployment by rpm-ostree kargs {' '.join(change.options)}"
        self.before = str(seen.kargs)
        self.after = str(kargs)
        self._seen = seen
        self._change = change
        self._kargs = kargs
        self._request = request
        self._made = ""

    def apply(self, host: Host) -> None:
        now = observe(host)
        _refuse_while_busy(now)
        if now.kargs != self._seen.kargs or now.deployment != self._seen.deployment:
            raise PassthroughError(
                "deployment_changed_meanwhile",
                f"{now.deployment} with {str(now.kargs)!r} is to be booted next, and no longer "
                f"{self._seen.deployment} with {self.before!r}: somebody else made it while this module was planning.",
                "Run the module again when the other change is complete.",
            )
        try:
            _run(host, "kargs", *self._change.options)
        except PassthroughError:
            with contextlib.suppress(PassthroughError):  # the first error is the one to tell
                self.partial = observe(host).kargs != self._seen.kargs
            raise
        self.partial = True
        self._made = observe(host).deployment

    def undo(self, host: Host) -> None:
        now = observe(host)
        _refuse_while_busy(now)
        if self._seen.is_booted and self._made == now.deployment and now.kargs == self._kargs:
            _run(host, "cleanup", "--pending")
            return
        back = self._inverse(now.kargs)
        if not back.is_empty:
            _run(host, "kargs", *back.options)

    def records(self) -> Sequence[Record]:
        return records_of(NAME, self._request, self._seen, self._seen.with_kargs(self._kargs))

    def _inverse(self, now: CommandLine) -> Change:
        """What brings the former values of each name back that still has those this action gave it."""
        deleted: list[Parameter] = []
        appended: list[Parameter] = []
        for key in self._request.keys:
            former, made = self._seen.kargs.named(key), self._kargs.named(key)
            if former != made and now.named(key) == made:
                deleted += made
                appended += former
        return Change(tuple(deleted), tuple(appended))


def observe(host: Host) -> Seen:
    """The deployment that is booted next: the first one of the operating system that runs.

    :raises PassthroughError: ``deployments_not_understood``, ``command_failed``
    """
    printed = _run(host, "status", "--json")
    try:
        status = json.loads(printed)
        found = status["deployments"]
        booted = next(deployment for deployment in found if deployment["booted"])
        following = next(deployment for deployment in found if deployment["osname"] == booted["osname"])
        identity, version = str(following["id"]), str(following.get("version") or following["checksum"][:12])
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise PassthroughError(
            "deployments_not_understood",
            f"rpm-ostree status --json does not say which deployment is booted: {printed[-500:]!r}.",
            "Look at what rpm-ostree status says; a live system (installer) has no deployment that could be changed.",
        ) from error
    return Seen(
        kargs=ostree.without_path(CommandLine.parse(_run(host, "kargs"))),
        deployment=identity,
        version=version,
        is_booted=following is booted,
        is_staged=bool(following.get("staged")),
        on_disk=tuple(ostree.boot_entries(host)),
        transaction=_transaction(status.get("transaction")),
    )


def _transaction(told: Any) -> str:
    """What rpm-ostree is doing, in words: its status gives the method, the client and a D-Bus path, or null."""
    return " ".join(str(part) for part in told if part) if isinstance(told, list) else str(told or "")


def _run(host: Host, *arguments: str) -> str:
    """What rpm-ostree prints.

    :raises PassthroughError: ``transaction_in_progress``, ``command_failed``, ``command_timeout``
    """
    timeout = LOOK_TIMEOUT if arguments in (("status", "--json"), ("kargs",)) else TIMEOUT
    try:
        return host.run([*COMMAND, *arguments], timeout=timeout).stdout
    except PassthroughError as error:
        if error.code == "command_failed" and BUSY in str(error):
            raise _busy(str(error)) from error
        raise


def _refuse_while_busy(seen: Seen) -> None:
    if seen.transaction:
        raise _busy(f"rpm-ostree status says {seen.transaction!r}")


def _busy(what: str) -> PassthroughError:
    return PassthroughError(
        "transaction_in_progress",
        f"rpm-ostree is busy with another transaction: {what}.",
        "Wait until rpm-ostree status says State: idle (an automatic update may take minutes), and run the module "
        "again.",
    )
