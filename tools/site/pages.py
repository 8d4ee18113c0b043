# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which file of the repository is which page of the site, and what is changed in it on the way.

Links are the only thing: they lead from file to file in the repository, and from page to page on the site. What is no
page is linked where it is, in the public repository.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from . import markdown

INDEX = "docs/README.md"
REFERENCE = "reference"
"""Folder of the pages that antsibull-docs makes."""

KINDS = {"module": "Modules", "filter": "Filters", "role": "Options of the roles"}

_OUTSIDE = {
    INDEX: "index.md",
    "README.md": "collection.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.rst": "changelog.rst",
}


class PageError(Exception):
    """A file cannot be made a page."""


def page_of(path: str) -> str | None:
    """The page that is made of a file, both relative, or None."""
    if path in _OUTSIDE:
        return _OUTSIDE[path]
    parts = PurePosixPath(path).parts
    if parts[0] == "docs" and len(parts) == 2 and parts[1].endswith(".md"):
        return parts[1]
    if parts[0] == "roles" and parts[2:] == ("README.md",):
        return f"role_{parts[1]}.md"
    return None


def write_pages(root: Path, files: Sequence[str], folder: Path, repository: str) -> None:
    """Write all pages but those of the reference, with the pictures and files that they link.

    :param files: the files of the repository, relative to its root
    :param repository: where the repository is for the public

    :raises PageError: when a link leads to nothing
    """
    for path in files:
        page = page_of(path)
        if page is None:
            continue
        if page.endswith(".rst"):  # antsibull-changelog makes it, without links between files
            shutil.copyfile(root / path, folder / page)
            continue
        text = (root / path).read_text(encoding="utf-8")
        leading = [link.target for link in markdown.links(text) if not (link.is_external or link.target[0] == "#")]
        aims = {target: _aim(path, target) for target in leading}
        for target, aim in aims.items():
            if not (root / aim).exists():
                raise PageError(f"{path}: the link to {target} leads to nothing.")
            if _is_copied(root, aim):
                copy = folder / aim.removeprefix("docs/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / aim, copy)
        changed = {target: _site_link(root, aim, target, repository) for target, aim in aims.items()}
        (folder / page).write_text(markdown.with_places(markdown.replace_links(text, changed)), encoding="utf-8")


def complete_index(folder: Path) -> None:
    """Make tables of contents of the links in the sections of the index, and add a section for the reference.

    :raises PageError: when there is no reference
    """
    index = folder / "index.md"
    text = index.read_text(encoding="utf-8")
    lists: list[str] = []
    known: set[str] = set()
    for heading, section in markdown.sections(text):
        new: dict[str, str] = {}
        for link in markdown.links(section):
            page, extension = posixpath.splitext(link.target)
            if extension in (".md", ".rst") and link.target not in known:
                known.add(link.target)
                new[page] = link.text.replace("`", "")
        if new:
            lists += _toctree(heading, [f"{words} <{page}>" for page, words in new.items()])
    parts = [text.rstrip("\n"), "", "## Reference", "", "Every option and every value that is returned."]
    for kind, caption in KINDS.items():
        found = reference(folder, kind)
        parts += ["", f"### {caption}", ""]
        parts += [f"- [`{entry.name}`]({entry.page}.rst): {entry.description}" for entry in found]
        lists += _toctree(caption, [f"{entry.name} <{entry.page}>" for entry in found])
    index.write_text("\n".join([*parts, *lists, ""]), encoding="utf-8")


@dataclass(frozen=True)
class Entry:
    """A module, a filter or a role: its name, its page (without the extension), and what it does."""

    name: str
    page: str
    description: str


def reference(folder: Path, kind: str) -> list[Entry]:
    """All modules, filters or roles.

    :raises PageError: when there are none, or when a page does not begin as expected
    """
    found = []
    for path in sorted((folder / REFERENCE).glob(f"*_{kind}.rst")):
        name = path.stem.removesuffix(f"_{kind}")
        heading = re.search(rf"^kvm\.passthrough\.{name} {kind} -- (.+)\n\++$", path.read_text("utf-8"), re.MULTILINE)
        if heading is None:
            raise PageError(f"{path} does not begin with the name of the {kind} and what it does.")
        found.append(Entry(name, f"{REFERENCE}/{path.stem}", heading[1].replace("\\", "")))
    if not found:
        raise PageError(f"antsibull-docs made no page of a {kind}.")
    return found


def _toctree(caption: str, entries: Sequence[str]) -> Iterator[str]:
    yield from ("", "```{toctree}", ":hidden:", f":caption: {caption}", "", *entries, "```")


def _aim(path: str, target: str) -> str:
    """The file or folder that a link in a file leads to, relative to the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target.partition("#")[0]))


def _is_copied(root: Path, aim: str) -> bool:
    return aim.startswith("docs/") and page_of(aim) is None and (root / aim).is_file()


def _site_link(root: Path, aim: str, target: str, repository: str) -> str:
    page = page_of(aim)
    if page is not None:
        return "#".join([page, *target.split("#")[1:]])
    if _is_copied(root, aim):
        return aim.removeprefix("docs/")
    kind = "tree" if (root / aim).is_dir() else "blob"
    return f"{repository}/{kind}/main/{aim}"
