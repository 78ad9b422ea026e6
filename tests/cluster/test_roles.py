"""Roles as processes, by the command line: starting, serving, reloading, ending, and what each may know."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil
import pytest

from tests.support.cluster import IMAGE, ROOT, Cluster, make_cluster
from tests.support.gate import Gates
from tests.support.mariadb import MariaDB
from tests.support.processes import end, free_port, spawn
from tests.support.rabbit import Broker
from tests.support.stand_ins import PASSWORD, SERVICE_TOKEN

pytestmark = pytest.mark.timeout(300)

PAGE = "https://consoles.example/vnc_auto.html"
OPTIONS = {
    "DEFAULT": {"report_interval": 1},
    "sim": {"durations": "disks:0.5"},
    "vnc": {"novncproxy_base_url": PAGE},
    "consoleauth": {"token_ttl": 1234},
}
ADMIN = "root:6f70656e737461636b20342065766572:admin,member,reader"


@pytest.fixture(scope="module")
def cluster(mariadb: MariaDB, broker: Broker) -> Iterator[Cluster]:
    counts = {"api": 1, "conductor": 1, "scheduler": 1, "compute": 1, "consoleauth": 1, "cert": 1}
    with make_cluster(mariadb, broker, counts=counts, hosts=3, options=OPTIONS) as made:
        yield made


def client(port: int, token: str = ADMIN) -> httpx.Client:
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": "compute 2.90"}
    return httpx.Client(base_url=f"http://127.0.0.1:{port}/v2.1", headers=headers, timeout=30)


def wait_for(true: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)


def make_server(http: httpx.Client, zone: str = "nova") -> str:
    flavor = {"flavor": {"name": "tiny", "id": "tiny", "ram": 64, "vcpus": 1, "disk": 0}}
    assert http.post("/flavors", json=flavor).status_code in (200, 409)
    body = {
        "server": {"name": "s", "flavorRef": "tiny", "imageRef": IMAGE, "networks": "none", "availability_zone": zone}
    }
    answer = http.post("/servers", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["server"]["id"])


def status_of(http: httpx.Client, server: str) -> str | None:
    answer = http.get(f"/servers/{server}")
    return None if answer.status_code == 404 else str(answer.json()["server"]["status"])


def test_a_server_lives_and_dies_across_the_processes(cluster: Cluster) -> None:
    with client(cluster.of("api")[0].port) as http:
        server = make_server(http)
        wait_for(lambda: status_of(http, server) == "ACTIVE")
        assert http.delete(f"/servers/{server}").status_code == 204
        wait_for(lambda: status_of(http, server) is None)


def test_consoles_are_as_nova_conf_says(cluster: Cluster) -> None:
    with client(cluster.of("api")[0].port) as http:
        server = make_server(http)
        wait_for(lambda: status_of(http, server) == "ACTIVE")
        body = {"remote_console": {"protocol": "vnc", "type": "novnc"}}
        answer = http.post(f"/servers/{server}/remote-consoles", json=body)
        assert answer.json()["remote_console"]["url"].startswith(f"{PAGE}?path=")
        late = f"SELECT COUNT(*) FROM console_auth_tokens WHERE server_uuid = '{server}'"
        late += " AND expires_at > UNIX_TIMESTAMP() + 700"
        assert cluster.query(late) == [["1"]]
        http.delete(f"/servers/{server}")


def test_every_role_is_listed_by_the_guides_name(cluster: Cluster) -> None:
    wanted = {
        ("nova-conductor", "conductor1"),
        ("nova-scheduler", "scheduler1"),
        ("nova-consoleauth", "consoleauth1"),
        ("nova-cert", "cert1"),
        *(("nova-compute", f"compute1-{number:03d}") for number in range(1, 4)),
    }
    with client(cluster.of("api")[0].port) as http:

        def listed() -> bool:
            services = http.get("/os-services").json()["services"]
            return {(s["binary"], s["host"]) for s in services if s["state"] == "up"} >= wanted

        wait_for(listed)


def test_a_conductor_that_is_ended_hands_its_operations_over(cluster: Cluster) -> None:
    """A lease is of half a minute: whoever had to wait for one would be late."""
    http = client(cluster.of("api")[0].port)
    (first,) = cluster.of("conductor")[:1]
    second = cluster.add("conductor")
    cluster.start(second)
    servers = [make_server(http) for _ in range(10)]
    assert first.process is not None
    first.process.send_signal(signal.SIGTERM)
    wait_for(lambda: all(status_of(http, server) == "ACTIVE" for server in servers), 20.0)
    assert first.process.wait(30) == 0
    cluster.start(first)
    for server in servers:
        http.delete(f"/servers/{server}")
    wait_for(lambda: all(status_of(http, server) is None for server in servers))
    assert second.process is not None
    end(second.process)
    http.close()


@pytest.mark.parametrize("role", ["compute", "cert", "console"])
def test_without_database_and_account_a_role_starts_all_the_same(cluster: Cluster, role: str) -> None:
    member = cluster.add(role)
    text = member.config.read_text()
    start, stop = text.index("[database]"), text.index("[glance]")
    consoles = f"\n[vnc]\nnovncproxy_host = 127.0.0.1\nnovncproxy_port = {free_port()}\n"
    member.config.write_text(text[:start] + text[stop:] + consoles)
    cluster.start(member)
    assert member.process is not None
    connected = {
        c.raddr.port for c in psutil.Process(member.pid).net_connections() if c.status == psutil.CONN_ESTABLISHED
    }
    assert connected == {cluster.broker.port}
    end(member.process)


def test_an_agent_does_not_read_the_account_that_its_file_has(cluster: Cluster) -> None:
    """The guide's file for compute nodes has one; with this one a role that reads it does not start."""
    member, conductor = cluster.add("compute"), cluster.add("conductor")
    for each in (member, conductor):
        text = each.config.read_text()
        start, stop = text.index("[keystone_authtoken]"), text.index("[glance]")
        each.config.write_text(f"{text[:start]}[keystone_authtoken]\nusername = nova\n\n{text[stop:]}")
    cluster.start(member)
    assert member.process is not None
    end(member.process)
    with pytest.raises(RuntimeError, match=r"\[keystone_authtoken\] auth_url, password: missing"):
        cluster.start(conductor)


def test_sigterm_ends_each_role_in_order(cluster: Cluster) -> None:
    extra = [cluster.add(role) for role in ("api", "conductor", "scheduler", "compute", "consoleauth")]
    cluster.start(*extra)
    for member in extra:
        assert member.process is not None
        member.process.send_signal(signal.SIGTERM)
    for member in extra:
        assert member.process is not None
        assert member.process.wait(30) == 0, member.log.read_text()
        assert "process.stopped" in member.log.read_text()


def test_sighup_reads_the_log_level_and_the_policy_again_and_a_bad_file_changes_nothing(cluster: Cluster) -> None:
    member = cluster.add("api")
    policy, log = cluster.directory / "policy.yaml", cluster.directory / "own.log"
    policy.write_text("{}\n")
    text = member.config.read_text()
    text = text.replace("[DEFAULT]", f"[DEFAULT]\nlog_file = {log}", 1) + f"\n[oslo_policy]\npolicy_file = {policy}\n"
    member.config.write_text(text)
    cluster.start(member)
    assert member.process is not None
    http = client(member.port, ADMIN.replace("admin,", ""))
    assert http.get("/os-hypervisors").status_code == 403
    policy.write_text('"os_compute_api:os-hypervisors:list": "role:reader"\n')
    rotated = log.rename(log.with_suffix(".1"))
    member.config.write_text(text.replace("[DEFAULT]", "[DEFAULT]\ndebug = true", 1))
    member.process.send_signal(signal.SIGHUP)
    wait_for(lambda: log.exists() and "process.reloaded" in log.read_text())
    assert http.get("/os-hypervisors").status_code == 200
    member.config.write_text(text.replace("[DEFAULT]", "[DEFAULT]\ndebugg = true", 1))
    member.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "Did you mean 'debug'" in log.read_text())
    assert http.get("/os-hypervisors").status_code == 200
    assert "process.reloaded" not in rotated.read_text()
    end(member.process)
    http.close()


def test_sighup_opens_every_roles_log_anew_and_names_what_takes_a_start(cluster: Cluster) -> None:
    roles = ("conductor", "scheduler", "consoleauth", "cert", "console", "compute", "metadata")
    members = [cluster.add(role) for role in roles]
    for member in members:
        more = f"[vnc]\nnovncproxy_host = 127.0.0.1\nnovncproxy_port = {free_port()}\n"
        more += f"[DEFAULT]\nmetadata_listen = 127.0.0.1\nmetadata_listen_port = {free_port()}\n"
        text = member.config.read_text() + f"\n{more}log_file = {cluster.directory / member.role}.own\n"
        member.config.write_text(text)
    cluster.start(*members)
    for member in members:
        log = cluster.directory / f"{member.role}.own"
        log.rename(log.with_suffix(".old"))
        changed = "[DEFAULT]\ndebug = true\nservice_down_time = 77\n[database]\nconnection = mysql://u:hush@h/n\n"
        member.config.write_text(member.config.read_text() + changed)
        assert member.process is not None
        member.process.send_signal(signal.SIGHUP)
    for member in members:
        log = cluster.directory / f"{member.role}.own"
        wait_for(lambda log=log: log.exists() and "process.options_need_a_start" in log.read_text())  # type: ignore[misc]
        text = log.read_text()
        line = next(line for line in text.splitlines() if "process.options_need_a_start" in line)
        assert json.loads(line)["options"] == ["[DEFAULT] service_down_time", "[database] connection"]
        assert "hush" not in text
        assert member.process is not None
        assert member.process.poll() is None
        end(member.process)


def test_workers_share_the_port_and_are_replaced(cluster: Cluster) -> None:
    member = cluster.add("api")
    log = cluster.directory / "workers.log"
    more = f"[DEFAULT]\nosapi_compute_workers = 2\nlog_file = {log}"
    member.config.write_text(member.config.read_text().replace("[DEFAULT]", more, 1))
    cluster.start(member)
    assert member.process is not None
    parent = psutil.Process(member.pid)
    workers = {child.pid for child in parent.children()}
    assert len(workers) == 2
    victim = min(workers)
    log.rename(log.with_suffix(".1"))
    member.process.send_signal(signal.SIGHUP)
    wait_for(lambda: log.exists() and log.read_text().count("process.reloaded") == 2)
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len({child.pid for child in parent.children()} - {victim}) == 2)
    assert "worker.ended" in log.read_text(), "the parent's log is the new one"
    with client(member.port) as http:
        assert http.get("/servers").status_code == 200
    member.process.send_signal(signal.SIGTERM)
    assert member.process.wait(30) == 0, member.log.read_text()
    assert not psutil.pid_exists(max(workers))


def failing(cluster: Cluster, role: str, text: str) -> str:
    """What a role says that cannot start."""
    config = cluster.directory / f"failing-{role}.conf"
    config.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "kilonova.cli", role, "--config-file", str(config)],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_keeps_a_role_from_starting_is_said_in_a_line(cluster: Cluster) -> None:
    text = cluster.text("x", free_port())
    assert "run 'nova-manage db sync'" in failing(
        cluster, "scheduler", text.replace(cluster.database, cluster.server.new_database())
    )
    assert "[database] connection is missing" in failing(cluster, "conductor", "[DEFAULT]\n")
    assert "has no account to find Image with" in failing(cluster, "compute", "[DEFAULT]\ncompute_driver = sim\n")
    assert "compute_driver = xen" in failing(cluster, "compute", "[DEFAULT]\ncompute_driver = xen\n")
    taken = cluster.text("x", cluster.of("api")[0].port)
    assert "Nothing can be served at 127.0.0.1" in failing(cluster, "api", taken)


def test_one_agent_for_a_host(cluster: Cluster) -> None:
    assert "Another agent for host 'compute1-001' runs" in failing(
        cluster, "compute", cluster.of("compute")[0].config.read_text()
    )


def test_no_secret_is_in_logs_or_process_lists(cluster: Cluster) -> None:
    secrets = ["Password123$", MariaDB.password, Broker.password]
    for member in cluster.members.values():
        for path in (member.log, Path(f"/proc/{member.pid}/cmdline")):
            text = path.read_text(errors="replace") if path.exists() else ""
            assert not [secret for secret in secrets if secret in text], path


@pytest.mark.parametrize(
    ("role", "what"),
    [("scheduler", "database"), ("compute", "broker"), ("conductor", "identity"), ("network", "networking")],
)
def test_a_password_that_is_refused_is_not_repeated(cluster: Cluster, role: str, what: str) -> None:
    """Whoever refuses it: it is in no line of a log at level DEBUG, and in no list of processes."""
    wrong, quoted = "wr0ng/pass@word$", "wr0ng%2Fpass%40word%24"
    member = cluster.add(role)
    text = member.config.read_text().replace("[DEFAULT]", "[DEFAULT]\ndebug = true", 1)
    identity = f"http://127.0.0.1:{cluster.identity_port}"
    places = {
        "database": (quote(MariaDB.password, safe=""), quoted),
        "broker": ("br%2Fok%40er", quoted),
        "identity": (f"password = {PASSWORD}", f"password = {wrong}"),
        # An account of Networking's own.
        "networking": (
            "[quota]",
            f"[neutron]\nauth_url = {identity}\nusername = neutron\npassword = {wrong}\n[quota]",
        ),
    }
    before, after = places[what]
    said = {"database": "database.not_reached", "broker": "bus.not_connected"}.get(what, "identity.not_reached")
    assert before in text
    text = text.replace(before, after)
    if what == "identity":
        # Where Image is has to be asked then.
        text = text.replace(text[text.index("[glance]") : text.index("[sim]")], "")
    member.config.write_text(text)
    process = spawn(
        [sys.executable, "-m", "kilonova.cli", role, "--config-file", str(member.config)],
        log=member.log,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )
    try:
        wait_for(lambda: said in member.log.read_text() or process.poll() is not None)
        cmdline = Path(f"/proc/{process.pid}/cmdline")
        shown = member.log.read_text() + (cmdline.read_text() if cmdline.exists() else "")
        assert said in shown
        assert wrong not in shown
        assert quoted not in shown
    finally:
        end(process)


def test_no_secret_is_told_while_the_database_is_away(cluster: Cluster) -> None:
    """Neither in answers nor in a log at level DEBUG, with the tokens of those who ask, and details of health."""
    gates = Gates()
    gate = gates.add(cluster.server.port)
    member = cluster.add("api")
    text = member.config.read_text().replace(f":{cluster.server.port}/", f":{gate.port}/")
    member.config.write_text(f"{text}\n[DEFAULT]\ndebug = true\n[healthcheck]\ndetailed = true\n")
    cluster.start(member)
    asks = {"Accept": "application/json"}
    health = f"http://127.0.0.1:{member.port}/healthcheck"
    with client(member.port) as http:
        assert http.get("/servers").status_code == 200
        assert http.get(health, headers=asks).status_code == 200
        gates.close()
        answers = [http.get("/servers"), http.get("/flavors"), http.get(health, headers=asks)]
    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert answers[-1].json()["reasons"][0]["class"] == "DATABASE"
    assert member.process is not None
    shown = "".join(answer.text for answer in answers) + member.log.read_text()
    shown += Path(f"/proc/{member.pid}/cmdline").read_text()
    end(member.process)
    assert "not answer" in shown
    secrets = [PASSWORD, MariaDB.password, "data%40base", Broker.password, "br%2Fok%40er", SERVICE_TOKEN, ADMIN]
    assert [secret for secret in secrets if secret in shown] == []


def test_no_token_for_image_is_in_what_a_host_keeps_or_logs(cluster: Cluster) -> None:
    """It goes to the host with the command, and is good for whatever the service's user may."""
    member = cluster.add("compute")
    text = member.config.read_text().replace("hosts = 3", "hosts = 1")
    member.config.write_text(f"{text}\n[DEFAULT]\ndebug = true\n")
    cluster.start(member)
    with client(cluster.of("api")[0].port) as http:
        wait_for(lambda: cluster.query(f"SELECT COUNT(*) FROM compute_nodes WHERE host = '{member.name}'") == [["1"]])
        server = make_server(http, f"nova:{member.name}")
        wait_for(lambda: status_of(http, server) == "ACTIVE")
        http.delete(f"/servers/{server}")
        wait_for(lambda: status_of(http, server) is None)
    assert member.process is not None
    end(member.process)
    kept = [path for path in (cluster.directory / member.name).rglob("*") if path.is_file()]
    assert any(path.name == "journal.sqlite" for path in kept)
    for path in (*kept, member.log):
        assert SERVICE_TOKEN.encode() not in path.read_bytes(), path


def test_no_secret_is_in_errors_of_the_api(cluster: Cluster) -> None:
    secrets = [PASSWORD, MariaDB.password, Broker.password, "br%2Fok%40er"]
    with client(cluster.of("api")[0].port) as http:
        answers = [
            http.get("/servers/none"),
            http.post("/servers", content=b"{"),
            http.get("/servers", headers={"X-Auth-Token": "nobody"}),
            http.get("/servers?marker=none"),
        ]
        for answer in answers:
            assert answer.status_code >= 400
            assert not [secret for secret in secrets if secret in answer.text], answer.text
