# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Pythons of a host, of which only the distribution's own has its bindings."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .errors import PassthroughError

SYSTEM_INTERPRETERS = ("/usr/bin/python3", "/usr/libexec/platform-python", "/usr/local/bin/python3")


def missing_modules(missing: Sequence[str], packages: str) -> PassthroughError:
    """The error for Python modules that no Python of the host has.

    :param packages: what a person has to install, in words
    """
    return PassthroughError(
        "python_module_missing",
        f"The Python module{'s' if len(missing) > 1 else ''} {' and '.join(missing)} cannot be imported by "
        f"{sys.executable} nor by any of {', '.join(SYSTEM_INTERPRETERS)}.",
        f"Install {packages} on this host.",
        missing=list(missing),
    )
