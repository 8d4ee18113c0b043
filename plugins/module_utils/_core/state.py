# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of what this collection changed on a host, with what was there before.

``/var/lib/kvm-passthrough/state.json`` holds one record per changed thing. A record is written before the
change it describes, so that a host that loses power in between still knows what was there; a change that
never happened is recognised by comparing the thing itself with ``before`` and ``after``.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from . import files
from .errors import PassthroughError
from .host import Host

STATE_PATH = "/var/lib/kvm-passthrough/state.json"
VERSION = 1
FILE_KIND = "file"
"""Records of whole files; their states are fingerprints."""


@dataclass(frozen=True)
class Record:
    """One thing this collection changed.

    ``kind`` and ``key`` name it (``file`` and a path, ``driver`` and a PCI address, …). ``before`` is what was
    there before the first change of ours, ``after`` what our last change left; both are JSON values that
    compare equal exactly when the thing is in the same state. ``restore`` is whatever more is needed to bring
    ``before`` back.
    """

    kind: str
    key: str
    before: Any
    after: Any
    restore: Any = None
    module: str = ""
    time: str = ""
    diverged: bool = False
    """Somebody else changed the thing between two changes of ours: ``before`` can no longer be restored as a whole."""
    pending: list[Any] = field(default_factory=list)
    """What earlier changes of ours left, as long as the last one is not known to be complete: after a crash the thing
    may be in any of these states, and none of them is somebody else's."""

    def explains(self, value: Any) -> bool:
        """Whether ``value``, the state of the thing, is one that this collection found or left."""
        return value in (self.before, self.after, *self.pending)

    def to_json(self) -> dict[str, Any]:
        """The record as JSON values, without the fields that say nothing."""
        known = {item.name: getattr(self, item.name) for item in fields(self)}
        empty = [name for name in _OPTIONAL if known[name] is None or known[name] is False or known[name] in ("", [])]
        return {name: value for name, value in known.items() if name not in empty}


_OPTIONAL = ("restore", "module", "time", "diverged", "pending")


class StateStore:
    """The records of one host. Reads at once, writes at every change; the caller holds the lock while it writes."""

    def __init__(self, host: Host, path: str = STATE_PATH) -> None:
        """Read the records.

        :raises PassthroughError: ``state_unreadable`` when the file is there but is not a record of this collection
        """
        self._host = host
        self._path = path
        self._records: dict[tuple[str, str], Record] = {}
        self._noted: set[tuple[str, str]] = set()
        found = files.observe(host, path)
        if found.content is None:
            return
        try:
            data = json.loads(found.content)
            if data["version"] != VERSION:
                raise ValueError(f"version {data['version']!r}, this release knows version {VERSION}")
            for item in data["records"]:
                record = Record(**item)
                self._records[(record.kind, record.key)] = record
        except (ValueError, KeyError, TypeError) as error:
            raise PassthroughError(
                "state_unreadable",
                f"{path} is not a record this release can read ({error}).",
                "It says what to undo, so it is not overwritten: restore it from a backup, or move it aside.",
                path=path,
            ) from error

    def get(self, kind: str, key: str) -> Record | None:
        """The record of one thing, or None when this collection does not own it."""
        return self._records.get((kind, key))

    def all(self, kind: str) -> list[Record]:
        """Every record of a kind, sorted by key."""
        return sorted((record for record in self._records.values() if record.kind == kind), key=lambda item: item.key)

    def note(self, record: Record) -> Record | None:
        """Write down a change that is about to be made; return the earlier record of it, for :meth:`put_back`.

        The ``before`` of the first change is kept: it is what revert restores.
        """
        name = (record.kind, record.key)
        earlier = self._records.get(name)
        if earlier is not None:
            record = replace(
                record,
                before=earlier.before,
                restore=earlier.restore,
                diverged=earlier.diverged or not earlier.explains(record.before),
                pending=[*earlier.pending, earlier.after],
            )
        self._save({**self._records, name: record})
        self._noted.add(name)
        return earlier

    def put_back(self, kind: str, key: str, earlier: Record | None) -> None:
        """Undo :meth:`note`, after its change was undone, or :meth:`forget`."""
        records = {name: record for name, record in self._records.items() if name != (kind, key)}
        if earlier is not None:
            records[(kind, key)] = earlier
        self._save(records)

    def forget(self, kind: str, key: str) -> Record | None:
        """Drop a record that says nothing true any more; return it, for :meth:`put_back`."""
        earlier = self._records.get((kind, key))
        if earlier is not None:
            self.put_back(kind, key, None)
        return earlier

    def settle(self, complete: Iterable[Record] = (), returned: Iterable[tuple[str, str]] = ()) -> None:
        """All changes noted here are complete: drop the records of things that are again as they were before ours.

        Where an earlier run was killed, its record stays as it is: nobody knows yet how far it came.

        :param complete: the records as the actions give them now: their ``after`` is what was really left, where that
            could not be known before (libvirt chooses a guest address)
        :param returned: kind and key of what was given back, whose records go in any case
        """
        left = {(record.kind, record.key): record.after for record in complete}
        records = dict(self._records)
        for name in self._noted & set(records):
            record = replace(records[name], pending=[], after=left.get(name, records[name].after))
            records[name] = record
            if record.before == record.after and not record.diverged:
                del records[name]
        for name in returned:
            records.pop(name, None)
        if records != self._records:
            self._save(records)

    def sweep(self) -> None:
        """Drop the records of files that are as they were before ours: a run that was killed may have left them.

        :raises PassthroughError: ``file_unreadable``, ``file_unwritable``
        """
        records = {
            name: record
            for name, record in self._records.items()
            if record.kind != FILE_KIND
            or record.diverged
            or files.observe(self._host, record.key).fingerprint() != record.before
        }
        if records != self._records:
            self._save(records)

    def _save(self, records: dict[tuple[str, str], Record]) -> None:
        """Write the records; what this object knows is what the file says, also when it cannot be written."""
        try:
            self._write(records)
        except BaseException:
            with contextlib.suppress(PassthroughError):  # the new file may be in place, when only the last flush failed
                self._write(self._records)
            raise
        self._records = records

    def _write(self, records: dict[tuple[str, str], Record]) -> None:
        state = files.FileState(None)
        if records:
            listed = [record.to_json() for _unused, record in sorted(records.items(), key=lambda item: item[0])]
            text = json.dumps({"version": VERSION, "records": listed}, indent=1, sort_keys=True) + "\n"
            state = files.FileState(text.encode(), mode=0o600)
        files.put(self._host, self._path, state)
        if not records:
            files.remove_directories(self._host, [os.path.dirname(self._path)])
