# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module promises, held against what it does."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.domain_hostdevs import argument_spec, build
from ansible_collections.kvm.passthrough.plugins.module_utils._libvirt.revert import build_domains
from ansible_collections.kvm.passthrough.plugins.modules.domain_hostdevs import EXAMPLES
from ansible_collections.kvm.passthrough.tests.unit.support.query import documented_options, documented_spec


def test_every_option_is_documented_as_it_is() -> None:
    assert documented_spec(documented_options("domain_hostdevs")) == argument_spec()


@pytest.mark.parametrize("task", yaml.safe_load(EXAMPLES), ids=lambda task: str(task["name"]))
def test_examples_are_tasks_that_pass_the_first_check(task: dict[str, Any], tmp_path: Any) -> None:
    assert set(task) == {"name", "kvm.passthrough.domain_hostdevs", "become"}
    defaults = {name: option.get("default") for name, option in argument_spec().items()}
    given = {**defaults, **task["kvm.passthrough.domain_hostdevs"]}
    assert set(given) <= set(argument_spec())
    pytest.importorskip("lxml")
    if given["revert"]:
        build_domains(Host(str(tmp_path)), given)
        return
    # On a machine without devices, a removal goes through and everything else lacks its devices, and nothing more.
    build(Host(str(tmp_path)), {**given, "state": "absent"})
