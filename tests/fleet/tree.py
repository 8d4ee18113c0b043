# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a directory tree a host that programs can run in.

The modules of this collection then run as on any host: a process of their own, with ``/`` as its root, under the Python
of the system. Nothing in them knows of it. Whoever runs the tests enters the tree by a mount namespace (and a user
namespace, when that is not root), in which this machine's ``/usr`` is at ``/.machine/usr`` of the tree.

The tree's own programs are those that were put there, and a few of this machine that scripts need. ``/proc`` and
``/sys`` are plain files of the tree: they show what they were made to show, and react to nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MACHINE = "/.machine/usr"
MACHINE_PYTHON = "/usr/bin/python3"
LIBVIRT = Path(__file__).with_name("libvirt_stand_in.py")
PROGRAMS = ("sh", "sleep", "python3", "cat", "rm", "mkdir", "chmod", "true", "env", "sync")


def why_not() -> str | None:
    """Why hosts of this kind cannot be entered on this machine; None when they can."""
    mine = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    argv = ["unshare", *mine, "--mount", "--", "mount", "--rbind", "/usr", "/mnt"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no mount namespace can be made here: {done.stderr.strip()}"


def inhabit(root: Path) -> None:
    """Put into a tree what running a Python program there takes. What it has stays."""
    for folder in ("dev", "proc", "run", "tmp", "root", "etc", "var/lib", "usr/bin", "usr/sbin", MACHINE[1:]):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "dev/null").touch()
    for alias in ("bin", "sbin"):
        if not (root / alias).exists():
            (root / alias).symlink_to(f"usr/{alias}")
    for name in PROGRAMS:
        if not os.path.lexists(root / "usr/bin" / name):
            (root / "usr/bin" / name).symlink_to(f"{MACHINE}/bin/{name}")
    # Where the dynamic linker and the libraries are is part of every program.
    (root / "lib").mkdir(exist_ok=True)
    for library in sorted(Path("/usr/lib").iterdir()):
        if "-linux-" in library.name:
            (root / "lib" / library.name).symlink_to(f"{MACHINE}/lib/{library.name}")
    if os.path.lexists("/lib64"):
        (root / "lib64").symlink_to(f"{MACHINE}/lib64")


def add_program(root: Path, path: str, script: str) -> None:
    """A program of the host, as a script for ``sh``."""
    real = root / path.lstrip("/")
    real.parent.mkdir(parents=True, exist_ok=True)
    real.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    real.chmod(0o755)


def add_network_tools(root: Path, addresses: Sequence[Mapping[str, Any]], routes: Sequence[Mapping[str, Any]]) -> None:
    """``ip``, which tells these addresses and default routes."""
    add_program(
        root,
        "/usr/sbin/ip",
        f"""case " $* " in
*" addr "*) echo '{json.dumps(addresses)}';;
*" -4 "*) echo '{json.dumps(routes)}';;
*) echo '[]';;
esac""",
    )


def add_python_modules(root: Path, *names: str) -> None:
    """Modules that the host's Python can import, with nothing in them."""
    for name in names:
        package = root / "opt/python" / name.replace(".", "/")
        package.mkdir(parents=True, exist_ok=True)
        (package / "__init__.py").touch()
    (root / "usr/bin/python3").unlink()
    add_program(root, "/usr/bin/python3", f'PYTHONPATH=/opt/python exec {MACHINE}/bin/python3 "$@"')


def add_libvirt(root: Path, domains: Mapping[str, str]) -> None:
    """libvirt's Python bindings with these domains (name -> its devices, as XML), and lxml as the tests have it."""
    add_python_modules(root, "libvirt")
    shutil.copy(LIBVIRT, root / "opt/python/libvirt/__init__.py")
    import lxml

    shutil.copytree(Path(lxml.__file__).parent, root / "opt/python/lxml")
    for name, devices in domains.items():
        path = root / f"etc/libvirt/qemu/{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"<domain type='kvm'><name>{name}</name><memory>65536</memory>"
            f"<os><type arch='x86_64' machine='q35'>hvm</type></os><devices>{devices}</devices></domain>",
            encoding="utf-8",
        )


def why_no_lxml() -> str | None:
    """Why hosts cannot have the lxml of the tests; None when they can."""
    asked = [MACHINE_PYTHON, "-c", "import sys; print(sys.version_info[:2])"]
    theirs = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    ours = str(sys.version_info[:2])
    return None if theirs == ours else f"lxml is for Python {ours} here, and {MACHINE_PYTHON} is {theirs}"
