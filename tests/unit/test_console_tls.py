"""Screens by TLS between proxy and host (VeNCrypt): QEMU's own server on the one side, a viewer of VNC on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kilonova.allinone import screenshot
from kilonova.console.proxy import rfb
from kilonova.console.settings import NONE, VENCRYPT, ScreenSecurity
from kilonova.errors import Invalid
from tests.support.certificates import write_certificates
from tests.unit.test_console_proxy import Make, Scene, make  # noqa: F401 # a fixture

QEMU = "qemu-system-x86_64"
needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason="needs QEMU")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """As QEMU wants them, for both sides."""
    return issue(tmp_path / "pki")


def issue(directory: Path) -> Path:
    directory.mkdir()
    write_certificates(directory)
    for name, called in (
        ("ca.pem", "ca-cert.pem"),
        ("server.pem", "server-cert.pem"),
        ("server.key", "server-key.pem"),
    ):
        shutil.copy(directory / name, directory / called)
    return directory


def security(directory: Path, *schemes: str, authority: Path | None = None) -> ScreenSecurity:
    return ScreenSecurity(
        schemes=schemes,
        authorities=str((authority or directory) / "ca-cert.pem"),
        certificate=str(directory / "server-cert.pem"),
        key=str(directory / "server-key.pem"),
    )


@contextlib.asynccontextmanager
async def screen(certificates: Path | None) -> AsyncIterator[int]:
    """The port of a guest's screen; with certificates it wants TLS, and a certificate of whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    tls = f"tls-creds-x509,id=tls,endpoint=server,verify-peer=yes,dir={certificates}"
    secured = () if certificates is None else ("-object", tls)
    process = await asyncio.create_subprocess_exec(
        QEMU, "-machine", "none", "-nodefaults", "-display", "none", *secured,
        "-vnc", f"127.0.0.1:{port - 5900}{',tls-creds=tls' if secured else ''}",
        stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while True:
                assert process.returncode is None
                with contextlib.suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0.05)
        yield port
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def shows(scene: Scene, port: int) -> str:
    """A token for the screen at the port; the address that a page of noVNC has."""
    scene.answers["t"] = {"kind": "vnc", "port": port}
    return f"{scene.url}/vnc.html?path=%3Ftoken%3Dt"


@needs_qemu
async def test_a_browser_without_tls_sees_a_screen_that_wants_it(make: Make, certificates: Path) -> None:  # noqa: F811
    scene = await make(security=security(certificates, NONE, VENCRYPT))
    async with screen(certificates) as port:
        picture = await asyncio.to_thread(screenshot.take, shows(scene, port))
        assert picture.colours() >= 2


@needs_qemu
async def test_screens_without_tls_are_seen_where_the_operator_lets_them(make: Make, certificates: Path) -> None:  # noqa: F811
    scene = await make(security=security(certificates, VENCRYPT, NONE))
    async with screen(None) as port:
        picture = await asyncio.to_thread(screenshot.take, shows(scene, port))
        assert picture.colours() >= 2


@needs_qemu
async def test_nobody_is_led_to_a_screen_without_tls_where_it_is_asked_for(make: Make, certificates: Path) -> None:  # noqa: F811
    scene = await make(security=security(certificates, VENCRYPT))
    async with screen(None) as port:
        shows(scene, port)
        assert (await scene.closed("t"))[0] == 4502


@needs_qemu
async def test_a_host_whose_certificate_another_signed_is_not_believed(
    make: Make,  # noqa: F811
    certificates: Path,
    tmp_path: Path,
) -> None:
    other = issue(tmp_path / "other")
    scene = await make(security=security(certificates, VENCRYPT, authority=other))
    async with screen(certificates) as port:
        shows(scene, port)
        assert (await scene.closed("t"))[0] == 4502


@needs_qemu
async def test_a_host_does_not_believe_a_proxy_that_another_signed(
    make: Make,  # noqa: F811
    certificates: Path,
    tmp_path: Path,
) -> None:
    other = issue(tmp_path / "other")
    scene = await make(security=security(other, VENCRYPT, authority=certificates))
    async with screen(certificates) as port:
        shows(scene, port)
        assert (await scene.closed("t"))[0] == 4502


@pytest.mark.parametrize("missing", ["ca-cert.pem", "server-cert.pem", "server-key.pem"])
def test_without_its_files_the_proxy_does_not_start(certificates: Path, missing: str) -> None:
    os.remove(certificates / missing)
    with pytest.raises(Invalid, match=missing):
        rfb.tls_context(security(certificates, VENCRYPT))
    assert rfb.tls_context(security(certificates, NONE)) is None


@pytest.mark.parametrize(
    ("says", "hears"),
    [
        ([b"RFB 003.008\n", b"\1"], [b"RFB 003.008\n", b"\1\1", b"\0\0\0\0"]),
        ([b"RFB 003.", b"008\n", b"\1"], [b"RFB 003.008\n", b"\1\1", b"\0\0\0\0"]),
        ([b"RFB 003.007\n", b"\1"], [b"RFB 003.008\n", b"\1\1"]),
        ([b"RFB 003.003\n"], [b"RFB 003.008\n", b"\0\0\0\1"]),
    ],
)
async def test_browsers_of_every_version_are_let_in(says: list[bytes], hears: list[bytes]) -> None:
    heard = []
    more = iter([*({"type": "websocket.receive", "bytes": part} for part in says), {"type": "websocket.disconnect"}])

    async def receive() -> dict[str, object]:
        return next(more)

    async def send(message: object) -> None:
        assert isinstance(message, dict)
        heard.append(message["bytes"])

    assert await rfb.greet(receive, send) == b""
    assert heard == hears
    assert await rfb.greet(receive, send) is None
