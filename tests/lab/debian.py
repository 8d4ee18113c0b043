# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Trees of Debian packages, from the mirror this machine's apt already uses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from .run import LabError, require_tool, run, say

SUITE = "trixie"
NEXT_SUITE = "forky"
"""Where a mirror lacks packages that its own index of ``SUITE`` lists, as many do for days after a point release."""
MIRROR_VARIABLE = "KVM_PASSTHROUGH_LAB_MIRROR"
_TIMEOUT = 1800


class Source(NamedTuple):
    """One apt source: where, which suites, which components."""

    uri: str
    suites: list[str]
    components: list[str]


def parse_sources(text: str, deb822: bool) -> Iterator[Source]:
    """The binary package sources in a file of apt's, in either of its formats (sources.list(5))."""
    if not deb822:
        for line in text.splitlines():
            match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+([^#]+)", line.strip())
            if match:
                yield Source(match[1], [match[2]], match[3].split())
        return
    for stanza in re.split(r"\n\s*\n", text):
        lines = [line for line in stanza.splitlines() if not line.startswith("#")]
        fields = dict(re.findall(r"^([\w-]+):\s*((?:.*)(?:\n[ \t].*)*)", "\n".join(lines), re.MULTILINE))
        if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes").strip() != "no":
            for uri in fields.get("URIs", "").split():
                yield Source(uri, fields.get("Suites", "").split(), fields.get("Components", "").split())


def find_mirror(etc: Path = Path("/etc")) -> str | None:
    """The Debian mirror to use; None leaves the choice to mmdebstrap.

    An environment variable wins; else it is the source this Debian machine has for its
    own release. A machine that is not Debian has none.
    """
    if os.environ.get(MIRROR_VARIABLE):
        return os.environ[MIRROR_VARIABLE]
    try:
        release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', (etc / "os-release").read_text(), re.MULTILINE))
    except OSError:
        return None
    if release.get("ID") != "debian":
        return None
    wanted = {release.get("VERSION_CODENAME", ""), "stable"}
    apt = etc / "apt"
    files = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    for file in files:
        if file.suffix not in (".list", ".sources") or not file.is_file():
            continue
        for source in parse_sources(file.read_text(encoding="utf-8"), file.suffix == ".sources"):
            if wanted & set(source.suites) and "main" in source.components:
                return source.uri
    return None


def mmdebstrap(
    target: Path,
    packages: Iterable[str],
    *,
    variant: str,
    log: Path,
    hooks: Sequence[str] = (),
    suite: str = SUITE,
    fallback: str | None = None,
    architecture: str | None = None,
) -> None:
    """Make a Debian tree with these packages as the directory or tar file ``target``.

    Where the mirror has the index of ``suite`` and not all of its packages, they come from
    the suite ``fallback``, when there is one, and the person who watches is told.

    Another ``architecture`` (Debian's name for it) than this machine's takes the variant
    ``extract``, which runs nothing of what it unpacks, and comes from the suite itself,
    without its updates: a mirror in the middle of a sync often lacks those of one.

    Works as root and, through user namespaces, as an ordinary user; then a tar file is
    the form that keeps the owners. Raises LabError with the end of ``log`` on failure.
    """
    options = [
        f"--variant={variant}",
        f"--include={','.join(packages)}",
        '--aptopt=Acquire::Retries "3"',
        *_proxy_options(),
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        *hooks,
    ]
    mirror = find_mirror()
    if architecture is not None:
        options.append(f"--architectures={architecture}")

    def make(suite: str, *more: str) -> None:
        run(
            [require_tool("mmdebstrap", "mmdebstrap"), *options, *more, suite, target, *([mirror] if mirror else [])],
            timeout=_TIMEOUT,
            log=log,
        )

    try:
        make(suite)
    except LabError:
        if fallback is None or not lacks_packages(log.read_text(encoding="utf-8", errors="replace")):
            raise
        target.unlink(missing_ok=True)
        say(f"the mirror lacks packages of Debian {suite}; they are taken from {fallback} instead")
        # A suite that is not released has an index with a date of expiry, which a mirror that is behind lets pass.
        make(fallback, '--aptopt=Acquire::Check-Valid-Until "false"')


def lacks_packages(log: str) -> bool:
    """Whether what apt said means that the mirror does not have packages that it lists."""
    return re.search(r"^E: Failed to fetch \S+\.deb  404 ", log, re.MULTILINE) is not None


def _proxy_options() -> Iterator[str]:
    # mmdebstrap starts from apt's defaults and not from this machine's configuration.
    result = run(
        ["apt-config", "shell", "HTTP", "Acquire::http::Proxy", "HTTPS", "Acquire::https::Proxy"],
        timeout=30,
        check=False,
    )
    for kind, proxy in re.findall(r"^(HTTPS?)='([^']+)'$", result.stdout, re.MULTILINE):
        yield f'--aptopt=Acquire::{kind.lower()}::Proxy "{proxy}"'
