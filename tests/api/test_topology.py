"""`GET /servers/{id}/topology`: a server's own cells, and to administrators where they lie."""

from __future__ import annotations

import msgspec

from kilonova.numa import Placed
from kilonova.testing.api import Client
from kilonova.testing.cloud import StaticImages
from tests.support import server_rows as rows

OTHER = "20000000-0000-4000-8000-000000000002"
CELLS = (
    Placed(cell=1, cpus=(0, 1), memory_mb=64, pins=(4, 6), kept_free=(5, 7), page_kib=2048),
    Placed(cell=0, cpus=(2,), memory_mb=64, pins=(2,), page_kib=2048),
)


async def test_a_servers_cells_are_shown_and_where_they_lie_to_administrators(api: Client) -> None:
    claim = {"vcpus": 0, "memory_mb": 128, "disk_gb": 1, "resources": {"PCPU": 3}, "numa": msgspec.to_builtins(CELLS)}
    uuid = await rows.add(api.rt.db, vcpus=3, claimed=True, claim=claim)
    mine = (await api("GET", f"/servers/{uuid}/topology", token="member", version="2.78")).json()
    plain = [
        {"memory_mb": 64, "siblings": [], "vcpu_set": [0, 1]},
        {"memory_mb": 64, "siblings": [], "vcpu_set": [2]},
    ]
    assert mine == {"nodes": plain, "pagesize_kb": 2048}
    whole = (await api("GET", f"/servers/{uuid}/topology", version="2.78")).json()
    assert whole["nodes"] == [
        plain[0] | {"cpu_pinning": {"0": 4, "1": 6}, "host_node": 1},
        plain[1] | {"cpu_pinning": {"2": 2}, "host_node": 0},
    ]


async def test_a_server_without_cells_of_its_own_has_none(api: Client) -> None:
    uuid = await rows.add(api.rt.db)
    shown = (await api("GET", f"/servers/{uuid}/topology", token="member", version="2.78")).json()
    assert shown == {"nodes": [], "pagesize_kb": None}


async def test_a_rebuild_keeps_the_cells(api: Client) -> None:
    images = api.rt.images
    assert isinstance(images, StaticImages)
    images.add(rows.IMAGE)
    images.add(OTHER, properties={"hw_numa_nodes": "1"})
    uuid = await rows.add(api.rt.db)
    answer = await api("POST", f"/servers/{uuid}/action", {"rebuild": {"imageRef": OTHER}})
    assert answer.status_code == 400
    assert "asks for other NUMA cells, CPUs or pages than the server has" in answer.json()["badRequest"]["message"]
    assert (await api("POST", f"/servers/{uuid}/action", {"rebuild": {"imageRef": rows.IMAGE}})).status_code == 202
