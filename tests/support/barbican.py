"""The real key manager: Barbican in a virtual environment of its own, on SQLite, with Keystone's tokens."""

from __future__ import annotations

import base64
import os
import socket
import subprocess
import time
from pathlib import Path

import httpx

from kilonova.allinone.services import services_dir
from tests.support.allinone import Cloud

PYTHON = services_dir() / "barbican/bin/python"
"""`scripts/setup.sh --cluster` puts it there: one test needs it, and installing it takes half a minute."""

_SERVE = """
import sys
from wsgiref.simple_server import make_server
from paste.deploy import loadapp
make_server("127.0.0.1", int(sys.argv[2]), loadapp("config:" + sys.argv[1])).serve_forever()
"""
_CONF = """
[DEFAULT]
host_href = http://127.0.0.1:{port}
log_file = {directory}/barbican.log
db_auto_create = true
[database]
connection = sqlite:///{directory}/barbican.sqlite
[secretstore]
enabled_secretstore_plugins = store_crypto
[crypto]
enabled_crypto_plugins = simple_crypto
[simple_crypto_plugin]
kek = YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXoxMjM0NTY=
[keystone_authtoken]
www_authenticate_uri = {identity}
auth_url = {identity}
auth_type = password
username = barbican
password = barbican
project_name = service
user_domain_name = Default
project_domain_name = Default
"""


class Barbican:
    """One for a cloud: its user, its service and its endpoint are in that cloud's Identity."""

    def __init__(self, directory: Path, cloud: Cloud) -> None:
        self.directory = directory
        self._cloud = cloud
        self._process: subprocess.Popen[bytes] | None = None
        self._url = ""

    def start(self) -> None:
        """Raises AssertionError with what it said when it does not answer within a minute."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.directory.mkdir()
        self._url = f"http://127.0.0.1:{port}"
        self._register()
        paste = PYTHON.parent.parent / "etc/barbican/barbican-api-paste.ini"
        # Each of its parts reads the file by itself, where it is by default.
        conf = self.directory / ".barbican/barbican.conf"
        conf.parent.mkdir()
        identity = self._cloud.identity_url
        conf.write_text(_CONF.format(directory=self.directory, port=port, identity=identity))
        command = [str(PYTHON), "-c", _SERVE, str(paste), str(port)]
        environment = os.environ | {"HOME": str(self.directory)}
        with (self.directory / "output").open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        end = time.monotonic() + 60
        while True:
            try:
                if httpx.get(f"{self._url}/healthcheck").status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            alive = self._process.poll() is None and time.monotonic() < end
            assert alive, (self.directory / "output").read_text()[-3000:]
            time.sleep(0.2)

    def store(self, certificate: bytes, owner: str) -> str:
        """A certificate of that one of the cloud's users; its id."""
        secret = {
            "secret_type": "certificate",
            "payload": base64.b64encode(certificate).decode(),
            "payload_content_type": "application/octet-stream",
            "payload_content_encoding": "base64",
        }
        headers = {"X-Auth-Token": self._cloud.token(owner)}
        answer = httpx.post(f"{self._url}/v1/secrets", json=secret, headers=headers, timeout=60)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["secret_ref"]).rsplit("/", 1)[-1]

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _register(self) -> None:
        ask = self._cloud.openstack
        ask("user", "create", "--password", "barbican", "barbican")
        ask("role", "add", "--user", "barbican", "--project", "service", "service")
        ask("service", "create", "--name", "barbican", "key-manager")
        ask("endpoint", "create", "key-manager", "public", self._url)
