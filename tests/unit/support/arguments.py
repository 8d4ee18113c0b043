# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Arguments for a module that runs in the test's own process."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any
from unittest import mock

from ansible.module_utils import basic


@contextlib.contextmanager
def module_arguments(arguments: dict[str, Any]) -> Iterator[None]:
    """What AnsibleModule takes for its arguments, with every version of ansible-core."""
    try:
        from ansible.module_utils.testing import patch_module_args
    except ImportError:  # ansible-core 2.18 has no place for it but this one
        given = json.dumps({"ANSIBLE_MODULE_ARGS": arguments}).encode()
        with mock.patch.object(basic, "_ANSIBLE_ARGS", given):
            yield
    else:
        with patch_module_args(arguments):
            yield
