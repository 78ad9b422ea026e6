"""A cloud brought up by `kilonova up` for one test: its own directory and ports, ended by process id."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from kilonova.allinone.settings import Ports
from kilonova.allinone.status import read_report

BIN = Path(sys.executable).parent
UP_TIMEOUT = 400.0
"""Seconds; a loaded machine takes minutes for what takes seconds alone."""


def free_offset() -> int:
    """An offset at which all of a cloud's ports are free on loopback."""
    for _ in range(200):
        # All ports below those that the system gives to connections, any of which may take one meanwhile.
        offset = random.randrange(12000, 22000)
        ports = Ports.with_offset(offset)
        try:
            for port in (ports.identity, ports.image, ports.compute):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return offset
    raise RuntimeError("no free range of ports")


class Cloud:
    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.offset = free_offset()
        self.options = options

    @property
    def compute_url(self) -> str:
        return f"http://127.0.0.1:{Ports.with_offset(self.offset).compute}/v2.1"

    @property
    def identity_url(self) -> str:
        return f"http://127.0.0.1:{Ports.with_offset(self.offset).identity}/v3"

    @property
    def network_url(self) -> str:
        return f"http://127.0.0.1:{Ports.with_offset(self.offset).network}/v2.0"

    def up(self) -> None:
        """Bring it up, or up again. Raises AssertionError with what it said when it fails."""
        command = [
            str(BIN / "python"), "-m", "kilonova.cli", "up", "--detach",
            "--state-dir", str(self.directory), "--port-offset", str(self.offset), *self.options,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=UP_TIMEOUT)
        assert done.returncode == 0, done.stdout + done.stderr

    def kill(self) -> None:
        """End it as a power cut would, as far as processes go."""
        report = read_report(self.directory)
        assert report is not None
        with suppress(ProcessLookupError):
            os.kill(report.owner.pid, signal.SIGKILL)
        end = time.monotonic() + 30
        while read_report(self.directory) is not None:
            assert time.monotonic() < end
            time.sleep(0.02)

    def down(self) -> None:
        command = [
            str(BIN / "python"),
            "-m",
            "kilonova.cli",
            "down",
            "--stop-guests",
            "--state-dir",
            str(self.directory),
        ]
        subprocess.run(command, capture_output=True, timeout=UP_TIMEOUT, check=True)

    def environment(self, cloud: str = "kilonova") -> dict[str, str]:
        """For the ordinary clients."""
        return os.environ | {"OS_CLIENT_CONFIG_FILE": str(self.directory / "clouds.yaml"), "OS_CLOUD": cloud}

    def openstack(self, *arguments: str, cloud: str = "kilonova") -> str:
        """What the ordinary client prints. Raises AssertionError with its error when it fails."""
        command = [str(BIN / "openstack"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=self.environment(cloud))
        assert done.returncode == 0, f"openstack {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def token(self, cloud: str = "kilonova") -> str:
        auth = yaml.safe_load((self.directory / "clouds.yaml").read_text())["clouds"][cloud]["auth"]
        body: dict[str, Any] = {
            "auth": {
                "identity": {
                    "methods": ["password"],
                    "password": {
                        "user": {"name": auth["username"], "domain": {"name": "Default"}, "password": auth["password"]}
                    },
                },
                "scope": {"project": {"name": auth["project_name"], "domain": {"name": "Default"}}},
            }
        }
        url = auth["auth_url"].rstrip("/").removesuffix("/v3")
        answer = httpx.post(f"{url}/v3/auth/tokens", json=body, timeout=60)
        assert answer.status_code == 201, answer.text
        return answer.headers["X-Subject-Token"]
