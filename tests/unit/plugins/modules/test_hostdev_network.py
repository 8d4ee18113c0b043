# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module promises, held against what it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.hostdev_network import argument_spec, build
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.revert import build_networks
from ansible_collections.kvm.passthrough.plugins.modules.hostdev_network import EXAMPLES
from ansible_collections.kvm.passthrough.tests.unit.support.query import documented_options, documented_spec


def test_every_option_is_documented_as_it_is() -> None:
    assert documented_spec(documented_options("hostdev_network")) == argument_spec()


@pytest.mark.parametrize("task", yaml.safe_load(EXAMPLES), ids=lambda task: str(task["name"]))
def test_examples_are_tasks_that_pass_the_first_check(task: dict[str, Any], tmp_path: Path) -> None:
    assert set(task) == {"name", "kvm.passthrough.hostdev_network", "become"}
    spec = argument_spec()
    given = task["kvm.passthrough.hostdev_network"]
    assert set(given) <= set(spec)
    defaults = {name: option.get("default") for name, option in spec.items()}
    if given.get("revert"):
        build_networks(Host(str(tmp_path)), {**defaults, **given})
        return
    # On a machine without devices, a removal goes through and everything else lacks its devices, and nothing more.
    build(Host(str(tmp_path)), {**defaults, **given, "state": "absent"})
    if given.get("state") != "absent":
        with pytest.raises(PassthroughError) as caught:
            build(Host(str(tmp_path)), {**defaults, **given})
        assert [problem.code for problem in caught.value.problems] == ["no_match"]
