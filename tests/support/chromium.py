"""A headless Chromium that a test drives by its DevTools protocol: opens pages, types, looks at pixels."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

PROGRAM = "chromium"
START = 60.0
"""Seconds that the browser gets to start, and to answer; on a loaded machine both take long."""
_ENTER = {"key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}


def installed() -> bool:
    return shutil.which(PROGRAM) is not None


class Chromium:
    """One browser with one tab. Its profile and its log are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ids = itertools.count(1)
        self._open = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: ClientConnection | None = None
        self._session = ""
        self._tab = ""

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        options = (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--remote-debugging-port=0", f"--user-data-dir={self.directory}",
            "--window-size=1000,800", "about:blank",
        )  # fmt: skip
        with (self.directory / "browser.log").open("wb") as log:
            self._process = subprocess.Popen([PROGRAM, *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        port, path = self._until(self._listening, "the browser did not start")
        opened = connect(f"ws://127.0.0.1:{port}{path}", max_size=64 * 1024 * 1024, open_timeout=START)
        self._connection = self._open.enter_context(opened)
        self.new_tab()

    def stop(self) -> None:
        self._open.close()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def new_tab(self) -> None:
        """The tab there is gives way to another one, which knows nothing of what pages kept in it."""
        earlier, self._session = self._tab, ""
        self._tab = str(self._call("Target.createTarget", url="about:blank")["targetId"])
        session = self._call("Target.attachToTarget", targetId=self._tab, flatten=True)["sessionId"]
        if earlier:
            self._call("Target.closeTarget", targetId=earlier)
        self._session = str(session)
        self._call("Page.enable")

    def open(self, url: str) -> None:
        done = self._call("Page.navigate", url=url)
        assert "errorText" not in done, done

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page; a promise is awaited."""
        done = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def text(self, selector: str) -> str:
        """What an element says; empty when there is none."""
        return str(self.run(f"(document.querySelector({json.dumps(selector)}) || {{}}).innerText || ''"))

    def wait_text(self, selector: str, part: str, patience: float = START) -> str:
        """Until the element says it. Raises AssertionError with what it says instead."""
        until = time.monotonic() + patience
        while part not in (said := self.text(selector)):
            assert time.monotonic() < until, f"{selector} says {said!r}"
            time.sleep(0.2)
        return said

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Key by key; a line's end is Enter. Letters, digits and what US keyboards have without shift."""
        for letter in text:
            key: dict[str, Any] = _ENTER
            if letter != "\n":
                code = f"Key{letter.upper()}" if letter.isalpha() else f"Digit{letter}" if letter.isdigit() else ""
                key = {"key": letter, "text": letter, "code": "Space" if letter == " " else code}
            self._call("Input.dispatchKeyEvent", type="keyDown", **key)
            self._call("Input.dispatchKeyEvent", type="keyUp", **key)
            time.sleep(0.05)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def _listening(self) -> list[str] | None:
        assert self._process is not None
        log = (self.directory / "browser.log").read_text(errors="replace")
        assert self._process.poll() is None, log[-2000:]
        file = self.directory / "DevToolsActivePort"
        words = file.read_text().split() if file.is_file() else []
        return words if len(words) == 2 else None

    def _until(self, check: Callable[[], Any], otherwise: str) -> Any:
        until = time.monotonic() + START
        while not (found := check()):
            assert time.monotonic() < until, otherwise
            time.sleep(0.1)
        return found

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        assert self._connection is not None
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=START))
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                found: dict[str, Any] = answer.get("result", {})
                return found
