# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole of sriov_vfs, as a test runs it on a fake kernel."""

from __future__ import annotations

from typing import Any

from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._sriov.revert import build_any

from .kernel import FakeKernel
from .machine import PF

DEFAULTS: dict[str, Any] = {"pfs": None, "revert": False, "persistent": True, "force": [], "timeout": 5}


def asked(pf: Any = PF, count: int = 4, vfs: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """An entry of the option pfs."""
    return {"pf": pf, "count": count, "vfs": vfs or [], **more}


def run(kernel: FakeKernel, *pfs: dict[str, Any], check: bool = False, **options: Any) -> dict[str, Any]:
    """The result of the module."""
    params = {**DEFAULTS, "pfs": list(pfs), **options}
    return execute(kernel, build_any(kernel, params), module="sriov_vfs", check_mode=check)


def revert(kernel: FakeKernel, check: bool = False, **options: Any) -> dict[str, Any]:
    """The result of the module with its option revert."""
    params = {**DEFAULTS, "revert": True, **options}
    return execute(kernel, build_any(kernel, params), module="sriov_vfs", check_mode=check)
