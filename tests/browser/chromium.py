# Copyright: (c) 2026, kvm.passthrough contributors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium, driven through its DevTools protocol over a pair of pipes; it takes the standard library only.

::

    with Chromium(folder, program) as chromium:
        page = chromium.open(path)
        page.evaluate("document.title")
        page.events("Runtime.exceptionThrown")

Source of the protocol: https://chromedevtools.github.io/devtools-protocol/. Messages are JSON, ended by a NUL byte.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

FIRST_FREE = 10
"""Chromium wants its pipes to be file descriptors 3 and 4, so ours are far from there."""

FLAGS = (
    "--headless=new",
    # Root has no sandbox, and all that is ever opened is what a test wrote.
    "--no-sandbox",
    "--disable-gpu",
    # They take room on the page or not, depending on whether a picture is taken.
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
    "about:blank",
)

_LAUNCHER = """
import os, sys
for place, end in ((3, 1), (4, 2)):
    os.dup2(int(sys.argv[end]), place)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class BrowserError(Exception):
    """The browser refuses a command, or does not answer."""


def find_chromium() -> str | None:
    """The browser's program, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Chromium:
    """A browser with a profile of its own."""

    def __init__(self, folder: Path, program: str) -> None:
        (their_input, our_output), (our_input, their_output) = (_pipe(), _pipe())
        self._log = (folder / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                _LAUNCHER,
                str(their_input),
                str(their_output),
                program,
                f"--user-data-dir={folder / 'profile'}",
                *FLAGS,
            ],
            pass_fds=(their_input, their_output),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={**os.environ, "HOME": str(folder)},
            start_new_session=True,
        )
        os.close(their_input)
        os.close(their_output)
        self._input, self._output = our_input, our_output
        self._buffer = b""
        self._number = 0
        self._events: list[dict[str, Any]] = []

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrowserError):
            self.command("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._input)
        os.close(self._output)
        self._log.close()

    def open(self, path: Path, media: dict[str, str] | None = None, width: int = 1300, scripts: bool = True) -> Page:
        """A file in a new tab, loaded.

        :param media: media features, such as ``prefers-color-scheme``
        :param scripts: whether scripts run
        """
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        session = self.command("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, target, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.command(f"{domain}.enable")
        page.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.set_media("", media or {})
        if not scripts:
            page.command("Emulation.setScriptExecutionDisabled", value=True)
        page.command("Page.navigate", url=path.resolve().as_uri())
        page.wait_for("Page.loadEventFired")
        return page

    def command(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Tell the browser to do something, and return its answer.

        :raises BrowserError: when it refuses, or does not answer within a minute
        """
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._output, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            answer = self._receive(deadline, method)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    def events(self, session: str, name: str) -> list[dict[str, Any]]:
        """The events of a name that a tab had so far."""
        return [one["params"] for one in self._events if (one.get("sessionId"), one.get("method")) == (session, name)]

    def wait_for(self, session: str, name: str) -> None:
        """Wait for the first event of a name in a tab."""
        deadline = time.monotonic() + 60
        while not self.events(session, name):
            self._events.append(self._receive(deadline, name))

    def _receive(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready = select.select([self._input], [], [], max(0.0, deadline - time.monotonic()))[0]
            received = os.read(self._input, 1 << 20) if ready else b""
            if not received:
                state = "does not answer" if not ready else "has ended"
                self._log.flush()
                said = Path(self._log.name).read_text(encoding="utf-8", errors="replace")[-2000:]
                raise BrowserError(f"{what}: the browser {state}. It said: {said}")
            self._buffer += received
        message, self._buffer = self._buffer.split(b"\0", 1)
        answer: dict[str, Any] = json.loads(message)
        return answer


class Page:
    """A tab."""

    def __init__(self, chromium: Chromium, target: str, session: str) -> None:
        self._chromium = chromium
        self._target = target
        self._session = session

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol for this tab."""
        return self._chromium.command(method, self._session, **parameters)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of a name that it had so far."""
        return self._chromium.events(self._session, name)

    def wait_for(self, name: str) -> None:
        """Wait for an event."""
        self._chromium.wait_for(self._session, name)

    def set_media(self, media: str, features: dict[str, str]) -> None:
        """Show it as on another medium (``print``), or with other features."""
        values = [{"name": name, "value": value} for name, value in features.items()]
        self.command("Emulation.setEmulatedMedia", media=media, features=values)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is awaited.

        :raises BrowserError: when it throws
        """
        answer = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise BrowserError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def click(self, selector: str, number: int = 0) -> None:
        """Click in the middle of an element, with the mouse."""
        x, y = self.evaluate(
            f"(() => {{ const element = document.querySelectorAll({json.dumps(selector)})[{number}];"
            "element.scrollIntoView({block: 'center'}); const box = element.getBoundingClientRect();"
            "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key on the keyboard."""
        text = key if len(key) == 1 else None
        self.command("Input.dispatchKeyEvent", type="keyDown", key=key, **({"text": text} if text else {}))
        self.command("Input.dispatchKeyEvent", type="keyUp", key=key)

    def type(self, text: str) -> None:
        """Type a text into whatever has the focus."""
        self.command("Input.insertText", text=text)

    def screenshot(self, path: Path, selector: str | None = None) -> None:
        """Keep a picture of the whole page, or of one element and a little around it."""
        clip = {}
        if selector is not None:
            x, y, width, height = self.evaluate(
                f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                "return [box.x + scrollX, box.y + scrollY, box.width, box.height]; })()"
            )
            margin = min(x, y, 12)
            size = {"width": width + 2 * margin, "height": height + 2 * margin}
            clip = {"clip": {"x": x - margin, "y": y - margin, **size, "scale": 1}}
        answer = self.command("Page.captureScreenshot", captureBeyondViewport=True, **clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self) -> bytes:
        """It as printed."""
        return base64.b64decode(self.command("Page.printToPDF", preferCSSPageSize=True)["data"])

    def close(self) -> None:
        """Close the tab."""
        self._chromium.command("Target.closeTarget", targetId=self._target)


def _pipe() -> tuple[int, int]:
    """A pipe: where to read, where to write."""
    made = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) for end in made)
    for end in made:
        os.close(end)
    return moved[0], moved[1]
