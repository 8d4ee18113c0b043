# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are for a test that starts programs or reads files of the collection."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The collection."""
COLLECTIONS = str(Path(__file__).parents[6])
"""The folder that has it as ansible_collections/kvm/passthrough: what ANSIBLE_COLLECTIONS_PATH and PYTHONPATH take."""
PROGRAMS = Path(sys.executable).parent
"""Those of the Python that runs the tests, Ansible's among them."""
