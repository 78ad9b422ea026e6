"""The console pages in a browser: what the screen shows, what the terminal says, what the page says of itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.support.chromium import START, Chromium

GLYPH = 20
"""Pixels that are lit of a digit on the guest's screen, at least."""
CURSOR = 200
"""Pixels that may come and go by themselves."""

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


def lit(browser: Chromium) -> int:
    """Pixels of the screen that are not black."""
    return sum(count for colour, count in pixels(browser).items() if colour != "0,0,0")


def at_rest(browser: Chromium) -> int:
    """How many are lit once that does not change any more."""
    before = -CURSOR
    while abs((now := lit(browser)) - before) >= CURSOR // 2:
        before = now
        time.sleep(2)
    return now


def typed(browser: Chromium, text: str, shows: Callable[[int, int], bool], patience: float = START) -> None:
    """Type a line on the screen, and wait for what it does to the number of lit pixels (before, after)."""
    browser.type(text)
    before = at_rest(browser)
    browser.type("\n")
    eventually(lambda: shows(before, lit(browser)), patience)
    at_rest(browser)


def cleared(browser: Chromium, patience: float) -> None:
    """Type `clear` until it is done: a login that takes its time throws away what is typed meanwhile."""
    until = time.monotonic() + patience
    while lit(browser) >= 40 * GLYPH:
        assert time.monotonic() < until, lit(browser)
        browser.type("clear\n")
        at_rest(browser)
        time.sleep(5)


def click_screen(browser: Chromium) -> None:
    """In its middle, so that keys go to it."""
    box = browser.run("(({x, y, width, height}) => [x + width / 2, y + height / 2])"
                      "(document.querySelector('#screen canvas').getBoundingClientRect())")  # fmt: skip
    browser.click(*box)


def work_at_the_screen(browser: Chromium, patience: float = START) -> None:
    """Once the page is open: see what the guest has said since its start, log in, type, and see what it answers."""
    browser.wait_text("#status", "Connected", patience)
    eventually(lambda: lit(browser) > 100 * GLYPH, patience)
    click_screen(browser)
    typed(browser, "root", lambda before, now: now > before + 3 * GLYPH, patience)
    typed(browser, "kilonova", lambda before, now: now != before, patience)
    cleared(browser, patience)
    lines = 20
    typed(browser, f"seq 7001 {7000 + lines}", lambda before, now: now > before + lines * 4 * GLYPH, patience)
