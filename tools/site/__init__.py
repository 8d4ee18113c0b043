# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation site: guides in Markdown and the reference that antsibull-docs makes, put together by Sphinx.

The guides are the files that people read in the repository; nothing is written twice. ``pages`` says which file
becomes which page, ``markdown`` finds the links in them, ``conf`` is Sphinx's configuration, and ``links`` and
``built`` check what links lead to, in the repository and on the site.
"""
