"""The console pages in a browser: what the screen shows, what the terminal says, what the page says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.support.chromium import START, Chromium

_PIXELS = """(() => {
  const canvas = document.querySelector("#screen canvas");
  if (!canvas || !canvas.width) return {};
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const counts = {};
  for (let at = 0; at < data.length; at += 4) {
    const key = data[at] + "," + data[at + 1] + "," + data[at + 2];
    counts[key] = (counts[key] || 0) + 1;
  }
  return counts;
})()"""
_TEXT = (
    "(() => { terminal.selectAll(); const text = terminal.getSelection(); terminal.clearSelection(); return text; })()"
)


def pixels(browser: Chromium) -> dict[str, int]:
    """How many pixels of each colour (`red,green,blue`) the guest's screen has."""
    found: dict[str, int] = browser.run(_PIXELS)
    return found


def terminal(browser: Chromium) -> str:
    """All that the serial page's terminal shows."""
    return str(browser.run(_TEXT))


def eventually(check: Callable[[], Any], patience: float = START) -> Any:
    """What `check` returns as soon as that is true. Raises AssertionError with what it returned instead."""
    until = time.monotonic() + patience
    while not (found := check()):
        assert time.monotonic() < until, found
        time.sleep(0.2)
    return found


def new_tab(browser: Chromium, url: str) -> None:
    """Open the address as somebody who has not been there: a tab keeps its sessions for as long as it is there."""
    browser.new_tab()
    browser.open(url)
