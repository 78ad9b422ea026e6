"""TLS wherever roles listen, and to database and broker: spoken, and refused where a certificate is not right."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets.asyncio.client
import websockets.exceptions
from cryptography.hazmat.primitives import serialization
from websockets.typing import Origin

from kilonova.console.proxy.proxy import REFUSED
from tests.cluster.test_doctor import look
from tests.cluster.test_roles import ADMIN, failing, wait_for
from tests.support.certificates import write_certificates
from tests.support.cluster import Cluster, Member, make_cluster
from tests.support.mariadb import MariaDB
from tests.support.postgresql import PostgreSQL
from tests.support.processes import end, free_port, serving
from tests.support.rabbit import Broker

pytestmark = pytest.mark.timeout(300)

COUNTS = {"api": 1, "conductor": 1, "scheduler": 1, "compute": 1, "consoleauth": 1}


def secured(cluster: Cluster, pki: Path) -> str:
    """More of nova.conf: every listener of a role by TLS. Ports are the caller's."""
    both = f"ssl_cert_file = {pki}/server.pem\nssl_key_file = {pki}/server.key\n"
    return (
        f"\n[DEFAULT]\nenabled_apis = osapi_compute,metadata\nenabled_ssl_apis = osapi_compute,metadata\n"
        f"metadata_listen = 127.0.0.1\nmetadata_listen_port = {free_port()}\n"
        f"cert = {pki}/server.pem\nkey = {pki}/server.key\nssl_only = true\n"
        f"[wsgi]\n{both}[vnc]\nnovncproxy_host = 127.0.0.1\nnovncproxy_port = {free_port()}\n"
        f"[prometheus]\nenabled = true\nport = {free_port()}\n{both}"
    )


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    write_certificates(directory)
    return directory


@pytest.fixture(scope="module")
def cluster(mariadb: MariaDB, broker: Broker) -> Iterator[Cluster]:
    """All roles speak TLS with MariaDB, as a user that may not do otherwise, and with RabbitMQ."""
    mariadb.execute("GRANT ALL ON *.* TO 'secured'@'127.0.0.1' IDENTIFIED BY 'pass' REQUIRE SSL")
    name = mariadb.new_database().rpartition("/")[2]
    database = f"mysql+pymysql://secured:pass@127.0.0.1:{mariadb.port}/{name}"
    transport = f"rabbit://{Broker.user}:br%2Fok%40er@127.0.0.1:{broker.tls_port}//"
    options = {
        "DEFAULT": {"report_interval": 1, "transport_url": transport},
        "database": {"connection_parameters": f"ssl_ca={mariadb.directory}/ca.pem"},
        "oslo_messaging_rabbit": {"ssl": True, "ssl_ca_file": f"{broker.directory}/ca.pem"},
    }
    with make_cluster(mariadb, broker, counts=COUNTS, hosts=1, options=options, database=database) as made:
        yield made


def value(member: Member, section: str, name: str) -> str:
    """What the member's nova.conf says last."""
    found, current = "", ""
    for line in member.config.read_text().splitlines():
        current = line if line.startswith("[") else current
        if current == f"[{section}]" and line.startswith(f"{name} = "):
            found = line.partition(" = ")[2]
    assert found
    return found


def start(cluster: Cluster, role: str, more: str) -> Member:
    member = cluster.add(role)
    member.config.write_text(member.config.read_text() + more)
    cluster.start(member)
    return member


def reach(url: str, authorities: Path) -> httpx.Response:
    with httpx.Client(verify=ssl.create_default_context(cafile=authorities), timeout=30) as http:
        return http.get(url, headers={"X-Auth-Token": ADMIN})


def test_database_and_broker_by_tls(cluster: Cluster) -> None:
    """The roles run, hosts have reported: both ways are there. Neither is without TLS."""
    member = cluster.add("scheduler")
    parameters = f"connection_parameters = ssl_ca={cluster.server.directory}/ca.pem"
    assert parameters in member.config.read_text()
    member.config.write_text(member.config.read_text().replace(parameters, ""))
    assert "Access denied" in waits(cluster, member, "database.not_reached")


def waits(cluster: Cluster, member: Member, event: str) -> str:
    """The first line of this kind in the log of a role that does not come to serve."""
    with pytest.raises(RuntimeError):
        cluster.start(member, timeout=0.1)
    wait_for(lambda: event in member.log.read_text())
    assert member.process is not None
    assert member.process.poll() is None, "it waits for something better"
    end(member.process)
    return next(line for line in member.log.read_text().splitlines() if event in line)


@pytest.mark.parametrize(("what", "event"), [("database", "database.not_reached"), ("broker", "bus.not_connected")])
def test_a_certificate_of_a_stranger_is_named_and_nothing_is_sent_there(
    cluster: Cluster, pki: Path, what: str, event: str
) -> None:
    member = cluster.add("scheduler" if what == "database" else "compute")
    theirs = cluster.server.directory if what == "database" else cluster.broker.directory
    text = member.config.read_text()
    assert f"{theirs}/ca.pem" in text
    member.config.write_text(text.replace(f"{theirs}/ca.pem", f"{pki}/ca.pem"))
    assert "CERTIFICATE_VERIFY_FAILED" in waits(cluster, member, event)


def test_postgresql_by_tls_and_not_otherwise(broker: Broker, pki: Path) -> None:
    with serving(lambda directory: PostgreSQL(directory, tls=True), "kn-postgresql-tls-") as server:
        believed = f"sslmode=verify-full&sslrootcert={server.directory}/ca.pem"
        options = {"database": {"connection_parameters": believed}}
        with make_cluster(server, broker, counts={"scheduler": 1}, options=options) as made:
            name = made.database.rpartition("/")[2]
            mine = f"pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE datname = '{name}' AND client_addr IS NOT NULL"
            secured = server.execute(f"SELECT ssl FROM {mine}").split()
            assert set(secured) == {"t"}, secured
            for instead, said in (
                (f"sslmode=verify-full&sslrootcert={pki}/ca.pem", "CERTIFICATE_VERIFY_FAILED"),
                ("sslmode=disable", "no pg_hba.conf entry"),
            ):
                member = made.add("scheduler")
                assert believed in member.config.read_text()
                member.config.write_text(member.config.read_text().replace(believed, instead))
                assert said in waits(made, member, "database.not_reached")


def test_every_listener_by_tls(cluster: Cluster, pki: Path, tmp_path: Path) -> None:
    api = start(cluster, "api", secured(cluster, pki))
    console = start(cluster, "console", secured(cluster, pki))
    ports = {
        "API": str(api.port),
        "metadata": value(api, "DEFAULT", "metadata_listen_port"),
        "metrics": value(api, "prometheus", "port"),
        "console": value(console, "vnc", "novncproxy_port"),
        "metrics of a role without an API": value(console, "prometheus", "port"),
    }
    for what, port in ports.items():
        address = f"127.0.0.1:{port}/healthcheck"
        assert reach(f"https://{address}", pki / "ca.pem").status_code == 200, what
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://{address}", timeout=30)
        write_certificates(tmp_path)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            reach(f"https://{address}", tmp_path / "ca.pem")
    assert reach(f"https://127.0.0.1:{api.port}/v2.1/servers", pki / "ca.pem").json() == {"servers": []}
    links = reach(f"https://127.0.0.1:{api.port}/v2.1/", pki / "ca.pem").json()["version"]["links"]
    assert links[0]["href"].startswith(f"https://127.0.0.1:{api.port}/")
    assert asyncio.run(browser(int(ports["console"]), pki)) == REFUSED
    for member in (api, console):
        assert member.process is not None
        end(member.process)


async def browser(port: int, pki: Path) -> int | None:
    """How the proxy closes a WebSocket with a made-up token, which it has asked consoleauth about."""
    trusted = ssl.create_default_context(cafile=pki / "ca.pem")
    async with websockets.asyncio.client.connect(
        f"wss://127.0.0.1:{port}/?token=none", ssl=trusted, origin=Origin(f"https://127.0.0.1:{port}"), proxy=None
    ) as connection:
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            await connection.recv()
        return connection.close_code


def test_certificates_are_read_again_at_sighup(cluster: Cluster, tmp_path: Path) -> None:
    """As whoever renews them does it: no connection is lost, no process is started."""
    write_certificates(tmp_path)
    api = start(cluster, "api", secured(cluster, tmp_path))
    metadata, metrics = value(api, "DEFAULT", "metadata_listen_port"), value(api, "prometheus", "port")
    old = tmp_path / "old.pem"
    shutil.copy(tmp_path / "ca.pem", old)
    write_certificates(tmp_path)
    assert api.process is not None
    api.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "process.reloaded" in api.log.read_text())
    for port in (api.port, metadata, metrics):
        assert reach(f"https://127.0.0.1:{port}/healthcheck", tmp_path / "ca.pem").status_code == 200
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            reach(f"https://127.0.0.1:{port}/healthcheck", old)
    (tmp_path / "server.key").write_text("nothing")
    api.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "process.not_reloaded" in api.log.read_text())
    assert reach(f"https://127.0.0.1:{api.port}/healthcheck", tmp_path / "ca.pem").status_code == 200
    end(api.process)


def broken(pki: Path, directory: Path, how: str) -> None:
    """Copies of the certificates, one of which cannot be used."""
    for name in ("ca.pem", "server.pem", "server.key"):
        shutil.copy(pki / name, directory / name)
    key = directory / "server.key"
    if how == "garbage":
        (directory / "server.pem").write_text("nothing of the kind")
    elif how == "stranger's key":
        other = directory / "other"
        other.mkdir()
        write_certificates(other)
        shutil.copy(other / "server.key", key)
    elif how == "absent":
        key.unlink()
    else:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        secret = serialization.BestAvailableEncryption(b"secret")
        key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("garbage", "no certificate and key in PEM"),
        ("stranger's key", "the key is another certificate's"),
        ("absent", "server.key does not exist|needs .wsgi. ssl_key_file"),
        ("with a password", "needs a password"),
    ],
)
@pytest.mark.parametrize("role", ["api", "console", "scheduler"])
def test_a_certificate_that_cannot_be_used_stops_the_start_with_a_line(
    cluster: Cluster, pki: Path, tmp_path: Path, role: str, how: str, said: str
) -> None:
    """A scheduler has the metrics' listener alone."""
    broken(pki, tmp_path, how)
    line = failing(cluster, role, cluster.text("x", free_port()) + secured(cluster, tmp_path))
    assert re.search(said, line)
    place = {"api": "[wsgi]", "console": "[DEFAULT] cert", "scheduler": "[prometheus]"}[role]
    assert place in line


def test_files_for_the_way_to_database_and_broker_are_looked_at_too(cluster: Cluster, tmp_path: Path) -> None:
    garbage = tmp_path / "ca.pem"
    garbage.write_text("nothing")
    text = cluster.text("x", free_port())
    for theirs, said in (
        (cluster.server.directory, "[database] connection: its files for TLS"),
        (cluster.broker.directory, "[oslo_messaging_rabbit] ssl_...: its files cannot be used"),
    ):
        assert said in failing(cluster, "scheduler", text.replace(f"{theirs}/ca.pem", str(garbage)))


def test_doctor_says_that_both_are_by_tls(cluster: Cluster, tmp_path: Path) -> None:
    found = {each.check: each for each in asyncio.run(look(tmp_path, cluster.text("doctor", 8774)))}
    assert "by TLS" in found["database"].text, json.dumps({name: each.text for name, each in found.items()})
    assert "by TLS" in found["broker"].text
