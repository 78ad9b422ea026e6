"""The reference implementation as a child process: its environment, made once, and its life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx

from compat.play import Side

ROOT = Path(__file__).parent.parent
ENVIRONMENT = ROOT / ".cache" / "oracle"
CONSTRAINTS = ROOT / "constraints" / "oracle.txt"
PACKAGES = (
    "nova",
    "openstack-placement",
    "sqlalchemy",
    "fixtures",
    "testtools",
    "oslotest",
    "requests-mock",
    "wsgi-intercept",
    "ddt",
)
START = 180.0
"""Seconds the reference may take to serve; 10 on an idle machine."""


def prepare() -> Path:
    """The interpreter of the reference's environment; makes it (about two minutes) when it is not there."""
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "constraints.txt"
    if stamp.exists() and stamp.read_text() == CONSTRAINTS.read_text():
        return python
    print(f"installing the reference implementation into {ENVIRONMENT.relative_to(ROOT)}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", str(CONSTRAINTS), *PACKAGES], check=True)
    # The reference's own tests look for its configuration beside the package.
    packages = next((ENVIRONMENT / "lib").glob("python3.*/site-packages"))
    (packages / "etc").mkdir(exist_ok=True)
    link = packages / "etc" / "nova"
    if not link.exists():
        # Relative, since the tree may be moved.
        link.symlink_to("../../../../etc/nova")
    stamp.write_text(CONSTRAINTS.read_text())
    return python


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def oracle(log: Path) -> AsyncIterator[Side]:
    """The reference, serving, until the end of the block. What it says goes to `log`."""
    python = await asyncio.to_thread(prepare)
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            str(python),
            "-W",
            "ignore",
            str(Path(__file__).with_name("oracle_server.py")),
            str(free_port()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
            env=environment,
            cwd=ROOT,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START)
            if not line:
                raise RuntimeError(f"the reference does not start, see {log}")
            about = json.loads(line)
            changed: dict[str, int] = {}
            async with httpx.AsyncClient(timeout=60.0) as http:

                async def configure(options: Mapping[str, int]) -> None:
                    changed.update(dict.fromkeys(changed, 0))
                    changed.update(options)
                    if changed:
                        (await http.put(f"{about['base']}/options", json=changed)).raise_for_status()

                yield Side(
                    name="reference",
                    http=http,
                    base=about["base"],
                    project=about["project"],
                    hosts=tuple(about["hosts"]),
                    image=about["images"][0],
                    other_image=about["images"][1],
                    network=about["network"],
                    ports=tuple(about["ports"]),
                    group=about["group"],
                    configure=configure,
                )
        finally:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 20)
            except TimeoutError:
                process.kill()
                await process.wait()
