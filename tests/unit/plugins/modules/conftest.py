# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.module_utils import basic


@pytest.fixture(name="warnings", autouse=True)
def warnings_fixture(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the module warns of; Ansible itself keeps them until the process ends."""
    texts: list[str] = []
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda self, text: texts.append(text))
    return texts
