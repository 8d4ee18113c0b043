# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import sys
import time

import pytest

from tests.demo import stream


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_are_shown_with_the_time_and_returned(capsys: pytest.CaptureFixture[str]) -> None:
    status, output = stream.run(python("print('one'); print(); print('two', end='')"), os.environ, limit=30)
    assert (status, output) == (0, "one\n\ntwo")
    assert [line.split("  ", 1)[1] for line in capsys.readouterr().out.splitlines()] == ["one", "two"]


def test_an_exit_status_is_returned() -> None:
    status, output = stream.run(python("print('one'); raise SystemExit(3)"), os.environ, limit=30)
    assert (status, output) == (3, "one\n")


def test_silence_is_explained(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_SILENCE", 0.5)
    stream.run(python("import time; print('TASK [Reboot] ***', flush=True); time.sleep(2.5)"), os.environ, limit=30)
    assert "... TASK [Reboot] still runs" in capsys.readouterr().out


def test_a_program_that_takes_too_long_is_ended() -> None:
    before = time.monotonic()
    with pytest.raises(stream.TimeUp):
        stream.run(python("import time; time.sleep(60)"), os.environ, limit=0.5)
    assert time.monotonic() - before < 15
