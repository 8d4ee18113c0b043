# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of kernel_parameters on a host with any boot loader: those that succeed, are refused, or fail on the way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from ansible_collections.kvm.passthrough.plugins.module_utils._boot.parameters import build
from ansible_collections.kvm.passthrough.plugins.module_utils._boot.revert import build_any
from ansible_collections.kvm.passthrough.plugins.module_utils._core.errors import PassthroughError
from ansible_collections.kvm.passthrough.plugins.module_utils._core.host import Host
from ansible_collections.kvm.passthrough.plugins.module_utils._core.runner import execute
from ansible_collections.kvm.passthrough.plugins.module_utils._core.state import StateStore

from .tree import tree_listing


class BootHost(Protocol):
    """A host in a directory tree."""

    @property
    def root(self) -> Path:
        """The directory."""

    @property
    def host(self) -> Host:
        """The host, with the programs of its boot loader."""


def run(
    on: BootHost,
    present: Sequence[str] = (),
    absent: Sequence[str] = (),
    *,
    check: bool = False,
    bootloader: str = "auto",
    kernels: str = "all",
) -> dict[str, Any]:
    """The result of the module."""
    procedure = build(on.host, present, absent, bootloader, kernels)
    return execute(on.host, procedure, module="kernel_parameters", check_mode=check)


def revert(on: BootHost, *, check: bool = False, bootloader: str = "auto") -> dict[str, Any]:
    """The result of the module with its option revert."""
    params = {"present": [], "absent": [], "bootloader": bootloader, "kernels": "all", "revert": True}
    return execute(on.host, build_any(on.host, params), module="kernel_parameters", check_mode=check, lock_timeout=0)


def is_remembered(on: BootHost) -> bool:
    """Whether there is something to take back."""
    return bool(StateStore(on.host).all("kernel_parameter"))


def refused(on: BootHost, code: str, *arguments: Any, **options: Any) -> PassthroughError:
    """The error of a check and of a run, which both fail with this code and change nothing at all."""
    before = tree_listing(on.root)
    for check in (True, False):
        with pytest.raises(PassthroughError) as caught:
            run(on, *arguments, check=check, **options)
        assert caught.value.code == code
        assert tree_listing(on.root) == before
    return caught.value


def failed(on: BootHost, code: str, *arguments: Any) -> PassthroughError:
    """The error of a run that fails with this code, after it has undone everything."""
    before = tree_listing(on.root)
    with pytest.raises(PassthroughError) as caught:
        run(on, *arguments)
    assert caught.value.code == code
    assert not caught.value.extra["not_undone"]
    assert tree_listing(on.root) == before
    assert not is_remembered(on)
    return caught.value
