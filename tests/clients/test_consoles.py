"""Consoles of simulated guests: addresses by the ordinary client, pages in a real browser."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from kilonova.agent.sim import screen
from kilonova.allinone import screenshot
from tests.clients.cloud import UserCloud
from tests.support import chromium
from tests.support.chromium import Chromium
from tests.support.console_pages import eventually, new_tab, pixels, terminal

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(not chromium.installed(), reason="needs Chromium"),
]

NAME = "screen-of-mine"
Address = Callable[..., str]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    browser = Chromium(tmp_path_factory.mktemp("chromium"))
    try:
        browser.start()
        yield browser
    finally:
        browser.stop()


@pytest.fixture(scope="module")
def server(cloud: UserCloud, image: str, flavor: str) -> Iterator[str]:
    words = ("server", "create", "--image", image, "--flavor", flavor, "--nic", "none", "--wait", NAME)
    yield cloud.value(*words, column="id")
    cloud.openstack("server", "delete", "--wait", NAME)


@pytest.fixture(scope="module")
def address(cloud: UserCloud, server: str) -> Address:
    """Asks for one as the ordinary client does, without the seconds that it takes to start."""
    headers = {"X-Auth-Token": cloud.token(), "OpenStack-API-Version": "compute 2.8"}

    def ask(kind: str, of: str = server) -> str:
        body = {"remote_console": {"protocol": "vnc" if kind == "novnc" else kind, "type": kind}}
        answer = httpx.post(f"{cloud.compute_url}/servers/{of}/remote-consoles", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["remote_console"]["url"])

    return ask


def test_the_ordinary_client_shows_addresses(cloud: UserCloud, server: str, browser: Chromium) -> None:
    for word, page in (("--novnc", "vnc_auto.html"), ("--serial", "serial.html")):
        shown = cloud.show("console", "url", "show", word, server)
        assert urlsplit(shown["url"]).path == f"/{page}"
        new_tab(browser, shown["url"])
        browser.wait_text("#status", "Connected")


@pytest.mark.parametrize("page", ["vnc_auto.html", "vnc_lite.html", "vnc.html"])
def test_a_page_shows_the_guest_s_screen(address: Address, browser: Chromium, page: str) -> None:
    url = address("novnc").replace("vnc_auto.html", page)
    new_tab(browser, url)
    if page == "vnc.html":
        # This page waits for its button: looking at it uses nothing up.
        browser.wait_text("#status", "Ready to connect")
        browser.run("document.getElementById('connect').click()")
    browser.wait_text("#status", "Connected")
    wanted = {f"{red},{green},{blue}" for red, green, blue in screen.colours(NAME)}
    eventually(lambda: set(pixels(browser)) == wanted)
    assert sum(pixels(browser).values()) == screen.WIDTH * screen.HEIGHT
    # The same, without a browser.
    picture = screenshot.take(address("novnc"))
    assert (picture.width, picture.height) == (screen.WIDTH, screen.HEIGHT)
    assert picture.colours() == len(wanted)
    assert browser.run("document.title") == NAME


def test_what_is_typed_on_the_serial_page_comes_back(cloud: UserCloud, address: Address, browser: Chromium) -> None:
    new_tab(browser, address("serial"))
    browser.wait_text("#status", "Connected")
    eventually(lambda: "simulated guest" in terminal(browser))
    browser.click(300, 300)
    browser.type("uname 42\n")
    eventually(lambda: "# uname 42\n#" in terminal(browser))
    eventually(lambda: "uname 42" in cloud.openstack("console", "log", "show", NAME))


def test_a_used_address_says_so_in_another_tab_and_works_on_in_its_own(address: Address, browser: Chromium) -> None:
    url = address("serial")
    new_tab(browser, url)
    browser.wait_text("#status", "Connected")
    # A reload, as a break of the connection does, comes back with the session of the tab.
    browser.open("about:blank")
    browser.open(url)
    browser.wait_text("#status", "Connected")
    new_tab(browser, url)
    browser.wait_text("#status", "used already")
    assert browser.run("document.getElementById('status').dataset.state") == "refused"
    assert browser.run("document.getElementById('reconnect').hidden") is True


def test_an_address_that_nobody_gave_says_so(address: Address, browser: Chromium) -> None:
    url = address("novnc")
    token = url.rpartition("%3D")[2]
    new_tab(browser, url.replace(token, "0" * len(token)))
    browser.wait_text("#status", "not valid")
    new_tab(browser, url.partition("?")[0])
    browser.wait_text("#status", "names no console")


def test_an_address_whose_time_is_over_says_so(cloud: UserCloud, address: Address, browser: Chromium) -> None:
    url = address("novnc")
    digest = hashlib.sha256(url.rpartition("%3D")[2].encode()).hexdigest()
    # As if it had been asked for ten minutes ago.
    with contextlib.closing(sqlite3.connect(cloud.directory / "kilonova/compute.sqlite", timeout=60)) as database:
        changed = database.execute(
            "UPDATE console_auth_tokens SET expires_at = ? WHERE token_hash = ?", (time.time() - 1, digest)
        )
        database.commit()
    assert changed.rowcount == 1
    new_tab(browser, url)
    browser.wait_text("#status", "has expired")


def test_a_stopped_server_s_addresses_and_sessions_end(
    cloud: UserCloud, image: str, flavor: str, address: Address, browser: Chromium
) -> None:
    words = ("server", "create", "--image", image, "--flavor", flavor, "--nic", "none", "--wait", "console-stopped")
    server = cloud.value(*words, column="id")
    used, unused = address("novnc", of=server), address("serial", of=server)
    new_tab(browser, used)
    browser.wait_text("#status", "Connected")
    cloud.openstack("server", "stop", server)
    browser.wait_text("#status", "was stopped")
    new_tab(browser, unused)
    browser.wait_text("#status", "was stopped")
    cloud.openstack("server", "delete", "--wait", server)


def test_a_page_from_elsewhere_gets_no_console(address: Address) -> None:
    url = urlsplit(address("serial"))
    target = f"ws://{url.netloc}/?{url.query}"

    async def attempt(origin: str) -> int | None:
        try:
            async with connect(target, additional_headers={"Origin": origin}) as socket:
                await socket.recv()
                return None
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else 0
        except Exception as error:
            return int(error.response.status_code) if hasattr(error, "response") else -1

    assert asyncio.run(attempt("http://evil.example")) == 403
    # It has not used the token up.
    assert asyncio.run(attempt(f"http://{url.netloc}")) is None
    assert asyncio.run(attempt(f"http://{url.netloc}")) == 4401


def test_no_token_is_written_anywhere(cloud: UserCloud, address: Address, browser: Chromium) -> None:
    url = address("novnc")
    token = url.rpartition("%3D")[2]
    new_tab(browser, url)
    browser.wait_text("#status", "Connected")
    session = str(browser.run(f"sessionStorage.getItem('console-{token}')"))
    assert len(session) == 32
    looked_at = 0
    for path in cloud.directory.rglob("*"):
        if path.is_file() and (path.suffix == ".log" or "sqlite" in path.name):
            looked_at += 1
            text = path.read_bytes()
            assert token.encode() not in text, path
            assert session.encode() not in text, path
    assert looked_at > 3


def test_the_proxy_knows_no_other_paths(cloud: UserCloud, address: Address, browser: Chromium, tmp_path: Path) -> None:
    url = urlsplit(address("novnc"))
    browser.open(f"http://{url.netloc}/nothing.html")
    browser.wait_text("body", "Compute gives the addresses of consoles")
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
