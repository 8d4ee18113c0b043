# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.options import (
    refuse_options_beside_revert,
    time_limit_problems,
)


def test_what_says_nothing_may_stand_beside_revert() -> None:
    refuse_options_beside_revert({"revert": True, "force": ["x"], "pfs": None, "hostdevs": []}, ("revert", "force"))
    for given, verb in ({"b": [1], "a": False}, "have"), ({"a": 0}, "has"):
        with pytest.raises(PassthroughError) as caught:
            refuse_options_beside_revert({"revert": True, **given}, ("revert",))
        assert caught.value.code == "revert_excludes_options"
        assert caught.value.as_result()["options"] == sorted(given)
        assert f"{', '.join(sorted(given))} {verb} no meaning" in str(caught.value)


def test_a_time_limit_is_a_second_or_more() -> None:
    assert not list(time_limit_problems(1))
    for seconds in (0, -1):
        (problem,) = time_limit_problems(seconds)
        assert (problem.code, problem.details["value"]) == ("timeout_invalid", seconds)
