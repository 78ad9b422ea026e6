"""Kilonova as a deployment runs it: processes of every role by the real command line, with RabbitMQ."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.databases import DatabaseServer
from tests.support.gate import Gate, Gates
from tests.support.mariadb import MariaDB
from tests.support.processes import HERE, Place, accepts, end, free_port, serving, spawn, wait_until
from tests.support.rabbit import Broker, make_brokers
from tests.support.stand_ins import IMAGE, PASSWORD

__all__ = ["IMAGE", "Cluster", "Member", "make_cluster"]

ROOT = Path(__file__).parents[2]

DEFAULTS = {"api": 2, "conductor": 2, "scheduler": 2, "compute": 4}
"""Processes of each role."""


@dataclass(kw_only=True)
class Member:
    """One process of a role, with a configuration and a log of its own."""

    role: str
    name: str
    config: Path
    log: Path
    notify: Path
    port: int = 0
    """Where its API answers."""
    place: Place = HERE
    gate: Gate | None = None
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    source: Path
    """Of the release that it runs."""

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid


@dataclass(kw_only=True)
class Others:
    """Identity, Image and perhaps Networking, in a process of their own (`tests.support.stand_ins`)."""

    port: int
    place: Place
    directory: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def more(self) -> Path:
        return self.directory / "more.json"

    def start(self) -> None:
        log = self.directory / "stand-ins.log"
        command = [sys.executable, "-m", "tests.support.stand_ins", str(self.port), str(self.more), self.place.address]
        self._process = spawn(self.place.command(command), log=log, env=dict(os.environ))
        wait_until(lambda: accepts(self.port, self.place.address), self._process, what="the stand-ins", log=log)

    def kill(self) -> None:
        if self._process is not None:
            end(self._process, how=signal.SIGKILL)
            self._process = None


@dataclass(kw_only=True)
class Cluster:
    directory: Path
    server: DatabaseServer
    broker: Broker
    database: str
    transport_url: str
    prefix: str
    others: Others
    hosts: int = 50
    """Of each compute process."""
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """More of nova.conf, by section."""
    gates: Gates | None = None
    """With them each process has a way of its own to the broker, which can be cut."""
    weather: str | None = None
    """See `tests.support.weather`."""
    source: Path = ROOT / "src"
    """Of the release that members run which are added."""
    place: Callable[[str, int], Place] = lambda role, number: HERE
    """Of the processes of a role, which are numbered from 1."""
    networking: bool = False
    """Servers may have ports (`tests.support.networking`)."""
    databases: Sequence[str] = ()
    """The database's URLs, of which each role's first process takes the first and so on; by default there is one."""
    members: dict[str, Member] = field(default_factory=dict)

    @property
    def identity_port(self) -> int:
        return self.others.port

    def text(self, name: str, port: int, gate: Gate | None = None, place: Place = HERE) -> str:
        """A nova.conf."""
        transport_url = self.transport_url
        if gate is not None:
            transport_url = transport_url.replace(f":{self.broker.port}/", f":{gate.port}/")
        sections: dict[str, dict[str, object]] = {
            "DEFAULT": {
                "host": name,
                "my_ip": place.address,
                "transport_url": transport_url,
                "control_exchange": self.prefix,
                "state_path": self.directory / name,
                "enabled_apis": "osapi_compute",
                "osapi_compute_listen": place.address,
                "osapi_compute_listen_port": port,
                "compute_driver": "sim",
                "graceful_shutdown_timeout": 2,
            },
            "database": {"connection": self._database_of(name)},
            "keystone_authtoken": {
                "auth_url": f"http://{self.broker.place.address}:{self.identity_port}",
                "auth_type": "password",
                "username": "nova",
                "password": PASSWORD,
                "project_name": "service",
            },
            "glance": {"host": self.broker.place.address, "port": self.identity_port},
            "sim": {"hosts": self.hosts, "durations": "running:0.02,disks:0.02,absent:0.02"},
            "prometheus": {"enabled": False},
            "quota": {"instances": -1, "cores": -1, "ram": -1},
        }
        if self.networking:
            sections["neutron"] = {"endpoint_override": f"http://{self.broker.place.address}:{self.identity_port}"}
        for section, options in self.options.items():
            sections.setdefault(section, {}).update(options)
        lines = []
        for section, options in sections.items():
            lines += [f"[{section}]", *(f"{key} = {value}" for key, value in options.items()), ""]
        return "\n".join(lines)

    def _database_of(self, name: str) -> str:
        number = re.search(r"\d+$", name)
        if not self.databases or number is None:
            return self.database
        return self.databases[(int(number[0]) - 1) % len(self.databases)]

    def add(self, role: str) -> Member:
        """One more process of a role; it is started by `start`."""
        number = sum(member.role == role for member in self.members.values()) + 1
        name = f"{role}{number}"
        place = self.place(role, number)
        port = free_port() if role == "api" else 0
        config = self.directory / f"{name}.conf"
        gate = self.gates.add(self.broker.port) if self.gates is not None else None
        config.write_text(self.text(name, port or 8774, gate, place))
        member = Member(
            role=role,
            name=name,
            config=config,
            log=self.directory / f"{name}.log",
            notify=self.directory / f"{name}.notify",
            port=port,
            place=place,
            gate=gate,
            source=self.source,
        )
        self.members[name] = member
        return member

    def start(self, *members: Member, timeout: float = 90.0) -> None:
        """Start processes at once and wait until each has said that it serves."""
        waiting = []
        for member in members:
            member.notify.unlink(missing_ok=True)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            listener.bind(str(member.notify))
            listener.settimeout(1.0)
            environment = {**os.environ, "NOTIFY_SOCKET": str(member.notify), "PYTHONPATH": f"{member.source}:{ROOT}"}
            module = "kilonova.cli"
            if self.weather is not None:
                module = "tests.support.weather"
                environment |= {"WEATHER": self.weather, "WEATHER_LOG": str(member.log.with_suffix(".weather"))}
            elif "MUTATION" in os.environ:
                module = "tests.support.mutated"
            command = [sys.executable, "-m", module, member.role, "--config-file", str(member.config)]
            member.process = spawn(member.place.command(command), log=member.log, env=environment)
            waiting.append((member, listener))
        until = time.monotonic() + timeout
        for member, listener in waiting:
            with listener:
                while True:
                    with contextlib.suppress(TimeoutError):
                        if b"READY=1" in listener.recv(4096):
                            break
                    assert member.process is not None
                    if member.process.poll() is not None or time.monotonic() > until:
                        text = member.log.read_text(errors="replace")[-3000:]
                        raise RuntimeError(f"{member.name} did not start ({member.process.poll()}):\n{text}")

    def query(self, sql: str) -> list[list[str]]:
        """Rows of the cluster's database, as text."""
        name = self.database.rpartition("/")[2]
        return [line.split("\t") for line in self.server.execute(sql, name).splitlines()]

    def wait_for_hosts(self, count: int, timeout: float) -> None:
        """Until so many have reported."""
        until = time.monotonic() + timeout
        while int(self.query("SELECT COUNT(*) FROM compute_nodes")[0][0]) < count:
            if time.monotonic() > until:
                raise RuntimeError(f"not all of {count} hosts have reported")
            time.sleep(0.2)

    def kill(self, member: Member) -> None:
        """kill -9."""
        assert member.process is not None
        end(member.process, how=signal.SIGKILL)
        member.deaths += 1

    def manage(self, *words: str) -> str:
        """What nova-manage of the newest release that runs here says."""
        config = next(iter(self.members.values())).config
        command = [sys.executable, "-m", "kilonova.cli.manage", "--config-file", str(config), *words]
        environment = {**os.environ, "PYTHONPATH": str(self.source)}
        return subprocess.run(
            command, check=True, timeout=120, stdout=subprocess.PIPE, text=True, env=environment
        ).stdout

    def end(self, member: Member) -> None:
        """As systemd stops it."""
        assert member.process is not None
        end(member.process)

    def of(self, role: str) -> list[Member]:
        return [member for member in self.members.values() if member.role == role]

    def stop(self) -> None:
        running = [member.process for member in self.members.values() if member.process is not None]
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            end(process, timeout=15.0)


@contextlib.contextmanager
def durable_servers(place: Place = HERE) -> Iterator[tuple[MariaDB, Broker]]:
    """A database that keeps what was committed when it is killed, and a broker: for whoever kills them."""
    durable = functools.partial(MariaDB, fsync=True, place=place)
    with serving(durable, "kn-mariadb-") as mariadb, make_brokers(1, place=place) as (broker,):
        yield mariadb, broker


@contextlib.contextmanager
def make_cluster(
    server: DatabaseServer,
    broker: Broker,
    *,
    counts: Mapping[str, int] = DEFAULTS,
    hosts: int = 50,
    options: Mapping[str, Mapping[str, object]] | None = None,
    gated: bool = False,
    weather: str | None = None,
    place: Callable[[str, int], Place] = lambda role, number: HERE,
    patience: float = 120.0,
    database: str | None = None,
    databases: Sequence[str] = (),
    source: Path = ROOT / "src",
    networking: bool = False,
) -> Iterator[Cluster]:
    """A cluster on a database of its own (or this one), whose processes all run and whose hosts have reported.

    Waits `patience` seconds for these. Identity and Image are where the broker is. Keeps its logs when the test fails.
    """
    directory = Path(tempfile.mkdtemp(prefix="kn-cluster-"))
    cluster = Cluster(
        directory=directory,
        server=server,
        broker=broker,
        database=database or server.new_database(),
        transport_url=broker.transport_url,
        prefix=f"kn-{uuid.uuid4().hex[:8]}",
        others=Others(port=free_port(), place=broker.place, directory=directory),
        hosts=hosts,
        options=options or {},
        gates=Gates() if gated else None,
        source=source,
        weather=weather,
        place=place,
        databases=databases,
        networking=networking,
    )
    try:
        cluster.others.start()
        members = [cluster.add(role) for role, count in counts.items() for _ in range(count)]
        if networking:
            urls = [f"http://{api.place.address}:{api.port}/v2.1" for api in cluster.of("api")]
            cluster.others.more.write_text(json.dumps({"apis": urls}))
        cluster.manage("db", "sync")
        # Hosts last: a report that is sent before there is a conductor's queue is repeated only after a while.
        cluster.start(*(member for member in members if member.role != "compute"))
        cluster.start(*cluster.of("compute"), timeout=patience)
        cluster.wait_for_hosts(hosts * counts.get("compute", 0), patience)
        yield cluster
        cluster.stop()
    except BaseException:
        print(f"the cluster's logs: {directory}", file=sys.stderr)
        cluster.stop()
        raise
    else:
        shutil.rmtree(directory, ignore_errors=True)
    finally:
        cluster.others.kill()
        if cluster.gates is not None:
            cluster.gates.close()
