# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of vfio_devices, as a test runs it on a fake kernel."""

from __future__ import annotations

from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._vfio.devices import build

from .kernel import FakeKernel
from .tree import tree_hash

DEFAULTS: dict[str, Any] = {
    "state": "bound",
    "driver": "auto",
    "exclusive": False,
    "group": "require",
    "persistent": True,
    "force": [],
    "timeout": 5,
    "options": None,
}
OWN = ("run", "var")
"""The folders of the lock and of the record of changes, which stay."""


def run(kernel: FakeKernel, *devices: Any, check: bool = False, **options: Any) -> dict[str, Any]:
    """The result of the module."""
    params = {**DEFAULTS, "devices": list(devices), **options}
    return execute(kernel, build(kernel, params), module="vfio_devices", check_mode=check)


def quadruple(kernel: FakeKernel, *devices: Any, **options: Any) -> dict[str, Any]:
    """check, run, check, run: the check predicts the run and writes nothing; the second run changes nothing."""
    before = tree_hash(kernel.root)
    predicted = run(kernel, *devices, check=True, **options)
    assert tree_hash(kernel.root) == before
    done = run(kernel, *devices, **options)
    assert done == predicted
    after = tree_hash(kernel.root)
    for check in (True, False):
        again = run(kernel, *devices, check=check, **options)
        assert not again["changed"]
        assert again["actions"] == []
        assert tree_hash(kernel.root) == after
    return done
