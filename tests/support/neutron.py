"""Neutron's API server alone, with our driver, for tests: no Keystone, and a receiver in place of Compute."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from kilonova.allinone import state, up
from kilonova.allinone.neutron import hints_address, network_spec
from tests.support.allinone import free_offset

START = 120.0
"""Seconds; three on an idle machine."""


PROJECT = "a" * 32

_PATHS = {
    "security_group": "security-groups",
    "security_group_rule": "security-group-rules",
    "address_group": "address-groups",
    "policy": "qos/policies",
}


class EventReceiver:
    """Takes POST /os-server-external-events as Compute does, and keeps the events."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                receiver.events += body["events"]
                answer = json.dumps({"events": [{**event, "code": 200} for event in body["events"]]}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                self.send_error(404)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v2.1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def of(self, port_id: str) -> list[str]:
        """The events of a port, in order."""
        return [event["name"] for event in self.events if event.get("tag") == port_id]


class Neutron:
    """Everybody is an admin of the project that `X-Project-Id` names. May be stopped and started again."""

    def __init__(self, directory: Path, *, hints: str = "", driver: Path | None = None) -> None:
        """`hints`: where it sends them, if not to the cloud's own place. `driver`: a directory that has our package, if
        not these sources are to be loaded.
        """
        self._driver = driver
        self.receiver = EventReceiver()
        opened = state.open_state_dir(directory)
        options = up.UpOptions(state_dir=opened.path, port_offset=free_offset(), networking="neutron")
        self.settings = up.make_settings(options, opened, "sim")
        self.hints = hints or hints_address(self.settings)
        self.spec = network_spec(self.settings, opened.secrets)
        config = Path(self.spec.stdin["config"])
        extra = f"[DEFAULT]\nauth_strategy = noauth\n[nova]\nauth_type = none\nendpoint = {self.receiver.url}\n"
        config.write_text(config.read_text() + extra + f"[kilonova]\nhints = {self.hints}\n")
        # Without Keystone nobody has the role `service`.
        (config.parent.parent / "policy.yaml").write_text('service_api: "@"\n')
        self.log = opened.path / "log/neutron.log"
        self.url = self.settings.network_url
        self.http = httpx.Client(base_url=self.url + "/v2.0", timeout=60, trust_env=False)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers. Raises AssertionError with its log when it ends."""
        with self.log.open("ab") as log:
            environment = {**os.environ} | ({"PYTHONPATH": str(self._driver)} if self._driver else {})
            self.process = subprocess.Popen(
                self.spec.command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd="/", start_new_session=True,
                env=environment,
            )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**self.spec.stdin, "parent": os.getpid()}).encode())
        self.process.stdin.close()
        deadline = time.monotonic() + START
        while True:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline
            try:
                self.http.get(self.url + "/")
                return
            except httpx.TransportError:
                time.sleep(0.05)

    def stop(self) -> None:
        """As a crash does."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def close(self) -> None:
        self.stop()
        self.http.close()
        self.receiver.close()

    def call(self, method: str, path: str, body: object = None, *, expect: int | None = None) -> Any:
        answer = self.http.request(method, path, json=body, headers={"X-Project-Id": PROJECT})
        if expect is None:
            assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        else:
            assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def create(self, kind: str, **fields: Any) -> dict[str, Any]:
        """`kind` in the singular, as `floatingip`."""
        path = _PATHS.get(kind, f"{kind}s")
        made: dict[str, Any] = self.call("POST", f"/{path}", {kind: {"project_id": PROJECT, **fields}})[kind]
        return made

    def network(self, cidr: str = "10.0.0.0/24", **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """A network with a subnet."""
        network = self.create("network", name=f"n-{uuid.uuid4().hex[:6]}", **fields)
        subnet = self.create("subnet", network_id=network["id"], cidr=cidr, ip_version=4)
        return network, subnet

    def server_port(self, network_id: str, host: str, **fields: Any) -> dict[str, Any]:
        """A port as Compute makes it for a server on a host."""
        wanted = {"device_owner": "compute:nova", "device_id": str(uuid.uuid4()), "binding:host_id": host}
        return self.create("port", network_id=network_id, **{**wanted, **fields})

    def show(self, kind: str, id: str) -> dict[str, Any]:
        shown: dict[str, Any] = self.call("GET", f"/{kind}s/{id}")[kind]
        return shown

    def report(self, **what: Any) -> list[str]:
        """What the role `network` tells; the ids that Neutron does not know."""
        unknown: list[str] = self.call("POST", "/plane-reports", {"plane_report": what})["plane_report"]["unknown"]
        return unknown


def eventually(true: Callable[[], object], what: str, timeout: float = 60.0) -> None:
    """Wait until it is so. Raises AssertionError naming `what`."""
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.02)
