# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for the get-pip.py that ansible-test would download from a server of its own.

ansible-test runs it in an empty virtual environment, with arguments such as
``--disable-pip-version-check pip==24.2 --no-setuptools --no-wheel``. The pip that Python carries (ensurepip) can do the
same with nothing but a package index. It runs on every Python that ansible-test tests, 3.8 included.
"""

from __future__ import annotations

import os
import subprocess
import sys


def main() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GET_PIP"}
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
    ensurepip = [sys.executable, "-m", "ensurepip", "--default-pip"]
    subprocess.run(ensurepip, env=environment, stdout=subprocess.DEVNULL, check=True)
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], env=environment, check=True)


if __name__ == "__main__":
    main()
