# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m tools.site``: build the documentation site in docs/build/html, and check what was built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

from ..dev import ROOT, checkout_files
from . import pages
from .built import Site

HERE = ROOT / "tools/site"
BUILD = ROOT / "docs/build"
COLLECTION = "kvm.passthrough"


def main() -> int:
    """Build everything anew, which takes seconds; return the exit status."""
    galaxy = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))
    shutil.rmtree(BUILD, ignore_errors=True)
    source, html = BUILD / "source", BUILD / "html"
    # antsibull-docs writes into no folder that others may write to.
    (source / pages.REFERENCE).mkdir(mode=0o755, parents=True)
    try:
        pages.write_pages(ROOT, sorted(map(str, checkout_files())), source, galaxy["repository"])
        make_reference(source / pages.REFERENCE)
        pages.complete_index(source)
        build_html(source, html, galaxy["version"])
    except (pages.PageError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return check(html)


def make_reference(folder: Path) -> None:
    """The pages of modules, filters and roles, from their documentation."""
    options = ["--use-current", "--squash-hierarchy", "--fail-on-error", "--dest-dir", str(folder)]
    command = ["antsibull-docs", "--config-file", str(HERE / "antsibull-docs.cfg"), "collection", *options, COLLECTION]
    subprocess.run(command, check=True)
    # The index of the site lists all of them, and there are no variables of the environment.
    for name in ("index.rst", "environment_variables.rst"):
        (folder / name).unlink()


def build_html(source: Path, html: Path, version: str) -> None:
    """Sphinx; a warning is an error."""
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "--quiet", "--fresh-env"]
    command += ["--doctree-dir", str(BUILD / "doctrees"), "--conf-dir", str(HERE), str(source), str(html)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "COLLECTION_VERSION": version}, check=True)


def check(html: Path) -> int:
    """Print what is wrong with the site, or where it is; list the links that lead elsewhere."""
    site = Site(html)
    found = list(site.problems())
    for problem in found:
        print(problem, file=sys.stderr)
    external = BUILD / "external-links.txt"
    lines = [f"{link}  {' '.join(sorted(names))}\n" for link, names in sorted(site.external_links().items())]
    external.write_text("".join(lines), encoding="utf-8")
    print(f"{len(site.pages)} pages, {len(found)} problems: {html.relative_to(ROOT)}/index.html")
    print(f"{len(lines)} addresses of other sites, not followed: {external.relative_to(ROOT)}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
