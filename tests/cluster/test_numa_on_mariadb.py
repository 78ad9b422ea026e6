"""CPUs of one's own, huge pages and PCI devices are given once each, by several processes on MariaDB and RabbitMQ."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest

from kilonova.numa import Placed, read_placed
from tests.support.cluster import Cluster, make_cluster
from tests.support.load import Load, server
from tests.support.mariadb import MariaDB
from tests.support.rabbit import Broker

pytestmark = pytest.mark.timeout(600)

CPUS, PAGES_MB = 8, 64
"""Of each of the four hosts, in two cells with equal parts; CPUs are threads, two on each core."""
DEVICES = 7
"""Of each host."""
OPTIONS = {
    "compute": {"cpu_dedicated_set": f"0-{CPUS - 1}"},
    "sim": {
        "vcpus": CPUS, "memory_mb": 4096, "numa_cells": 2, "threads": 2, "huge_pages": f"2048:{PAGES_MB // 4}",
        "pci_devices": ",".join(f"0000:81:00.{number}=8086:10fb" for number in range(DEVICES)),
    },
    "pci": {
        "device_spec": '{"vendor_id": "8086", "product_id": "10fb"}',
        "alias": '{"vendor_id": "8086", "product_id": "10fb", "name": "nic"}',
    },
    "quota": {"cores": -1, "instances": -1},
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(mariadb: MariaDB, broker: Broker) -> Iterator[Cluster]:
    with make_cluster(mariadb, broker, hosts=1, options=OPTIONS) as made:
        yield made


def placed(cluster: Cluster) -> dict[str, list[Placed]]:
    """By host, what its servers have."""
    found: dict[str, list[Placed]] = {}
    rows = cluster.query("SELECT host, claim FROM instances WHERE deleted = 0 AND claimed AND claim IS NOT NULL")
    for host, claim in rows:
        found.setdefault(host, []).extend(read_placed(json.loads(claim)["numa"]))
    return found


async def test_more_demand_than_capacity_gives_every_cpu_and_every_page_once(cluster: Cluster) -> None:
    async with Load(cluster) as load:
        for name, ram, specs in (
            ("pair", 16, {"hw:cpu_policy": "dedicated"}),
            ("paged", 16, {"hw:cpu_policy": "dedicated", "hw:mem_page_size": "2048"}),
            ("alone", 16, {"hw:cpu_policy": "dedicated", "hw:cpu_thread_policy": "isolate"}),
        ):
            await load.flavor(name, vcpus=1 if name == "alone" else 2, ram=ram)
            assert (await load.ask("POST", f"/flavors/{name}/os-extra_specs", {"extra_specs": specs})).is_success
        flavors = ["pair", "paged", "alone"] * 12
        answers = await load.together(
            [("POST", "/servers", server(f"s{n}", flavor)) for n, flavor in enumerate(flavors)]
        )
        assert {answer.status_code for answer in answers} == {202}
        found = await load.settled(len(flavors))
        running = [one for one in found if one["status"] == "ACTIVE"]
        # Each takes one core of the sixteen, however it asks.
        assert len(running) == 4 * CPUS // 2, Counter(one["status"] for one in found)
        everything = placed(cluster)
        for mine in everything.values():
            cpus = sorted(cpu for one in mine for cpu in (*one.pins, *one.kept_free))
            assert cpus == list(range(CPUS)), mine
            pages = Counter(one.cell for one in mine if one.page_kib == 2048)
            assert all(count * 16 <= PAGES_MB // 2 for count in pages.values()), mine
        assert len(everything) == 4
        faults = {one["fault"]["message"].split(".")[0] for one in found if one["status"] == "ERROR"}
        assert faults == {"No valid host was found"}
        # What goes is there for others.
        await load.together([("DELETE", f"/servers/{one['id']}", None) for one in found])
        await load.clear()
        assert placed(cluster) == {}
        await load.together([("POST", "/servers", server(f"t{n}", "pair")) for n in range(4 * CPUS // 2)])
        assert {one["status"] for one in await load.settled(4 * CPUS // 2)} == {"ACTIVE"}
        await load.clear()


async def test_more_demand_than_devices_gives_each_device_once(cluster: Cluster) -> None:
    """Two of seven each; each has a CPU of its own beside them."""
    async with Load(cluster) as load:
        await load.flavor("nics", ram=16)
        specs = {"hw:cpu_policy": "dedicated", "pci_passthrough:alias": "nic:2"}
        assert (await load.ask("POST", "/flavors/nics/os-extra_specs", {"extra_specs": specs})).is_success
        demand, capacity = 32, 4 * (DEVICES // 2)
        await load.together([("POST", "/servers", server(f"s{n}", "nics")) for n in range(demand)])
        found = await load.settled(demand)
        assert Counter(one["status"] for one in found) == {"ACTIVE": capacity, "ERROR": demand - capacity}
        rows = cluster.query("SELECT host, claim FROM instances WHERE deleted = 0 AND claimed")
        given = Counter((host, address) for host, claim in rows for address in json.loads(claim)["pci_devices"])
        assert len(given) == 2 * capacity, given
        assert set(given.values()) == {1}, given
        ((owned,),) = cluster.query("SELECT COUNT(DISTINCT server_uuid) FROM pci_devices WHERE server_uuid IS NOT NULL")
        assert int(owned) == capacity
        await load.clear()
        assert cluster.query("SELECT address FROM pci_devices WHERE server_uuid IS NOT NULL") == []
