# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT


@pytest.mark.parametrize("setting", ["", "relative/cache"])
def test_a_cache_setting_that_is_no_absolute_path_is_ignored(tmp_path: Path, setting: str) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    here.mkdir()
    home.mkdir()
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'tools')!r}); import dev; print(dev.CACHE)"
    done = subprocess.run(
        [sys.executable, "-B", "-c", code],
        cwd=here,
        env={**os.environ, "XDG_CACHE_HOME": setting, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(home / ".cache/kvm-passthrough")
    assert not list(here.iterdir())
