"""kill -9 of `kilonova up`, again and again while servers with ports come and go: nothing is lost, or done twice."""

from __future__ import annotations

import json
import os
import random
import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from kilonova.agent.sim.state import SimGuest
from kilonova.allinone.libvirtd import probe_hypervisor
from kilonova.guest.build import build_image
from tests.support.allinone import Cloud

SERVERS = int(os.environ.get("KILL_SERVERS", "20"))
"""50 in `make cluster`."""
KILLS = int(os.environ.get("KILL_TIMES", "4"))
"""20 in `make cluster`; each costs a start of Keystone, Glance and Neutron."""

QUIET = 300.0
"""Seconds within which everything must have come to rest after the last start."""


class Client:
    """Creates and deletes while the service comes and goes; remembers what was acknowledged."""

    def __init__(self, cloud: Cloud, flavor: str, image: str, network: str, *, count: int, delete: int) -> None:
        self.cloud, self.flavor, self.image, self.network = cloud, flavor, image, network
        self.count, self.delete = count, delete
        self.created: list[str] = []
        self.deleted: set[str] = set()
        self.pause = 0.0
        self.failure: BaseException | None = None

    def run(self, chance: random.Random) -> None:
        try:
            while len(self.created) < self.count or len(self.deleted) < self.delete:
                alive = [uuid for uuid in self.created if uuid not in self.deleted]
                if len(self.created) < self.count and (not alive or chance.random() < 0.6):
                    self._create()
                elif alive and len(self.deleted) < self.delete:
                    self._delete(chance.choice(alive))
                time.sleep(self.pause * chance.random())
        except BaseException as error:
            self.failure = error

    def _create(self) -> None:
        body = {"name": "k", "imageRef": self.image, "flavorRef": self.flavor, "config_drive": True}
        answer = self._send("POST", "/servers", {"server": {**body, "networks": [{"uuid": self.network}]}})
        if answer is not None:
            assert answer.status_code == 202, answer.text
            self.created.append(answer.json()["server"]["id"])

    def _delete(self, uuid: str) -> None:
        answer = self._send("DELETE", f"/servers/{uuid}")
        if answer is not None:
            # 404: an earlier one, whose answer a kill swallowed, has been carried out.
            assert answer.status_code in (204, 404), answer.text
            self.deleted.add(uuid)

    def _send(self, method: str, path: str, body: object = None) -> httpx.Response | None:
        """None when the service was away, or died before it answered."""
        try:
            headers = {"X-Auth-Token": self.cloud.token(), "OpenStack-API-Version": "compute 2.90"}
            answer = httpx.request(method, self.cloud.compute_url + path, json=body, headers=headers, timeout=60)
        except (httpx.HTTPError, AssertionError):
            time.sleep(0.5)
            return None
        return None if answer.status_code == 503 else answer


def rows(path: Path, query: str) -> list[sqlite3.Row]:
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as db:
        db.row_factory = sqlite3.Row
        return db.execute(query).fetchall()


def rest(cloud: Cloud) -> None:
    """Wait until no operation is open."""
    database = cloud.directory / "kilonova/compute.sqlite"
    end = time.monotonic() + QUIET
    query = "SELECT id, kind, state, step, owner FROM instance_actions WHERE state IN ('ready', 'running')"
    while open_ones := rows(database, query):
        assert time.monotonic() < end, [tuple(row) for row in open_ones]
        time.sleep(0.5)


def audit(cloud: Cloud, client: Client) -> list[sqlite3.Row]:
    """The database's side of 'nothing lost, nothing left'; returns the servers that are there."""
    database = cloud.directory / "kilonova/compute.sqlite"
    everything = {row["uuid"]: row for row in rows(database, "SELECT * FROM instances")}
    assert set(client.created) <= set(everything), "an acknowledged create was lost"
    for uuid in client.deleted:
        assert everything[uuid]["deleted"], f"{uuid} was deleted and is there"
    alive = [row for row in everything.values() if not row["deleted"]]
    wrong = [(row["uuid"], row["vm_state"], row["fault"]) for row in alive if row["vm_state"] != "active"]
    assert not wrong
    assert not [row["uuid"] for row in everything.values() if row["operation_id"] is not None or row["task_state"]]
    assert not rows(database, "SELECT * FROM tombstones")
    assert not rows(database, "SELECT id FROM instance_actions WHERE secrets IS NOT NULL AND secrets != 'null'")
    for node in rows(database, "SELECT * FROM compute_nodes"):
        mine = [row for row in alive if row["host"] == node["host"]]
        assert node["running_vms"] == len(mine)
        assert node["vcpus_used"] == sum(row["vcpus"] for row in mine)
        assert node["memory_mb_used"] == sum(row["memory_mb"] for row in mine)
    used = rows(database, "SELECT sum(instances) AS n FROM quota_usages")[0]["n"]
    assert used == len(alive)
    return alive


def audit_ports(cloud: Cloud, alive: list[sqlite3.Row], network: str) -> None:
    """Each server has its one port, wired on its host, and there is no other: what a kill left behind is given back."""
    end = time.monotonic() + QUIET
    wanted = sorted((row["uuid"], row["host"], "ACTIVE") for row in alive)
    while True:
        headers = {"X-Auth-Token": cloud.token()}
        listed = httpx.get(f"{cloud.network_url}/ports", params={"network_id": network}, headers=headers, timeout=60)
        ports = [port for port in listed.json()["ports"] if not port["device_owner"].startswith("network:")]
        found = sorted((port["device_id"], port["binding:host_id"], port["status"]) for port in ports)
        if found == wanted:
            break
        assert time.monotonic() < end, (found, wanted)
        time.sleep(1)
    by_server = {port["device_id"]: port["fixed_ips"][0]["ip_address"] for port in ports}
    for row in alive:
        told = [each["addr"] for addresses in json.loads(row["addresses"]).values() for each in addresses]
        assert told == [by_server[row["uuid"]]], row["uuid"]


def torment(cloud: Cloud, client: Client, chance: random.Random, kills: int, waits: tuple[float, float]) -> None:
    worker = threading.Thread(target=client.run, args=(chance,))
    worker.start()
    for _ in range(kills):
        time.sleep(chance.uniform(*waits))
        cloud.kill()
        cloud.up()
    worker.join(timeout=600)
    assert not worker.is_alive()
    if client.failure is not None:
        raise client.failure
    rest(cloud)


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("KILL_SEED", random.randrange(1 << 30)))
    print(f"KILL_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def simulated(tmp_path: Path) -> Iterator[Cloud]:
    configuration = tmp_path / "nova.conf"
    configuration.write_text("[quota]\ninstances = -1\ncores = -1\nram = -1\n")
    cloud = Cloud(tmp_path / "cloud", "--hypervisor", "sim", "--sim-hosts", "3", "--config-file", str(configuration))
    cloud.up()
    try:
        yield cloud
    finally:
        cloud.down()


def prepare(cloud: Cloud, image: Path, disk_format: str) -> tuple[str, str, str]:
    """Flavor, image and network for servers."""
    cloud.openstack("flavor", "create", "--vcpus", "1", "--ram", "128", "--disk", "1", "--id", "nano", "m1.nano")
    image_id = cloud.openstack(
        "image", "create", "--disk-format", disk_format, "--container-format", "bare", "--public",
        "--file", str(image), "tiny", "-f", "value", "-c", "id",
    )  # fmt: skip
    network = cloud.openstack("network", "create", "kill", "-f", "value", "-c", "id")
    cloud.openstack("subnet", "create", "--network", network, "--subnet-range", "10.20.0.0/24", "kill")
    return "nano", image_id, network


@pytest.mark.timeout(1800)
def test_simulated_servers_survive_every_kill(simulated: Cloud, tmp_path: Path, chance: random.Random) -> None:
    raw = tmp_path / "image.raw"
    raw.write_bytes(os.urandom(1 << 20))
    flavor, image, network = prepare(simulated, raw, "raw")
    client = Client(simulated, flavor, image, network, count=SERVERS, delete=SERVERS // 2)
    client.pause = 0.2
    torment(simulated, client, chance, KILLS, (0.2, 4.0))
    alive = audit(simulated, client)
    audit_ports(simulated, alive, network)
    guests = [
        msgspec.msgpack.decode(row["data"], type=SimGuest)
        for row in rows(simulated.directory / "kilonova/sim.sqlite", "SELECT data FROM guest")
    ]
    assert sorted(guest.uuid for guest in guests if guest.defined) == sorted(row["uuid"] for row in alive)
    assert not [guest.uuid for guest in guests if guest.disks and not guest.defined]
    assert not [(guest.uuid, guest.effects) for guest in guests if guest.effects.get("running", 0) > 1]


@pytest.mark.skipif(probe_hypervisor() is not None, reason=f"needs libvirt: {probe_hypervisor()}")
@pytest.mark.timeout(1800)
def test_real_guests_survive_every_kill(tmp_path: Path, chance: random.Random) -> None:
    cloud = Cloud(tmp_path / "cloud", "--hypervisor", "libvirt")
    cloud.up()
    try:
        flavor, image, network = prepare(cloud, build_image(Path(".cache/guest")), "qcow2")
        client = Client(cloud, flavor, image, network, count=6, delete=2)
        client.pause = 10.0
        torment(cloud, client, chance, min(KILLS, 5), (1.0, 15.0))
        alive = audit(cloud, client)
        audit_ports(cloud, alive, network)
        instances = cloud.directory / "kilonova/instances"
        assert sorted(path.name for path in instances.iterdir() if re.fullmatch("[0-9a-f-]{36}", path.name)) == sorted(
            row["uuid"] for row in alive
        )
        for row in alive:
            log = wait_for_guest(cloud, row["uuid"])
            # The guest counts its boots on its disk: a second start would show.
            assert "boots=1" in log
    finally:
        cloud.down()


def wait_for_guest(cloud: Cloud, uuid: str) -> str:
    end = time.monotonic() + QUIET
    while True:
        log = cloud.openstack("console", "log", "show", uuid)
        if "guest ready" in log:
            return log
        assert time.monotonic() < end, log[-2000:]
        time.sleep(2)
