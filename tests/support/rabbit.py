"""A RabbitMQ of the tests' own: node name, ports, directories and port mapper are private."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.certificates import write_certificates
from tests.support.processes import HERE, Place, accepts, end, free_port, spawn, wait_until

_SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class Broker:
    """One broker. `kill` and `start` in turn are what a crash and a restart are.

    With a `peer` it joins that one's cluster. A node that says nothing for about `tick` seconds counts as down there.
    """

    user = "kilonova"
    password = "br/ok@er"

    def __init__(self, directory: Path, *, peer: Broker | None = None, tick: int = 60, place: Place = HERE) -> None:
        self.directory = directory
        self.place = place
        self.port = free_port()
        self.tls_port = free_port()
        self._peer = peer
        self._tick = tick
        self.epmd_port = free_port() if peer is None else peer.epmd_port
        self.cookie: str = secrets.token_hex(16) if peer is None else peer.cookie
        self._dist_port = free_port()
        self._log = directory / "rabbitmq.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._epmd: subprocess.Popen[bytes] | None = None
        (directory / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {place.address}:{self.port}\n"
            f"default_user = {self.user}\n"
            f"default_pass = {self.password}\n"
            "log.console = true\nlog.console.level = warning\nlog.file = false\n"
            f"listeners.ssl.1 = {place.address}:{self.tls_port}\n"
            f"ssl_options.cacertfile = {directory}/ca.pem\n"
            f"ssl_options.certfile = {directory}/server.pem\n"
            f"ssl_options.keyfile = {directory}/server.key\n"
            "disk_free_limit.absolute = 50MB\n"
            "cluster_partition_handling = pause_minority\n"
        )
        if peer is not None:
            nodes = "".join(
                f"cluster_formation.classic_config.nodes.{number} = {node.name}\n"
                for number, node in enumerate((peer, self), 1)
            )
            with (directory / "rabbitmq.conf").open("a") as file:
                file.write(f"cluster_formation.peer_discovery_backend = classic_config\n{nodes}")
        cookie = directory / ".erlang.cookie"
        cookie.write_text(self.cookie)
        cookie.chmod(0o400)
        write_certificates(directory)
        (directory / "enabled_plugins").write_text("[].\n")

    @property
    def name(self) -> str:
        return f"kn{self.port}@localhost"

    @property
    def pid(self) -> int:
        """Of the server's first process; the broker is among its children."""
        assert self._server is not None
        return self._server.pid

    @property
    def transport_url(self) -> str:
        return transport_url([self])

    def _env(self) -> dict[str, str]:
        here = str(self.directory)
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": here,
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": self.place.address,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{here}/mnesia",
            "RABBITMQ_LOG_BASE": f"{here}/log",
            "RABBITMQ_PID_FILE": f"{here}/pid",
            "RABBITMQ_CONFIG_FILE": f"{here}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{here}/enabled_plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                f"-kernel inet_dist_use_interface {{127,0,0,1}} net_ticktime {self._tick} +S 1:1 +sbwt none"
            ),
        }

    def start(self) -> None:
        """Start the broker and wait until it takes connections."""
        if self._epmd is None and self._peer is None:
            epmd = ["/usr/bin/epmd", "-port", str(self.epmd_port), "-address", self.place.address]
            log = self.directory / "epmd.log"
            self._epmd = spawn(self.place.command(epmd), log=log, env=self._env())
            wait_until(lambda: accepts(self.epmd_port, self.place.address), self._epmd, what="epmd", log=log)
        self._server = spawn(self.place.command([str(_SERVER)]), log=self._log, env=self._env())
        wait_until(lambda: accepts(self.port, self.place.address), self._server, what="RabbitMQ", log=self._log)

    def add_users(self, users: Mapping[str, tuple[str, str]], password: str) -> None:
        """By name, what queues each may declare and read (a regular expression), and what exchanges it may send to."""
        salt = os.urandom(4)
        hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
        definitions = {
            "users": [
                {
                    "name": name,
                    "password_hash": hashed,
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": [],
                }
                for name in users
            ],
            "permissions": [
                {"user": name, "vhost": "/", "configure": queues, "write": exchanges, "read": queues}
                for name, (queues, exchanges) in users.items()
            ],
        }
        file = self.directory / "users.json"
        file.write_text(json.dumps(definitions))
        self.control("import_definitions", str(file))

    def control(self, *arguments: str) -> str:
        """What `rabbitmqctl` says to this."""
        command = [str(_SERVER.with_name("rabbitmqctl")), "--quiet", *arguments]
        done = subprocess.run(command, env=self._env(), check=True, timeout=120, capture_output=True, text=True)
        return done.stdout

    def hang(self) -> None:
        """Have it do nothing more, as a machine does that swaps or whose disk is gone; its connections stay."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._server is not None
        os.killpg(self._server.pid, number)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._server is not None:
            end(self._server, how=signal.SIGKILL)
            self._server = None
            while accepts(self.port, self.place.address):
                time.sleep(0.05)

    def close(self) -> None:
        """With its port mapper."""
        self.kill()
        if self._epmd is not None:
            end(self._epmd, how=signal.SIGKILL)
            self._epmd = None


@contextlib.contextmanager
def make_brokers(count: int, *, tick: int = 60, place: Place = HERE) -> Iterator[list[Broker]]:
    """A cluster of brokers, all of which run."""
    with contextlib.ExitStack() as stack:
        brokers: list[Broker] = []
        for _ in range(count):
            directory = Path(tempfile.mkdtemp(prefix="kn-rabbit-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            broker = Broker(directory, peer=brokers[0] if brokers else None, tick=tick, place=place)
            stack.callback(broker.close)
            brokers.append(broker)
            broker.start()
        yield brokers


def transport_url(brokers: Sequence[Broker]) -> str:
    """One that names them all, in this order."""
    addresses = (f"{Broker.user}:br%2Fok%40er@{broker.place.address}:{broker.port}" for broker in brokers)
    return f"rabbit://{','.join(addresses)}//"


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A running broker for the whole session. A test that kills it starts it again."""
    if not _SERVER.exists():
        pytest.fail("RabbitMQ is not installed: apt-get install --no-install-recommends rabbitmq-server")
    with make_brokers(1) as (made,):
        yield made
