"""After an operation its secrets are nowhere: not in a row, a free page, the journal or a log."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from kilonova.compute import states
from kilonova.errors import HostFailure
from tests.workflows.harness import clock, logs
from tests.workflows.harness.audit import GONE
from tests.workflows.harness.cases import contained, grep, rest
from tests.workflows.harness.cloud import PASSWORD, TOKEN, Config, FaultCloud
from tests.workflows.harness.director import Director
from tests.workflows.harness.scenarios import SCENARIOS, make_template


def test_no_secret_outlives_its_operation(tmp_path: Path) -> None:
    logs.capture()

    async def fails_on_the_first_host(host: str, verb: str, now: str, uuid: str) -> None:
        if (host, verb, now) == ("host-1", "running", "before"):
            raise HostFailure("This host does not start guests.")

    async def main() -> None:
        (tmp_path / "template").mkdir()
        await contained(make_template(tmp_path / "template", SCENARIOS["boot"]))
        shutil.copytree(tmp_path / "template", tmp_path / "cloud")
        cloud = FaultCloud(tmp_path / "cloud", Director(), 1, Config(verb_hook=fails_on_the_first_host))
        await cloud.start()
        for _ in range(3):
            await cloud.create()
        assert grep(tmp_path / "cloud", PASSWORD), "the secret is there while the operations need it"
        assert await rest(cloud, {states.ACTIVE}) == []
        await SCENARIOS["rebuild"].act(cloud)
        assert await rest(cloud, {states.ACTIVE}) == []
        for server in await cloud.all_servers():
            await cloud.delete(server.uuid)
        assert await rest(cloud, {GONE}) == []
        await asyncio.sleep(60)
        await cloud.close()

    clock.run(lambda: contained(main()))
    assert grep(tmp_path / "cloud", PASSWORD, TOKEN) == []
    assert not [line for line in logs.LINES if PASSWORD in line or TOKEN in line]
