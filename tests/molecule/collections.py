# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one collection that the scenarios need beside this one: containers.podman, for its connection plugin.

Users have it from Galaxy. A checkout takes it from the package ``ansible`` of the Python package index, which is where
all its other tools come from, and takes nothing else of that: with all of its collections at hand, nobody would notice
that a role uses one of them.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

from tests.lab import LabError, cache
from tests.lab.run import run, step

RELEASE = "12.3.0"
_KIND = "molecule-collections"
_FOLDER = "ansible_collections/containers/podman/"
_TIMEOUT = 600.0


def artefact_names() -> set[str]:
    """What the cache keeps of it."""
    return {f"{_KIND}-{cache.digest(RELEASE)}"}


def path() -> Path:
    """A folder for Ansible's collections path with that collection.

    :raises LabError: when it cannot be had
    """
    return cache.artefact(_KIND, cache.digest(RELEASE), _fetch)


def _fetch(directory: Path) -> None:
    with step(f"fetching containers.podman as it is in ansible {RELEASE}"):
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-input",
            "--no-deps",
            "--quiet",
        ]
        run([*pip, "--only-binary=:all:", f"--dest={directory}", f"ansible=={RELEASE}"], timeout=_TIMEOUT)
        for wheel in directory.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(directory, [name for name in archive.namelist() if name.startswith(_FOLDER)])
            wheel.unlink()
    if not (directory / _FOLDER / "plugins/connection/podman.py").is_file():
        raise LabError(f"ansible {RELEASE} has no connection plugin containers.podman.podman")
