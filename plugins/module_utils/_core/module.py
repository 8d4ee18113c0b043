# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the private packages meet Ansible: the only code here that knows AnsibleModule."""

from __future__ import annotations

import os
import traceback
from typing import Any, Callable, NoReturn

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.common.respawn import has_respawned, probe_interpreters_for_module, respawn_module

from .errors import PassthroughError
from .host import Host
from .python import SYSTEM_INTERPRETERS, missing_modules
from .runner import Procedure, execute


def run_procedure(
    module: AnsibleModule, build: Callable[[Host], Procedure[Any]], *, name: str, lock_timeout: float = 60.0
) -> NoReturn:
    """Build a procedure for this host from the module's parameters, execute it, and leave the module.

    :param build: checks the parameters and raises :class:`PassthroughError` for bad ones
    :param name: the module's short name, for the record of changes
    """

    def work() -> dict[str, Any]:
        _require_root(name)
        host = Host()
        return execute(host, build(host), module=name, check_mode=module.check_mode, lock_timeout=lock_timeout)

    _leave(module, work)


def run_query(module: AnsibleModule, query: Callable[[Host], dict[str, Any]]) -> NoReturn:
    """Answer a read-only question about this host and leave the module; nothing is ever changed."""
    _leave(module, lambda: {**query(Host()), "changed": False})


def require_python(module: AnsibleModule, imports: str, packages: str) -> None:
    """Go on under a Python of the system that can import all of ``imports``, or fail with what to install.

    Bindings such as libvirt's are built for the distribution's own Python only, and Ansible may have chosen
    another one; all modules are probed together, so that one interpreter has all of them.

    :param imports: comma-separated Python module names
    :param packages: what a person has to install, in words
    """
    missing = prefer_python(imports)
    if missing:
        module.fail_json(**missing_modules(missing, packages).as_result())


def prefer_python(imports: str) -> list[str]:
    """Go on under a Python of the system that can import all of ``imports``, or under this one when none can.

    :param imports: comma-separated Python module names
    :returns: those that cannot be imported here
    """
    missing = []
    for name in imports.split(","):
        try:
            __import__(name.strip())
        except ImportError:
            missing.append(name.strip())
    if missing and not has_respawned():
        interpreter = probe_interpreters_for_module(list(SYSTEM_INTERPRETERS), imports)
        if interpreter:
            respawn_module(interpreter)
    return missing


def _require_root(name: str) -> None:
    if os.geteuid() != 0:
        raise PassthroughError(
            "not_root",
            f"{name} has to run as root, but runs as user id {os.geteuid()}.",
            "Set become: true on the play or task, or give -b on the command line.",
        )


def _leave(module: AnsibleModule, work: Callable[[], dict[str, Any]]) -> NoReturn:
    # fail_json is called outside the except blocks: inside, ansible-core adds the exception to what it shows.
    failure: dict[str, Any] = {}
    result: dict[str, Any] = {}
    try:
        result = work()
    except PassthroughError as error:
        failure = error.as_result()
        if error.code == "internal_error":
            failure["exception"] = traceback.format_exc()
    except Exception as error:
        failure = {
            "msg": f"An unexpected {type(error).__name__}: {error}. "
            "This is a defect of the collection; please report it.",
            "code": "internal_error",
            "exception": traceback.format_exc(),
        }
    if failure:
        module.fail_json(**_printable(failure))
    for warning in result.pop("warnings", ()):  # newer versions of ansible-core want them so, all of them take them so
        module.warn(_printable(warning))
    module.exit_json(**_printable(result))
    raise AssertionError("exit_json returned")


def _printable(value: Any) -> Any:
    """``value`` with undecodable bytes (kept as surrogates in file texts) replaced: JSON and terminals refuse them."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_printable(name): _printable(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_printable(item) for item in value]
    return value
