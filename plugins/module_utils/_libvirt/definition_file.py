# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A domain's definition in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Optional

from .._core import files
from .._core.errors import PassthroughError
from .._core.files import FileState
from .._core.host import Host
from .._core.plan import Action, WriteFile
from .._core.state import Record
from .._pci.address import PciAddress
from .change import records_of
from .definition import Definition
from .document import spliced

Change = tuple[Optional[str], Optional[str]]
"""An element before and after; None: none."""

_KEY = "file:"


def record_key(path: str, source: PciAddress) -> str:
    """The key of the record of a hostdev in a file."""
    return f"{_KEY}{path} {source}"


def path_of(key: str) -> str | None:
    """The file that the key of a hostdev's record is about; None when it is about a domain of libvirt."""
    return key[len(_KEY) :].rpartition(" ")[0] if key.startswith(_KEY) else None


class DefinitionFile:
    """The file as it is now."""

    def __init__(self, host: Host, path: str) -> None:
        """Read it.

        :raises PassthroughError: ``file_not_found``, ``file_unreadable``, ``not_a_regular_file``,
            ``domain_xml_invalid``
        """
        self.path = path
        self._state = files.observe(host, path)
        if self._state.content is None:
            raise PassthroughError(
                "file_not_found",
                f"{path} does not exist, so there is no definition to be changed.",
                "Write it first (virsh dumpxml --inactive --security-info, or a template).",
                path=path,
            )
        try:
            self._text = self._state.content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PassthroughError(
                "domain_xml_invalid",
                f"{path} is not in UTF-8: {error}.",
                "Save it in UTF-8; virsh reads no other.",
                path=path,
            ) from error
        try:
            spliced(self._text, {})
            self.definition = Definition(self._text)
        except PassthroughError as error:
            raise PassthroughError(
                error.code, f"{path}: {error.problems[0].message}", error.problems[0].remedy, path=path
            ) from error

    def edit(self, changes: Mapping[PciAddress, Change]) -> EditFile:
        """The action that makes these changes, in one step."""
        text = spliced(self._text, {source: after for source, (_unused, after) in changes.items()})
        state = self._state
        wanted = FileState(text.encode("utf-8"), state.mode, state.uid, state.gid)
        return EditFile(self.path, state, wanted, changes)


class EditFile(WriteFile):
    """Change the PCI devices of the host in a definition. Shown and remembered are they alone, since the rest of a
    definition may have passwords in it."""

    def __init__(self, path: str, observed: FileState, wanted: FileState, changes: Mapping[PciAddress, Change]) -> None:
        said = [f"{_verb(change)} {source}" for source, change in changes.items()]
        records: list[Record] = []
        for source, (before, after) in changes.items():
            records += records_of(record_key(path, source), before, after)
        super().__init__(path, observed, wanted, description=f"{', '.join(said)} in {path}", records=records)
        self.before = _joined([before for before, _unused in changes.values()])
        self.after = _joined([after for _unused, after in changes.values()])

    def diff(self) -> dict[str, str]:
        return Action.diff(self)  # not the text, as for other files


def _verb(change: Change) -> str:
    return "add" if change[0] is None else "remove" if change[1] is None else "change"


def _joined(texts: Sequence[str | None]) -> str | None:
    return "\n".join(text for text in texts if text is not None) or None
