# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tools.importer``: build the artefact, and have the importer of Ansible Galaxy look at it.

That is what decides whether a server takes it. It runs ansible-doc and ansible-lint over the artefact; ansible-test has
checks of its own here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .dev import ROOT

CONFIGURATION = """[galaxy-importer]
OFFLINE_ANSIBLE_LINT=True
RUN_ANSIBLE_TEST=False
CHECK_REQUIRED_TAGS=True
CHECK_CHANGELOG=True
"""


def main() -> int:
    """Return the importer's exit status, or 1 when it passed with a warning, which only its output tells."""
    with tempfile.TemporaryDirectory(prefix="kvm-passthrough-importer-") as name:
        folder = Path(name)
        build = ["ansible-galaxy", "collection", "build", "--output-path", name, str(ROOT)]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (artefact,) = folder.glob("kvm-passthrough-*.tar.gz")
        print(f"{artefact.name}: {artefact.stat().st_size / 1e6:.1f} MB", flush=True)
        configuration = folder / "importer.cfg"
        configuration.write_text(CONFIGURATION, encoding="utf-8")
        # It unpacks the artefact and wants that copy looked at, not the one of this checkout.
        left = ("ANSIBLE_COLLECTIONS_PATH", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if name not in left}
        done = subprocess.run(
            [sys.executable, "-m", "galaxy_importer.main", artefact.name],
            cwd=folder,
            env={**environment, "GALAXY_IMPORTER_CONFIG": str(configuration)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    told = [line for line in done.stdout.splitlines() if line and not line.startswith("Loading ")]
    print("\n".join(told), flush=True)
    return done.returncode or int(any(line.startswith(("WARNING:", "ERROR:")) for line in told))


if __name__ == "__main__":
    sys.exit(main())
