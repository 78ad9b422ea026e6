"""`kilonova explain` on the files of a cloud in this process, and the fault that the server's owner is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner, Result

from kilonova.cli.app import app
from kilonova.compute.servers import boot
from kilonova.context import RequestContext
from kilonova.db import servers
from kilonova.db.servers import Server
from kilonova.db.tables import compute_nodes, instance_types, services
from kilonova.errors import KilonovaError
from kilonova.testing.cloud import TestCloud, make_cloud

IMAGE = "155d900f-4e14-4e4c-a73d-069cbf4541e6"
FLAVORS = {
    "small": {},
    "picky": {"trait:CUSTOM_FAST": "required"},
    "gpu": {"resources:CUSTOM_GPU": "1"},
    "tpm": {"hw:tpm_version": "2.0"},
}


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[TestCloud]:
    directory = tmp_path / "kilonova"
    directory.mkdir()
    async with make_cloud(directory, hosts=3, synchronous="OFF") as made:
        made.images.add(IMAGE, properties={"hw_architecture": "x86_64"})

        async def fill(tx: Any) -> None:
            for name, specs in FLAVORS.items():
                row = {"flavorid": f"id-{name}", "name": name, "vcpus": 1, "memory_mb": 512, "root_gb": 1}
                await tx.execute(
                    sa.insert(instance_types).values(**row, extra_specs=specs, created_at=made.rt.world.now())
                )
            await tx.execute(sa.update(services).where(services.c.host == "host-2").values(disabled=True))
            await tx.execute(sa.update(compute_nodes).where(compute_nodes.c.host == "host-3").values(memory_mb_max=100))

        async with asyncio.timeout(20):
            while await made.rt.db.read(_count) < 3:
                await asyncio.sleep(0.02)
        await made.rt.db.write(fill)
        yield made


async def _count(tx: Any) -> int:
    return int((await tx.execute(sa.select(sa.func.count()).select_from(compute_nodes))).scalar_one())


async def server(cloud: TestCloud, flavor: str, **wishes: Any) -> Server:
    context = RequestContext(user_id="u", project_id="p", roles=frozenset({"member"}), request_id="req-1")
    asked = boot.BootRequest(name=f"my-{flavor}", image_ref=IMAGE, flavor_ref=f"id-{flavor}", networks="none", **wishes)
    created = await boot.create(cloud.rt, context, asked)
    async with asyncio.timeout(20):
        while True:
            found = await cloud.rt.db.read(lambda tx: servers.get(tx, created.uuids[0]))
            assert found is not None
            if found.operation_id is None:
                return found
            await asyncio.sleep(0.02)


async def explain(tmp_path: Path, *words: str) -> Result:
    arguments = ["explain", *words, "--state-dir", str(tmp_path)]
    return await asyncio.to_thread(CliRunner(env={"COLUMNS": "200"}).invoke, app, arguments)


async def test_a_server_without_a_host_is_explained_host_by_host(cloud: TestCloud, tmp_path: Path) -> None:
    found = await server(cloud, "picky")
    assert found.vm_state == "error"
    assert found.fault is not None
    assert found.fault["message"] == (
        "No valid host was found. Of 3 hosts ComputeFilter removed 1, traits removed 2. "
        "The nearest one lacks the trait CUSTOM_FAST."
    )
    told = await explain(tmp_path, "my-picky")
    assert told.exit_code == 2, told.output
    lines = {line.split()[0]: line for line in told.output.splitlines() if line.startswith("host-")}
    assert "lacks the trait CUSTOM_FAST" in lines["host-1"]
    assert "has a compute service that is disabled" in lines["host-2"]
    assert "has 100 MiB of memory free of the 512 that are needed" in lines["host-3"]
    assert "0 of 3 hosts can take it" in told.output
    assert found.fault["message"] in told.output


async def test_a_server_on_its_host_does_not_stand_in_its_own_way(cloud: TestCloud, tmp_path: Path) -> None:
    found = await server(cloud, "small")
    assert found.host == "host-1"

    async def fill(tx: Any) -> None:
        await tx.execute(sa.update(compute_nodes).values(vcpus_max=1))

    await cloud.rt.db.write(fill)
    told = await explain(tmp_path, found.uuid)
    assert told.exit_code == 0, told.output
    assert "1 of 3 hosts can take it" in told.output
    full = await explain(tmp_path, "--flavor", "small", "--json")
    document = json.loads(full.output)
    assert document["left"] == 0
    assert document["refused"]["not enough vCPUs"] == 1


async def test_a_wish_is_ranked_and_nothing_is_taken(cloud: TestCloud, tmp_path: Path) -> None:
    told = await explain(tmp_path, "--flavor", "small", "--dry-run")
    assert told.exit_code == 0, told.output
    assert "weight" in told.output
    assert await cloud.rt.db.read(_used) == 0
    gpu = json.loads((await explain(tmp_path, "--flavor", "id-gpu", "--json")).output)
    assert {one["host"]: list(one["refusals"]) for one in gpu["hosts"]}["host-1"] == ["not enough of other resources"]


async def _used(tx: Any) -> int:
    return int((await tx.execute(sa.select(sa.func.sum(compute_nodes.c.running_vms)))).scalar_one())


async def test_a_deployment_is_found_by_its_configuration(cloud: TestCloud, tmp_path: Path) -> None:
    conf = tmp_path / "nova.conf"
    conf.write_text(
        f"[database]\nconnection = sqlite:///{tmp_path}/kilonova/compute.sqlite\n"
        "[filter_scheduler]\nenabled_filters = NumInstancesFilter\nmax_instances_per_host = 1\n"
    )
    found = await server(cloud, "small")
    told = await explain(tmp_path / "elsewhere", "--flavor", "small", "--config-file", str(conf), "--json")
    document = json.loads(told.output)
    refusals = {one["host"]: list(one["refusals"]) for one in document["hosts"]}
    assert refusals[str(found.host)] == ["NumInstancesFilter"]
    lost = await explain(tmp_path / "elsewhere", found.uuid)
    assert isinstance(lost.exception, KilonovaError)
    assert "There is no cloud" in lost.exception.message


async def test_hints_count_as_for_a_real_server(cloud: TestCloud, tmp_path: Path) -> None:
    first = await server(cloud, "small")
    apart = await explain(tmp_path, "--flavor", "small", "--hint", f"different_host={first.uuid}", "--json")
    assert json.loads(apart.output)["refused"]["DifferentHostFilter"] == 1
    beside = await server(cloud, "small", scheduler_hints={"same_host": [first.uuid]})
    assert (beside.vm_state, beside.host) == ("active", first.host)
    away = await server(cloud, "small", scheduler_hints={"different_host": first.uuid})
    assert away.vm_state == "error"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nobody"], "No server has the id or name 'nobody'"),
        ([], "--flavor"),
        (["--flavor", "huge"], "No flavor has the id or name 'huge'"),
        (["--flavor", "small", "--hint", "same_host"], "NAME=VALUE"),
        (["--flavor", "small", "--hint", "query=[]"], "JsonFilter is not enabled"),
        (["--flavor", "small", "--hint", "group=nowhere"], "Instance group nowhere could not be found"),
        (["--flavor", "tpm"], "hw:tpm_version=2.0 cannot be honoured"),
    ],
)
async def test_what_cannot_be_explained_is_named(cloud: TestCloud, tmp_path: Path, words: list[str], said: str) -> None:
    told = await explain(tmp_path, *words)
    assert isinstance(told.exception, KilonovaError)
    assert said in told.exception.message
