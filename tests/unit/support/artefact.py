# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The artefact that is published, built of this checkout and installed where there is nothing else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from .places import PROGRAMS, ROOT


def run(*argv: str | Path, cwd: Path, **environment: str) -> str:
    """What a program prints that knows no collection of ours but those that ``environment`` names.

    Without that, ansible-galaxy installs nothing where this version is found in the paths that make has set.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "PYTHONPATH"))}
    done = subprocess.run(
        argv,
        cwd=cwd,
        env={**clean, "ANSIBLE_HOME": str(cwd / "home"), **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(folder: Path) -> Path:
    """Build the artefact into an empty folder, and say where it is."""
    run(PROGRAMS / "ansible-galaxy", "collection", "build", "--output-path", folder, ROOT, cwd=folder)
    (artefact,) = folder.glob("kvm-passthrough-*.tar.gz")
    return artefact


def install(artefact: Path, folder: Path) -> Path:
    """Install it into an empty folder, and say where in it the collection is."""
    galaxy = (PROGRAMS / "ansible-galaxy", "collection", "install", "--offline")
    run(*galaxy, "-p", folder, artefact, cwd=artefact.parent)
    return folder / "ansible_collections/kvm/passthrough"
