# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ansible_collections.kvm.passthrough.tests.unit.support.places import ROOT
from ansible_collections.kvm.passthrough.tools import dev


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


def test_the_copy_follows_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New, changed, executable, gone; and what a tool left behind goes, too."""
    checkout = tmp_path / "checkout"
    (checkout / "folder").mkdir(parents=True)
    subprocess.run(["git", "init", "--quiet", checkout], check=True)
    (checkout / ".gitignore").write_text("ignored\n")
    for name in ("changed", "executable", "folder/gone", "ignored"):
        (checkout / name).write_text(f"{name}\n")
    monkeypatch.setattr(dev, "ROOT", checkout)
    monkeypatch.setattr(dev, "COPY", tmp_path / "copy")
    copy = dev.sync_copy()
    (copy / "left").touch()

    (checkout / "changed").write_text("something else\n")
    (checkout / "executable").chmod(0o755)
    (checkout / "folder/gone").unlink()
    (checkout / "new").write_text("new\n")
    assert dev.sync_copy() == copy
    assert {path.name: path.read_text() for path in copy.iterdir() if path.name != ".git"} == {
        ".gitignore": "ignored\n",
        "changed": "something else\n",
        "executable": "executable\n",
        "new": "new\n",
    }
    assert (copy / "executable").stat().st_mode & 0o777 == 0o755
