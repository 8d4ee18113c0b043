# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The workbench behind the Makefile: one Python environment, and the places where Ansible wants a collection to be.

Everything it makes is in one cache folder outside the checkout (``$XDG_CACHE_HOME/kvm-passthrough``):

- ``venv-…``: the Python environment, shared by all checkouts with the same ``tests/requirements.txt`` and
  ``tests/unit/requirements.txt``;
- ``checkout-…/link``: ``ansible_collections/kvm/passthrough`` as a symbolic link to the checkout, for everything that
  imports the collection or runs it;
- ``checkout-…/copy``: the files git knows or would take, in a real folder with its own git, for the tools that insist
  on one (ansible-test), take what is lying about for part of the collection, or leave files behind;
- ``ansible-test``: the home folder of ansible-test, with the environments it makes for its own checks.

The lab (``tests/lab``) and ``tools/versions.py`` keep there what they build, too.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import filecmp
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = Path("ansible_collections/kvm/passthrough")
REQUIREMENTS = ROOT / "tests/requirements.txt"
UNIT_REQUIREMENTS = ROOT / "tests/unit/requirements.txt"
APT_PACKAGES = ROOT / "tests/apt-packages.txt"
LAB_APT_PACKAGES = ROOT / "tests/lab/apt-packages.txt"
MOLECULE_APT_PACKAGES = ROOT / "tests/molecule/apt-packages.txt"
BENCHMARK_APT_PACKAGES = ROOT / "tests/benchmark/apt-packages.txt"
BROWSER_APT_PACKAGES = ROOT / "tests/browser/apt-packages.txt"
# Debian keeps these apart from the interpreter.
VENV_PROBE = "import ensurepip, venv"


def say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    say(text)
    raise SystemExit(1)


def find_cache() -> Path:
    """The cache folder: the usual place, or a private one below the temporary folder when that cannot be written."""
    candidates = []
    if "XDG_CACHE_HOME" in os.environ:
        candidates.append(Path(os.environ["XDG_CACHE_HOME"]))
    with contextlib.suppress(RuntimeError):
        candidates.append(Path.home() / ".cache")
    candidates.append(Path(tempfile.gettempdir()) / f"cache-{os.getuid()}")
    for candidate in candidates:
        if not candidate.is_absolute():
            continue  # the XDG base directory specification: an empty or relative path is to be ignored
        cache = candidate / "kvm-passthrough"
        try:
            cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(cache, os.W_OK) and cache.stat().st_uid == os.getuid():
            return cache
    fail("No folder for the cache can be written. Set XDG_CACHE_HOME.")


CACHE = find_cache()
CHECKOUT = CACHE / f"checkout-{hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:12]}"
LINK = CHECKOUT / "link"
COPY = CHECKOUT / "copy"
ANSIBLE_TEST_HOME = CACHE / "ansible-test"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs on this machine out until done."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"Waiting for another run that uses {path.parent}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


# ---- Python environment


def venv_path() -> Path:
    return CACHE / f"venv-{sys.version_info.major}.{sys.version_info.minor}-{venv_key(sys.executable)}"


def venv_key(python: str, *more: str) -> str:
    """Of an environment for this interpreter: another one when what goes into it changes.

    :param more: what goes into it beside the lists of packages
    """
    key = hashlib.sha256(REQUIREMENTS.read_bytes() + UNIT_REQUIREMENTS.read_bytes())
    for part in (os.path.realpath(python), *more):
        key.update(b"\0" + os.fsencode(part))
    return key.hexdigest()[:12]


def apt_install(*arguments: str | Path) -> None:
    if subprocess.run([ROOT / "tools/apt-install", *arguments], check=False).returncode:
        raise SystemExit(1)


def prepare_interpreter() -> None:
    """What building the environment takes beyond the interpreter itself."""
    missing = []
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    if subprocess.run([sys.executable, "-c", VENV_PROBE], capture_output=True, check=False).returncode:
        missing.append(f"python{version}-venv")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        missing.append(f"python{version}-dev")
    if not missing:
        return
    if os.path.realpath(sys.executable).startswith("/usr/bin/"):
        apt_install(*missing)
    else:
        fail(f"{sys.executable} lacks what Debian calls {' and '.join(missing)}. Choose another one with PYTHON=…")


def ensure_venv() -> Path:
    venv = venv_path()
    if not (venv / "complete").exists():
        prepare_interpreter()
    build_venv(venv, sys.executable, ["--requirement", REQUIREMENTS])
    return venv


def build_venv(venv: Path, interpreter: str, requirements: Sequence[str | Path]) -> None:
    """Make an environment with these requirements, given as pip wants them, unless it is there."""
    complete = venv / "complete"
    if complete.exists():
        return
    with locked(CACHE / "venv.lock"):
        if complete.exists():
            return
        say(f"Building the Python environment in {venv} (once, up to two minutes)")
        started = time.monotonic()
        shutil.rmtree(venv, ignore_errors=True)
        python = venv / "bin/python"
        pip_options = ["--disable-pip-version-check", "--no-input", "--quiet", "--quiet"]
        commands: list[list[str | Path]] = [
            [interpreter, "-m", "venv", venv],
            [python, "-m", "pip", "install", *pip_options, *requirements],
        ]
        for command in commands:
            if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode:
                fail("Building the Python environment failed.")
        complete.touch()
        say(f"Python environment ready after {time.monotonic() - started:.0f} s")


# ---- where the collection is


def ensure_link() -> None:
    link = LINK / COLLECTION
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink() or Path(os.readlink(link)) != ROOT:
        # Two runs may do this at once: each makes its own link and renames it into place.
        temporary = link.with_name(f".link-{os.getpid()}")
        temporary.symlink_to(ROOT)
        temporary.replace(link)


def checkout_files() -> set[Path]:
    """The files git would commit, new ones included."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        fail(f"git cannot list the files of {ROOT}: {os.fsdecode(listing.stderr).strip()}")
    files = {Path(os.fsdecode(name)) for name in listing.stdout.split(b"\0") if name}
    return {name for name in files if os.path.lexists(ROOT / name)}


def _is_same_file(source: Path, target: Path) -> bool:
    if source.is_symlink() or target.is_symlink() or not target.exists():
        return False
    return source.stat().st_mode == target.stat().st_mode and filecmp.cmp(source, target, shallow=True)


def sync_copy() -> Path:
    """Bring the copy up to date; files that did not change stay as they are."""
    copy = COPY / COLLECTION
    copy.mkdir(parents=True, exist_ok=True)
    wanted = checkout_files()
    for folder, _subfolders, names in os.walk(copy, topdown=False):
        here = Path(folder).relative_to(copy)
        if here.parts[:1] == (".git",):
            continue
        for leaf in names:
            if here / leaf not in wanted:
                (copy / here / leaf).unlink()
        if here.parts and not any((copy / here).iterdir()):
            (copy / here).rmdir()
    for name in wanted:
        source, target = ROOT / name, copy / name
        if _is_same_file(source, target):
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        shutil.copy2(source, target, follow_symlinks=False)
    if not (copy / ".git").exists():
        subprocess.run(["git", "init", "--quiet", copy], check=True)
    return copy


def environment(venv: Path) -> dict[str, str]:
    """Caches of all tools in our cache folder, the collection importable, the tools of the environment on PATH."""
    return {
        **os.environ,
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(venv),
        "PYTHONPATH": str(LINK),
        "PYTHONDONTWRITEBYTECODE": "1",
        "MYPYPATH": str(LINK),
        "MYPY_CACHE_DIR": str(CHECKOUT / "mypy"),
        "RUFF_CACHE_DIR": str(CHECKOUT / "ruff"),
        "PYTEST_ADDOPTS": f"-o cache_dir={CHECKOUT / 'pytest'} {os.environ.get('PYTEST_ADDOPTS', '')}".strip(),
        "HYPOTHESIS_STORAGE_DIRECTORY": str(CHECKOUT / "hypothesis"),
        "ANSIBLE_HOME": str(CACHE / "ansible"),
        "ANSIBLE_COLLECTIONS_PATH": str(LINK),
        "XDG_CACHE_HOME": str(CACHE.parent),
    }


# ---- commands


def prepare(*more_packages: Path) -> Path:
    apt_install("-f", APT_PACKAGES, *more_packages)
    venv = ensure_venv()
    ensure_link()
    return venv


def execute(title: str, command: Sequence[str | Path], folder: Path, env: dict[str, str]) -> int:
    """Run one step under a heading, with its duration at the end."""
    if title:
        print(f"\n=== {title}: {' '.join(map(str, command))}", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env=env)
    while True:
        # An interrupt from the keyboard reaches the step, too; it is given the time to remove what it has started.
        with contextlib.suppress(KeyboardInterrupt):
            status = process.wait()
            break
    if title:
        verdict = "passed" if status == 0 else f"FAILED (exit status {status})"
        print(f"=== {title}: {verdict} after {time.monotonic() - started:.1f} s", flush=True)
    return status


def command_run(options: argparse.Namespace) -> int:
    lists = {
        LAB_APT_PACKAGES: options.lab or options.molecule,
        MOLECULE_APT_PACKAGES: options.molecule,
        BENCHMARK_APT_PACKAGES: options.benchmark,
        BROWSER_APT_PACKAGES: options.browser,
    }
    venv = prepare(*(path for path, wanted in lists.items() if wanted))
    env = environment(venv)
    if not options.copy:
        return execute(options.title, options.command, ROOT, env)
    with locked(CHECKOUT / "copy.lock"):
        env["ANSIBLE_COLLECTIONS_PATH"] = env["PYTHONPATH"] = str(COPY)
        return execute(options.title, options.command, sync_copy(), env)


def find_interpreters(versions: Sequence[str], search: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The Pythons of these versions that really run, and the PATH folders free of ones that do not.

    A file called python3.9 proves nothing: the wrapper of a version manager stands there for versions it will not run.
    """
    found: dict[str, str] = {}
    folders = []
    for folder in search:
        sound = True
        for version in versions:
            candidate = shutil.which(f"python{version}", path=folder)
            if candidate is None:
                continue
            code = "import ensurepip, sys, venv; print(sys.executable)"
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                probe = subprocess.run(
                    [candidate, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False
                )
                if probe.returncode == 0:
                    found.setdefault(version, os.fsdecode(probe.stdout).strip())
                    continue
            sound = False
        if sound:
            folders.append(folder)
    return found, folders


def prepare_ansible_test(venv: Path) -> dict[str, str]:
    """The environment of ansible-test, which hands on nothing but HOME and PATH to what it starts."""
    code = (
        "import json; from types import SimpleNamespace as N;"
        "from ansible_test._internal.content_config import load_config;"
        "from ansible_test._internal.python_requirements import get_venv_packages as packages;"
        "versions = load_config('tests/config.yml').python_versions;"
        "print(json.dumps({version: packages(N(version=version))['pip'] for version in versions}))"
    )
    answer = subprocess.run([venv / "bin/python", "-c", code], cwd=ROOT, capture_output=True, check=False)
    if answer.returncode:
        fail(f"ansible-test does not tell its Python versions: {os.fsdecode(answer.stderr).strip()}")
    pip_versions: dict[str, str] = json.loads(answer.stdout)

    pythons, folders = find_interpreters(list(pip_versions), os.environ.get("PATH", os.defpath).split(os.pathsep))
    wrappers = CHECKOUT / "pythons"
    shutil.rmtree(wrappers, ignore_errors=True)
    wrappers.mkdir(parents=True)
    for version in pip_versions:
        if version in pythons:
            say(f"Python {version}: {pythons[version]}")
            # Not a link: an interpreter looks for its library from where it was started.
            wrapper = wrappers / f"python{version}"
            wrapper.write_text(f'#!/bin/sh\nexec "{pythons[version]}" "$@"\n')
            wrapper.chmod(0o755)
        else:
            say(f"Python {version}: SKIPPED, no python{version} with its venv module on PATH")

    home = ANSIBLE_TEST_HOME
    bootstrap = home / ".ansible/test/cache"
    bootstrap.mkdir(parents=True, exist_ok=True)
    for version in set(pip_versions.values()):
        shutil.copyfile(ROOT / "tools/get_pip.py", bootstrap / f"get_pip_{version.replace('.', '_')}.py")
    write_pip_configuration(venv, home / ".config/pip/pip.conf")

    env = environment(venv)
    env["HOME"] = str(home)
    env["PATH"] = os.pathsep.join([str(venv / "bin"), str(wrappers), *folders])
    for name in ("PYTHONPATH", "ANSIBLE_HOME", "ANSIBLE_COLLECTIONS_PATH", "XDG_CONFIG_HOME"):
        env.pop(name, None)
    return env


def write_pip_configuration(venv: Path, path: Path) -> None:
    """The user's own pip settings (files and PIP_* variables), which ansible-test would otherwise lose."""
    listing = subprocess.run([venv / "bin/pip", "config", "list"], capture_output=True, text=True, check=True).stdout
    settings: dict[str, str] = {}
    # Later lines win, and pip lists the variables (":env:") last or first, so they are sorted behind the files.
    for line in sorted(listing.splitlines(), key=lambda line: line.startswith(":env:")):
        name, value = line.split("=", 1)
        section, key = name.split(".", 1)
        if section in ("global", "install", ":env:") and key not in ("config-file", "require-virtualenv", "user"):
            settings[key] = value.strip("'").replace("\\n", "\n    ")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("[global]\n" + "".join(f"{key} = {value}\n" for key, value in sorted(settings.items())))


def command_sanity(options: argparse.Namespace) -> int:
    venv = prepare()
    with locked(CHECKOUT / "copy.lock"):
        env = prepare_ansible_test(venv)
        copy = sync_copy()
        command = ["ansible-test", "sanity", "--local", *options.arguments]
        return execute("ansible-test sanity", command, copy, env)


def command_venv(_options: argparse.Namespace) -> int:
    print(prepare())
    return 0


def command_clean(options: argparse.Namespace) -> int:
    for path in [CACHE] if options.all else [CHECKOUT, ROOT / "docs/build", ROOT / "tests/output", ROOT / ".ansible"]:
        if path.exists():
            say(f"Removing {path}")
            shutil.rmtree(path)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/dev", description="The workbench behind the Makefile.")
    commands = parser.add_subparsers(required=True)

    run = commands.add_parser("run", help="run a command in the project's Python environment")
    run.add_argument("--title", default="", help="print a heading before and the duration after")
    run.add_argument("--copy", action="store_true", help="run in the copy of the collection, not in the checkout")
    run.add_argument("--lab", action="store_true", help="install the lab's Debian packages, too")
    run.add_argument("--molecule", action="store_true", help="install what containers and the lab need, too")
    run.add_argument("--benchmark", action="store_true", help="install what the benchmarks compare with, too")
    run.add_argument("--browser", action="store_true", help="install the browser for tests of pages, too")
    run.add_argument("command", nargs=argparse.REMAINDER)
    run.set_defaults(function=command_run)

    sanity = commands.add_parser("sanity", help="run ansible-test sanity with all Pythons on PATH")
    sanity.add_argument("arguments", nargs="*", help="for ansible-test, such as: -- --test pep8")
    sanity.set_defaults(function=command_sanity)

    venv = commands.add_parser("venv", help="print where the Python environment is, and make it if need be")
    venv.set_defaults(function=command_venv)

    clean = commands.add_parser("clean", help="remove what was made for this checkout")
    clean.add_argument("--all", action="store_true", help="remove the whole cache: environments, lab images")
    clean.set_defaults(function=command_clean)

    options = parser.parse_args()
    status: int = options.function(options)
    return status


if __name__ == "__main__":
    raise SystemExit(main())
