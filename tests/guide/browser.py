"""Runs on the client's machine: opens a console's address in Chromium, looks at the screen and types on it.

    python -m tests.guide.browser URL

Exit code 0: the guest showed what was typed, and what it answered; and nobody else gets in by the same address.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.support.chromium import Chromium
from tests.support.console_pages import new_tab, work_at_the_screen

PATIENCE = 240.0


def main(url: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        browser = Chromium(Path(directory) / "profile")
        try:
            browser.start()
            browser.open(url)
            work_at_the_screen(browser, PATIENCE)
            new_tab(browser, url)
            browser.wait_text("#status", "used already", PATIENCE)
        finally:
            browser.stop()


if __name__ == "__main__":
    main(sys.argv[1])
