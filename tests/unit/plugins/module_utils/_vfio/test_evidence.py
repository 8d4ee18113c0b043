# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.evidence import EvidenceMissing, evidence


class Source:
    """Two pieces of evidence, of which one is missing, and how often they were looked for."""

    def __init__(self) -> None:
        self.looked = 0

    @evidence
    def there(self) -> list[int]:
        """What is there."""
        self.looked += 1
        return []

    @evidence
    def missing(self) -> int:
        self.looked += 1
        raise EvidenceMissing("no such command")


def test_evidence_is_looked_for_once() -> None:
    source, other = Source(), Source()
    assert source.there is source.there
    assert (source.looked, other.looked) == (1, 0)
    assert Source.__dict__["there"].__doc__ == "What is there."


def test_missing_evidence_is_looked_for_once_and_stays_missing() -> None:
    source = Source()
    for _time in range(3):
        with pytest.raises(EvidenceMissing, match="no such command") as caught:
            source.missing  # noqa: B018
    assert source.looked == 1
    assert len(caught.traceback) < 4
    assert source.there == []
