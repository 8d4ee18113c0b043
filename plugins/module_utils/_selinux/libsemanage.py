# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy store through libsemanage. The only code that knows its bindings."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from .._core.errors import PassthroughError
from .store import Stored

try:
    import semanage
except ImportError:
    semanage = None

PYTHON_MODULE = "semanage"


class LibsemanageStore:
    """One transaction for all booleans; the running policy is left as it is."""

    through = "libsemanage"
    sets_runtime = False

    @classmethod
    def find(cls) -> Optional[LibsemanageStore]:
        """The store of this host, or None without the bindings or without a policy to manage."""
        if semanage is None:
            return None
        try:
            with _connection():
                return cls()
        except PassthroughError:
            return None

    def booleans(self) -> Mapping[str, Stored]:
        with _connection() as handle:
            found = {}
            for boolean in _checked(semanage.semanage_bool_list(handle), "list the booleans"):
                name = semanage.semanage_bool_get_name(boolean)
                found[name] = Stored(bool(semanage.semanage_bool_get_value(boolean)), None)
            for boolean in _checked(semanage.semanage_bool_list_local(handle), "list the booleans set here"):
                name = semanage.semanage_bool_get_name(boolean)
                found[name] = Stored(found[name].value if name in found else None, _value(boolean))
            return found

    def write(self, settings: Mapping[str, Optional[bool]]) -> None:
        with _connection() as handle:
            # Without it, a commit loads the policy anew; that is work, and nothing of it is wanted here.
            semanage.semanage_set_reload(handle, 0)
            _checked(semanage.semanage_begin_transaction(handle), "begin a transaction")
            for name, value in settings.items():
                key = _checked(semanage.semanage_bool_key_create(handle, name), f"name {name}")
                if value is None:
                    _checked(semanage.semanage_bool_del_local(handle, key), f"take {name} away")
                    continue
                boolean = _checked(semanage.semanage_bool_query(handle, key), f"read {name}")
                semanage.semanage_bool_set_value(boolean, int(value))
                _checked(semanage.semanage_bool_modify_local(handle, key, boolean), f"set {name}")
            _checked(semanage.semanage_commit(handle), "commit the transaction")


def _value(boolean: Any) -> bool:
    return bool(semanage.semanage_bool_get_value(boolean))


@contextlib.contextmanager
def _connection() -> Iterator[Any]:
    """A handle that is connected to the store, what libsemanage prints put into the error.

    :raises PassthroughError: ``policy_store_failed``
    """
    with tempfile.TemporaryFile() as printed:
        try:
            with _standard_error_to(printed.fileno()):
                handle = semanage.semanage_handle_create()
                try:
                    if semanage.semanage_is_managed(handle) != 1:
                        raise _Failed("manage the policy")
                    _checked(semanage.semanage_connect(handle), "connect")
                    try:
                        yield handle
                    finally:
                        semanage.semanage_disconnect(handle)
                finally:
                    semanage.semanage_handle_destroy(handle)
        except (_Failed, OSError) as error:
            printed.seek(0)
            said = " ".join(printed.read().decode("utf-8", "replace").split())[-1000:]
            raise PassthroughError(
                "policy_store_failed",
                f"libsemanage could not {error}: {said or 'it does not say why'}.",
                "See whether /var/lib/selinux and /etc/selinux are writable and have space left, and whether "
                "'semodule --list' works.",
            ) from error


class _Failed(Exception):
    """What could not be done, after "libsemanage could not"."""


def _checked(answer: Any, doing: str) -> Any:
    """What a function of libsemanage gives: its status is checked, and what stands beside it is returned."""
    status, *values = answer if isinstance(answer, (list, tuple)) else [answer]
    if status < 0:
        raise _Failed(doing)
    return values[0] if values else None


@contextlib.contextmanager
def _standard_error_to(descriptor: int) -> Iterator[None]:
    """libsemanage prints its errors, and offers Python no other way to learn them."""
    saved = os.dup(2)
    try:
        os.dup2(descriptor, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
