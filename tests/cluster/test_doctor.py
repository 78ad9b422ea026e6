"""`kilonova doctor` on a deployment: what is well is said to be so, and each check is seen to fail."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from kilonova.bus.messages import Message
from kilonova.bus.rabbit import RabbitBus, RabbitOptions
from kilonova.bus.transport import parse_transport_url
from kilonova.db import schema
from kilonova.db.engine import Database
from kilonova.doctor import database, machine, services
from kilonova.doctor.examine import Examination
from kilonova.doctor.findings import Finding, exit_code
from kilonova.doctor.site import of_files
from tests.cluster.test_roles import wait_for
from tests.support.cluster import ROOT, Cluster, make_cluster
from tests.support.mariadb import MariaDB
from tests.support.postgresql import PostgreSQL
from tests.support.processes import free_port
from tests.support.rabbit import Broker
from tests.support.stand_ins import PASSWORD

pytestmark = pytest.mark.timeout(300)

OPTIONS = {"DEFAULT": {"report_interval": 1}}


@dataclass(frozen=True)
class Deployment:
    cluster: Cluster
    text: str
    """A nova.conf with which all is well, but for hosts that share a broker's user."""
    more: Path
    console: int

    def say(
        self, *, url: str | None = None, agents: tuple[bool, ...] = (True, True), extensions: tuple[str, ...] = ()
    ) -> None:
        """What Identity's catalog says of Compute, and Networking of its agents and extensions."""
        url = url or f"http://127.0.0.1:{self.cluster.of('api')[0].port}/v2.1"
        endpoints = [{"interface": kind, "region_id": "RegionOne", "url": url} for kind in ("public", "internal")]
        catalog = [{"type": "compute", "endpoints": endpoints}] if url != "none" else []
        listed = [
            {"binary": "neutron-linuxbridge-agent", "host": f"h{number}", "alive": alive}
            for number, alive in enumerate(agents)
        ]
        self.more.write_text(json.dumps({"catalog": catalog, "agents": listed, "extensions": extensions}))


@pytest.fixture(scope="module")
def deployment(mariadb: MariaDB, broker: Broker) -> Iterator[Deployment]:
    counts = {"api": 1, "conductor": 1, "scheduler": 1, "compute": 1, "consoleauth": 1}
    with make_cluster(mariadb, broker, counts=counts, hosts=2, options=OPTIONS) as cluster:
        port = free_port()
        console = cluster.add("console")
        consoles = f"\n[vnc]\nnovncproxy_host = 127.0.0.1\nnovncproxy_port = {port}\n"
        console.config.write_text(console.config.read_text() + consoles)
        cluster.start(console)
        text = cluster.text("doctor", 8774) + consoles
        text += f"\n[neutron]\nendpoint_override = http://127.0.0.1:{cluster.identity_port}\n"
        made = Deployment(cluster, text, cluster.directory / "more.json", port)
        made.say()
        for binary in ("nova-conductor", "nova-scheduler", "nova-consoleauth", "nova-compute"):
            wait_for(lambda binary=binary: int(cluster.query(f"SELECT COUNT(*) FROM services WHERE `binary` = '{binary}'")[0][0]) > 0)  # type: ignore[misc]  # fmt: skip # noqa: E501
        yield made


@pytest.fixture(autouse=True)
def _well(deployment: Deployment) -> Iterator[None]:
    yield
    deployment.say()


async def look(tmp_path: Path, text: str) -> list[Finding]:
    config = tmp_path / "nova.conf"
    config.write_text(text)
    config.chmod(0o640)
    site, found = of_files([config])
    if site is not None:
        examination = Examination(site, lambda _: None)
        await examination.run()
        found = found + examination.findings
    return found


def of(found: list[Finding], check: str) -> Finding:
    """The worst one of this name."""
    mine = sorted((each for each in found if each.check == check), key=lambda each: exit_code([each]))
    assert mine, [each.check for each in found]
    return mine[-1]


def test_the_command_says_all_that_is_well_and_warns_of_the_shared_user(deployment: Deployment, tmp_path: Path) -> None:
    config = tmp_path / "nova.conf"
    config.write_text(deployment.text)
    config.chmod(0o640)
    command = [sys.executable, "-m", "kilonova.cli", "doctor", "--config-file", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120, env=environment)
    document = json.loads(done.stdout)
    bad = {each["check"]: each for each in document["checks"] if each["result"] != "ok"}
    # How much room this machine has is its own affair.
    assert set(bad) - {"disk"} == {"broker: identities"}, done.stdout
    assert bad["broker: identities"]["fix"]
    seen = {each["check"] for each in document["checks"]}
    assert {
        "configuration", "database", "database: schema", "database: grants", "clock: this machine", "broker",
        "role: nova-conductor", "role: nova-scheduler", "role: nova-consoleauth", "hosts", "operations", "identity",
        "clock: Identity", "endpoint: compute", "image", "networking", "networking: agents", "console: page",
        "console: tokens", "host: compute1-001", "clock: compute1-001", "disk", "secrets",
    } <= seen  # fmt: skip
    assert done.returncode == (2 if document["result"] == "wrong" else 1)
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert re.search(r"^ok       database: MariaDB [\d.]+ at 127", shown.stdout, re.MULTILINE), shown.stdout
    assert "warning  broker: identities: all hosts share one user" in shown.stdout
    for secret in (PASSWORD, MariaDB.password, Broker.password, "br%2Fok%40er", "data%40base"):
        assert secret not in done.stdout + done.stderr + shown.stdout + shown.stderr


async def test_a_configuration_that_is_wrong(deployment: Deployment, tmp_path: Path) -> None:
    found = await look(tmp_path, deployment.text.replace("[sim]", "[sim]\nhots = 3"))
    assert [each.check for each in found] == ["configuration"]
    assert "Did you mean 'hosts'" in found[0].text
    found = await look(tmp_path, deployment.text.replace("enabled_apis = osapi", "enabled_apis = ec2,osapi"))
    assert "no EC2 API" in of(found, "configuration").text
    assert of(found, "database").result == "ok", "the rest is looked at all the same"


@pytest.mark.parametrize(
    ("fault", "check", "said", "fix"),
    [
        ("password", "database", "Access denied for user 'kilonova'", "GRANT ALL"),
        ("down", "database", "connect", "start the database"),
        ("unknown", "database", "Unknown database 'nowhere'", "CREATE DATABASE nowhere"),
        ("empty", "database: schema", "not there", "nova-manage db sync"),
        ("newer", "database: schema", "revision 9999, newer than", "the release that made it"),
        ("reader", "database: grants", "may not DELETE, INSERT, UPDATE", "GRANT ALL"),
        ("writer", "database: grants", "ALTER, CREATE, DROP, INDEX, REFERENCES", "GRANT ALL"),
    ],
)
async def test_the_database(
    deployment: Deployment, tmp_path: Path, mariadb: MariaDB, fault: str, check: str, said: str, fix: str
) -> None:
    url = deployment.cluster.database
    name = url.rpartition("/")[2]
    if fault == "password":
        changed = url.replace("data%40base", "wr0ng")
    elif fault == "down":
        changed = url.replace(f":{mariadb.port}/", f":{free_port()}/")
    elif fault == "unknown":
        changed = url.replace(name, "nowhere")
    elif fault in ("empty", "newer"):
        changed = mariadb.new_database()
        if fault == "newer":
            other = changed.rpartition("/")[2]
            mariadb.execute(f"CREATE TABLE {other}.alembic_version SELECT '9999' AS version_num")
    else:
        rights = "SELECT" if fault == "reader" else "SELECT, INSERT, UPDATE, DELETE"
        mariadb.execute(f"GRANT {rights} ON {name}.* TO '{fault}'@'127.0.0.1' IDENTIFIED BY 'pass'")
        changed = url.replace("kilonova:data%40base", f"{fault}:pass")
    finding = of(await look(tmp_path, deployment.text.replace(url, changed)), check)
    assert finding.result == ("warning" if fault == "writer" else "wrong"), finding
    assert said in finding.text
    assert fix in (finding.fix or "")


async def test_a_database_of_postgresqls(tmp_path: Path, postgresql: PostgreSQL) -> None:
    url = postgresql.new_database()
    name = url.rpartition("/")[2]

    async def looked(address: str) -> list[Finding]:
        config = tmp_path / "nova.conf"
        config.write_text(f"[database]\nconnection = {address}\n")
        site, _ = of_files([config])
        assert site is not None
        found, _ = await database.look(site)
        return found

    assert of(await looked(url), "database: schema").text == "not there"
    db = Database(url)
    await schema.migrate(db)
    await db.close()
    found = await looked(url)
    assert {each.check: each.result for each in found} == dict.fromkeys(
        ("database", "database: schema", "database: grants"), "ok"
    )
    assert "PostgreSQL" in of(found, "database").text
    postgresql.execute("CREATE USER reader PASSWORD 'pass'")
    postgresql.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader", name)
    reader = re.sub("//.*@", "//reader:pass@", url)
    finding = of(await looked(reader), "database: grants")
    assert (finding.result, finding.text) == ("wrong", "the user may not DELETE, INSERT, UPDATE")
    assert "GRANT ALL" in (of(await looked(reader.replace(":pass@", ":wr0ng@")), "database").fix or "")
    assert "CREATE DATABASE nowhere" in (of(await looked(url.replace(name, "nowhere")), "database").fix or "")


@pytest.mark.parametrize(
    ("fault", "check", "said", "fix"),
    [
        ("password", "broker", "refused", "rabbitmqctl change_password"),
        ("down", "broker", "refused|Connect", "start the broker"),
        ("vhost", "broker", "no such virtual host", "rabbitmqctl add_vhost"),
        ("rights", "broker: permissions", "refused|access", "rabbitmqctl set_permissions"),
    ],
)
async def test_the_broker(
    deployment: Deployment, tmp_path: Path, broker: Broker, fault: str, check: str, said: str, fix: str
) -> None:
    url = broker.transport_url
    if fault == "password":
        changed = url.replace("br%2Fok%40er", "wr0ng")
    elif fault == "down":
        changed = url.replace(f":{broker.port}/", f":{free_port()}/")
    elif fault == "vhost":
        changed = url.removesuffix("//") + "/elsewhere"
    else:
        broker.add_users({"weak": ("^amq\\.gen-.*$", "^amq\\.default$")}, "pass")
        changed = url.replace("kilonova:br%2Fok%40er", "weak:pass")
    finding = of(await look(tmp_path, deployment.text.replace(url, changed)), check)
    assert finding.result == "wrong"
    assert re.search(said, finding.text), finding
    assert fix in (finding.fix or "")


async def test_of_several_brokers_one_has_to_answer(deployment: Deployment, tmp_path: Path, broker: Broker) -> None:
    url = broker.transport_url
    both = url.replace("//", f"//kilonova:x@127.0.0.1:{free_port()},", 1)
    assert of(await look(tmp_path, deployment.text.replace(url, both)), "broker").result == "warning"
    twice = url.replace(f"127.0.0.1:{broker.port}", f"127.0.0.1:{broker.port},localhost:{broker.port}")
    found = of(await look(tmp_path, deployment.text.replace(url, twice)), "broker: cluster")
    assert (found.result, found.text.count(str(broker.port))) == ("ok", 2)


@pytest.mark.parametrize(
    ("fault", "check", "said", "fix"),
    [
        ("password", "identity", "refused", "[keystone_authtoken]"),
        ("down", "identity", "onnect", "start Identity"),
        ("none", "endpoint: compute", "catalog has none", "openstack endpoint create"),
        ("elsewhere", "endpoint: compute", "onnect", "openstack endpoint set"),
        ("stranger", "endpoint: compute", "404", "openstack endpoint set"),
        ("image", "image", "onnect", "[glance]"),
        ("network", "networking", "onnect", "[neutron]"),
    ],
)
async def test_the_services(
    deployment: Deployment, tmp_path: Path, fault: str, check: str, said: str, fix: str
) -> None:
    text, identity = deployment.text, deployment.cluster.identity_port
    if fault == "password":
        text = text.replace(f"password = {PASSWORD}", "password = wr0ng")
    elif fault == "down":
        text = text.replace(f"auth_url = http://127.0.0.1:{identity}", f"auth_url = http://127.0.0.1:{free_port()}")
    elif fault == "none":
        deployment.say(url="none")
    elif fault == "elsewhere":
        deployment.say(url=f"http://127.0.0.1:{free_port()}/v2.1")
    elif fault == "stranger":
        deployment.say(url=f"http://127.0.0.1:{identity}/v2.1")
    elif fault == "image":
        text = text.replace(f"port = {identity}", f"port = {free_port()}")
    else:
        text = text.replace(
            f"endpoint_override = http://127.0.0.1:{identity}", "endpoint_override = http://127.0.0.1:1"
        )
    finding = of(await look(tmp_path, text), check)
    assert finding.result == "wrong", finding
    assert said in finding.text
    assert fix in (finding.fix or "")
    assert "wr0ng" not in finding.text


async def test_an_agent_of_networking_that_is_dead(deployment: Deployment, tmp_path: Path) -> None:
    deployment.say(agents=(True, False))
    finding = of(await look(tmp_path, deployment.text), "networking: agents")
    assert (finding.result, finding.text) == ("warning", "not alive: neutron-linuxbridge-agent on h1")


async def test_planes_of_kilonovas_own(deployment: Deployment, tmp_path: Path, broker: Broker) -> None:
    deployment.say(agents=(), extensions=("plane-report",))
    found = await look(tmp_path, deployment.text)
    assert of(found, "networking: agents").result == "ok"
    finding = of(found, "networking: planes")
    assert (finding.result, finding.fix) == ("wrong", "start kilonova-network")

    async def nothing(message: Message) -> None:
        return None

    bus = RabbitBus(deployment_bus(deployment))
    await bus.start()
    await bus.listen("network", nothing)
    await bus.listen("plane.compute1-001", nothing)
    finding = of(await look(tmp_path, deployment.text), "networking: planes")
    assert (finding.result, finding.text) == ("warning", "no plane listens on compute1-002")
    await bus.listen("plane.compute1-002", nothing)
    assert of(await look(tmp_path, deployment.text), "networking: planes").result == "ok"
    await bus.close()


def deployment_bus(deployment: Deployment) -> RabbitOptions:
    brokers, _ = parse_transport_url(deployment.cluster.transport_url)
    return RabbitOptions(brokers=tuple(brokers), prefix=deployment.cluster.prefix)


async def test_metadata_that_anybody_could_ask_for(deployment: Deployment, tmp_path: Path) -> None:
    text = deployment.text.replace("[neutron]", "[neutron]\nservice_metadata_proxy = true")
    assert of(await look(tmp_path, text), "metadata").result == "wrong"
    text = text.replace("[neutron]", "[neutron]\nmetadata_proxy_shared_secret = s")
    assert "metadata" not in {each.check for each in await look(tmp_path, text)}


async def test_clocks_that_differ(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 120)
    monkeypatch.setattr(database, "time", ahead)
    monkeypatch.setattr(services, "time", ahead)
    found = await look(tmp_path, deployment.text)
    for check in ("clock: this machine", "clock: Identity"):
        assert of(found, check).result == "wrong"
        assert "chrony" in (of(found, check).fix or "")
    # Hosts are told apart from this machine: the difference is taken to be its own.
    assert re.fullmatch(r"1[12]\d\.\d s ahead of the database's", of(found, "clock: compute1-001").text)


async def test_roles_and_hosts_that_nobody_has_heard_of(
    deployment: Deployment, tmp_path: Path, mariadb: MariaDB
) -> None:
    url = mariadb.new_database()
    text = deployment.text.replace(deployment.cluster.database, url)
    config = tmp_path / "sync.conf"
    config.write_text(text)
    command = [sys.executable, "-m", "kilonova.cli.manage", "--config-file", str(config), "db", "sync"]
    done = await asyncio.create_subprocess_exec(*command, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
    assert await done.wait() == 0
    found = await look(tmp_path, text)
    for binary in ("nova-conductor", "nova-scheduler", "nova-consoleauth"):
        finding = of(found, f"role: {binary}")
        assert (finding.result, finding.text) == ("wrong", "none has ever reported")
    assert of(found, "hosts").result == "warning"


async def test_consoles(deployment: Deployment, tmp_path: Path) -> None:
    text = deployment.text.replace(f"novncproxy_port = {deployment.console}", f"novncproxy_port = {free_port()}")
    finding = of(await look(tmp_path, text), "console: page")
    assert finding.result == "wrong"
    assert "novncproxy_base_url" in (finding.fix or "")
    page = f"[vnc]\nnovncproxy_base_url = http://127.0.0.1:{deployment.cluster.identity_port}/vnc_auto.html"
    finding = of(await look(tmp_path, deployment.text.replace("[vnc]", page)), "console: page")
    assert (finding.result, "no page" in finding.text) == ("wrong", True)


async def test_secrets_and_room(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "nova.conf"
    config.write_text(deployment.text)
    config.chmod(0o644)
    site, _ = of_files([config])
    assert site is not None
    (finding,) = machine.secrets(site)
    assert (finding.result, finding.fix) == ("wrong", f"chmod 640 {config}")
    config.chmod(0o660)
    assert machine.secrets(site)[0].result == "warning"
    config.chmod(0o640)
    assert machine.secrets(site)[0].result == "ok"
    for free, result in ((100, "wrong"), (1000, "warning"), (100_000, "ok")):
        usage = SimpleNamespace(free=free << 20)
        monkeypatch.setattr(machine, "shutil", SimpleNamespace(disk_usage=lambda _, usage=usage: usage))
        assert {each.result for each in machine.disks(site)} == {result}
