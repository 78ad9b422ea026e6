"""A whole cloud as a user has one: started by `kilonova up`, used by the `openstack` command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx

from kilonova.allinone import processes
from kilonova.allinone.status import Report, read_report
from tests.support.allinone import BIN, UP_TIMEOUT, Cloud


class UserCloud(Cloud):
    """Adds what tests of the commands themselves need."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "--hypervisor", "sim")

    def kilonova(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a `kilonova` command on this directory, whatever comes of it."""
        command = [str(BIN / "kilonova"), *words, "--state-dir", str(self.directory)]
        return subprocess.run(command, capture_output=True, text=True, timeout=UP_TIMEOUT, check=False)

    def try_up(self) -> subprocess.CompletedProcess[str]:
        """As `up`, whatever comes of it."""
        return self.kilonova("up", "--detach", "--port-offset", str(self.offset), *self.options)

    def show(self, *words: str, cloud: str = "kilonova") -> Any:
        """What the `openstack` command tells as JSON."""
        return json.loads(self.openstack(*words, "-f", "json", cloud=cloud))

    def value(self, *words: str, column: str) -> str:
        """One column of what the `openstack` command tells."""
        return self.openstack(*words, "-f", "value", "-c", column)

    def interfaces(self, server: str) -> list[Any]:
        """A server's interfaces with their tags, of which the `openstack` command shows nothing."""
        answer = self._compute("GET", f"/servers/{self._id(server)}/os-interface", "2.70")
        return list(answer.json()["interfaceAttachments"])

    def act(self, server: str, action: Any, *, version: str = "2.1") -> None:
        """An action that the `openstack` command does not know any more."""
        self._compute("POST", f"/servers/{self._id(server)}/action", version, action)

    def server(self, name: str, version: str = "2.1") -> Any:
        """A server as the API shows it, without the seconds that the `openstack` command takes to start."""
        (found,) = self._compute("GET", f"/servers/detail?name=^{name}$", version).json()["servers"]
        return found

    def of_networking(self, path: str) -> Any:
        """What Networking answers."""
        answer = httpx.get(self.network_url + path, headers={"X-Auth-Token": self.token()}, timeout=60)
        assert answer.is_success, answer.text
        return answer.json()

    def _id(self, server: str) -> str:
        return str(self.server(server)["id"])

    def _compute(self, method: str, path: str, version: str, body: Any = None) -> httpx.Response:
        headers = {"X-Auth-Token": self.token(), "OpenStack-API-Version": f"compute {version}"}
        answer = httpx.request(method, self.compute_url + path, json=body, headers=headers, timeout=60)
        assert answer.is_success, answer.text
        return answer

    def report(self) -> Report:
        """What `kilonova up` says of itself."""
        report = read_report(self.directory)
        assert report is not None
        return report

    def part(self, name: str) -> Any:
        """One part of that."""
        return next(part for part in self.report().parts if part.name == name)

    def kill_all_at_once(self) -> list[processes.ProcessId]:
        """kill -9 of `kilonova up`; the processes that it was and had."""
        report = self.report()
        found = {processes.identify(part.pid) for part in report.parts if part.pid}
        os.kill(report.owner.pid, signal.SIGKILL)
        return [process for process in found if process is not None]
