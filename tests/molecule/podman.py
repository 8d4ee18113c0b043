# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""podman as this user has it, or with settings of ours where it starts no container."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.lab import LabError, cache, debian
from tests.lab.run import require_tool, run, say, step

from . import scenarios

CONFIGURATION = Path(__file__).with_name("containers.conf")
VARIABLE = "CONTAINERS_CONF"
LABEL = "kvm.passthrough.molecule"
_REPOSITORY = "localhost/kvm-passthrough-molecule"
_KIND = "molecule-image"
_TAR = "image.tar"
_TIMEOUT = 300.0


def image_key() -> str:
    """The key of the image of Debian packages for all scenarios."""
    return cache.digest("1", debian.SUITE, debian.find_mirror() or "", scenarios.packages())


def artefact_names() -> set[str]:
    """What the cache keeps for today's scenarios."""
    return {f"{_KIND}-{image_key()}"}


def image_name() -> str:
    """The name of that image."""
    return f"{_REPOSITORY}:{image_key()}"


def prepare_image() -> dict[str, str]:
    """See to it that podman has the image and starts containers of it.

    Returns what has to be added to the environment for that: nothing where the settings of this user (or of the
    variable CONTAINERS_CONF) do, else the variable with ours.

    :raises LabError: when podman starts no container either way, with what it says
    """
    archive = cache.artefact(_KIND, image_key(), _build) / _TAR

    def attempt(environment: dict[str, str]) -> None:
        _import(archive, environment)
        start_one(image_name(), environment)

    return _first_that_works(attempt, "here")


def find_environment(image: str) -> dict[str, str]:
    """The same for an image that somebody else has made.

    :raises LabError: when podman starts no container of it
    """
    return _first_that_works(lambda environment: start_one(image, environment), f"of the image {image}")


def start_one(image: str, environment: Mapping[str, str]) -> None:
    """Start a container that ends at once.

    :raises LabError: when that fails
    """
    podman("run", "--rm", "--network=none", image, "true", environment=environment)


def podman(*arguments: str | Path, environment: Mapping[str, str]) -> str:
    """What podman prints.

    :raises LabError: when it fails, with what it says
    """
    return run([require_tool("podman", "podman"), *arguments], timeout=_TIMEOUT, env=environment).stdout


def remove_containers(run_prefix: str, environment: Mapping[str, str]) -> None:
    """Remove what a run has left, if anything."""
    listing = podman("ps", "--all", "--quiet", f"--filter=label={LABEL}={run_prefix}", environment=environment)
    if listing.split():
        podman("rm", "--force", "--ignore", "--time=0", *listing.split(), environment=environment)


def _first_that_works(attempt: Callable[[dict[str, str]], None], what: str) -> dict[str, str]:
    """What has to be added to the environment for an attempt to succeed.

    :raises LabError: when it fails with all there is, with what podman says each time
    """
    said = []
    for environment in _candidates():
        try:
            attempt(environment)
        except LabError as error:
            said.append(str(error))
        else:
            if environment:
                say(f"podman starts no container with the settings of this user; it is run with {CONFIGURATION}")
            return environment
    raise LabError(f"podman starts no container {what}:\n" + "\n".join(said))


def _candidates() -> Iterator[dict[str, str]]:
    yield {}
    if not os.environ.get(VARIABLE):
        yield {VARIABLE: str(CONFIGURATION)}


def _build(directory: Path) -> None:
    with step("building the image of the containers from Debian packages (once, about a minute)"):
        debian.mmdebstrap(
            directory / _TAR,
            scenarios.packages(),
            variant="minbase",
            log=directory / "build.log",
            fallback=debian.NEXT_SUITE,
        )


def _import(archive: Path, environment: Mapping[str, str]) -> None:
    """Give podman the image if it has not got it, and take those away that it replaces."""
    name = image_name()
    listed = podman(
        "images", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={_REPOSITORY}", environment=environment
    ).split()
    if name not in listed:
        with step("importing the image of the containers"):
            podman("import", "--quiet", archive, name, environment=environment)
    for old in listed:
        if old != name:
            # One that another run still uses stays.
            run([require_tool("podman", "podman"), "rmi", old], timeout=_TIMEOUT, env=environment, check=False)
