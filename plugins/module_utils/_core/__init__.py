# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What everything else in here stands on. Whatever is imported first imports this before it uses a newer Python."""

from __future__ import annotations

import json
import sys

OLDEST_PYTHON = (3, 9)

if sys.version_info < OLDEST_PYTHON:
    # Some versions of ansible-core start modules under an older Python. That would end with a traceback about whatever
    # that Python does not know; this is what Ansible takes for a module's result.
    oldest, this = (".".join(map(str, version)) for version in (OLDEST_PYTHON, sys.version_info[:3]))
    result = {
        "failed": True,
        "code": "python_too_old",
        "msg": f"The modules of kvm.passthrough need Python {oldest} or newer on the host, and {sys.executable} is "
        f"{this}. Install a newer one there, and name it in the variable ansible_python_interpreter.",
    }
    sys.stdout.write(json.dumps(result) + "\n")
    raise SystemExit(1)
