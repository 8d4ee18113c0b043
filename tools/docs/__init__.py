# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the documentation that are written from the code: ``make docs-generated`` writes them.

A unit test fails when a committed file is not what would be written.
"""
