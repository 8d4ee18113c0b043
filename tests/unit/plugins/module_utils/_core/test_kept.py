# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from ansible_collections.kvm.passthrough.plugins.module_utils._core.kept import Kept


def test_what_is_kept_says_what_it_is() -> None:
    kept = Kept("The parameter x in A", ["x=1"], [], {"name": "x", "place": "A"})
    assert kept.as_result() == {
        "target": "The parameter x in A",
        "name": "x",
        "place": "A",
        "left": ["x=1"],
        "found": [],
    }
    assert kept.warning.startswith("The parameter x in A was changed by somebody else")
