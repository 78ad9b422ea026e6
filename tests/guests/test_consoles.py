"""A real guest's screen and serial line in a real browser."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect

from kilonova.allinone import libvirtd, screenshot
from tests.guests.test_networks import Guests
from tests.support import chromium
from tests.support.chromium import Chromium
from tests.support.console_pages import eventually, new_tab, pixels, terminal, work_at_the_screen
from tests.support.guests import PATIENCE

pytestmark = [
    pytest.mark.timeout(1200),
    # Of the SDK about itself.
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.skipif(libvirtd.probe_hypervisor() is not None, reason="real guests need root, QEMU and libvirt"),
    pytest.mark.skipif(not chromium.installed(), reason="needs Chromium"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    try:
        browser.start()
        yield browser
    finally:
        browser.stop()


def address(lab: Guests, kind: str) -> str:
    return str(lab.admin.compute.create_console(lab.a2, kind)["url"])


def test_the_screen_shows_text_and_a_typed_command_s_output(lab: Guests, browser: Chromium, tmp_path: Path) -> None:
    new_tab(browser, address(lab, "novnc"))
    work_at_the_screen(browser, PATIENCE)
    browser.screenshot(tmp_path / "typed.png")
    # The same, without a browser.
    picture = screenshot.take(address(lab, "novnc"))
    assert picture.colours() >= 2
    assert picture.width * picture.height == sum(pixels(browser).values())


def test_the_serial_line_takes_commands(lab: Guests, browser: Chromium) -> None:
    new_tab(browser, address(lab, "serial"))
    browser.wait_text("#status", "Connected", PATIENCE)
    browser.click(300, 300)
    browser.type("\n")
    eventually(lambda: "a2 login:" in terminal(browser), PATIENCE)
    browser.type("root\n")
    eventually(lambda: "Password:" in terminal(browser), PATIENCE)
    browser.type("kilonova\n")
    eventually(lambda: terminal(browser).rstrip().endswith("#"), PATIENCE)
    browser.type("seq 7001 7003\n")
    eventually(lambda: "\n7001\n7002\n7003\n" in terminal(browser), PATIENCE)
    # Two at one line see the same, and both type.
    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(asyncio.run, watch(address(lab, "serial"), b"seq 9001 9003\n", b"\n9003\r\n"))
        eventually(lambda: "\n9001\n9002\n9003\n" in terminal(browser), PATIENCE)
        browser.type("exit\n")
        eventually(lambda: terminal(browser).rstrip().endswith("a2 login:"), PATIENCE)
        assert b"\r\n9001\r\n9002\r\n9003\r\n" in watching.result(PATIENCE)


async def watch(url: str, typed: bytes, until: bytes) -> bytes:
    """What another client of the serial line sees once it has typed something."""
    parts = urlsplit(url)
    seen = b""
    async with asyncio.timeout(PATIENCE), connect(f"ws://{parts.netloc}/?{parts.query}") as socket:
        await socket.send(typed)
        while until not in seen:
            data = await socket.recv()
            assert isinstance(data, bytes)
            seen += data
    return seen
