# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tools.site.links``: does every link of every Markdown file lead to something?

Files and anchors of the repository have to be there. Links to other sites are not followed, as a test has no network:
they have to be https, and well-formed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..dev import ROOT, checkout_files
from . import markdown


def external_problem(target: str) -> str | None:
    """What is wrong with a link to another site, if anything."""
    try:
        parts = urlsplit(target)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme != "https":
        return "Links to other sites are https."
    if not parts.hostname or "." not in parts.hostname or port is not None or parts.username is not None:
        return "It has no plain host name."
    return None


def problems(root: Path, texts: Mapping[Path, str]) -> Iterator[str]:
    """What is wrong with the links of these files, each with file and line."""
    anchors: dict[Path, set[str]] = {}
    for path, text in texts.items():
        for link in markdown.links(text):
            problem = external_problem(link.target) if link.is_external else _problem(root, path, link.target, anchors)
            if problem:
                yield f"{path.relative_to(root)}:{link.line}: {link.target}: {problem}"


def _problem(root: Path, path: Path, target: str, anchors: dict[Path, set[str]]) -> str | None:
    name, _hash, anchor = target.partition("#")
    if name.startswith("/"):
        return "A path is relative to the file, since GitHub and the site have different roots."
    aim = (path.parent / unquote(name)).resolve() if name else path
    if not aim.is_relative_to(root):
        return "It leads out of the repository."
    if not aim.exists():
        return "There is no such file."
    if not anchor:
        return None
    if aim.suffix != ".md":
        return "Only Markdown files have anchors."
    if aim not in anchors:
        anchors[aim] = markdown.anchors(aim.read_text(encoding="utf-8"))
    return None if anchor in anchors[aim] else f"There is no heading for it in {aim.relative_to(root)}."


def main() -> int:
    """Print what is wrong, and how much was looked at."""
    paths = [ROOT / name for name in sorted(checkout_files()) if name.suffix == ".md"]
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    found = list(problems(ROOT, texts))
    every = [link for text in texts.values() for link in markdown.links(text)]
    for problem in found:
        print(problem)
    external = sum(link.is_external for link in every)
    print(f"{len(every)} links in {len(texts)} files, {external} of them to other sites; {len(found)} problems")
    return 1 if found or not every else 0


if __name__ == "__main__":
    sys.exit(main())
