# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is known about how the host uses its devices rests on evidence, and evidence can be out of reach."""

from __future__ import annotations


class EvidenceMissing(Exception):
    """What decides a question cannot be read here (no permission, a missing program).

    It is no error of its own: whoever asked decides what not knowing means. A guard refuses, a report says "unknown".
    """
