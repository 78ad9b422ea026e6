"""`nova-manage` and `nova-status`: exit codes and output, as operators' scripts know them."""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import Result
from typer.testing import CliRunner

from kilonova.cli import manage, upgrade_status
from kilonova.db import schema
from kilonova.db.engine import Database, Tx
from kilonova.db.tables import instances, operation_steps, operations, shadow_rows, tags
from kilonova.engine import store
from kilonova.errors import KilonovaError
from tests.support.server_rows import values

LONG_AGO = dt.datetime.fromisoformat("2020-01-01T12:00:00")
LATER = dt.datetime.fromisoformat("2026-01-01T12:00:00")


class Deployment:
    """A nova.conf with a database."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "nova.conf"
        self.url = f"sqlite:///{directory}/nova.sqlite"
        self.config.write_text(
            f"[database]\nconnection = {self.url}\n[DEFAULT]\ntransport_url = rabbit://u:secret@mq:5672//\n"
        )

    def manage(self, *words: str) -> Result:
        return CliRunner().invoke(manage.app, ["--config-file", str(self.config), *words])

    def status(self, *words: str) -> Result:
        return CliRunner().invoke(upgrade_status.app, ["--config-file", str(self.config), *words])

    def deleted(self, *times: dt.datetime | None) -> None:
        """One server for each time at which one was deleted (None: it lives), with a tag and an operation of a step."""

        async def work(tx: Tx) -> None:
            for number, time in enumerate(times, 1):
                uuid = f"{number:032d}"
                row = values(uuid=uuid, deleted=0 if time is None else number, deleted_at=time)
                await tx.execute(sa.insert(instances).values(row))
                await tx.execute(sa.insert(tags).values(resource_id=uuid, tag="t"))
                made = await tx.execute(
                    sa.insert(operations).values(
                        kind="boot", action="create", server_uuid=uuid, project_id="p", user_id="u", request_id="r",
                        state="done", data={}, created_at=LATER,
                    )
                )  # fmt: skip
                assert made.inserted_primary_key
                await tx.execute(
                    sa.insert(operation_steps).values(
                        operation_id=made.inserted_primary_key[0], name="build", phase="do", attempt=0, started_at=LATER
                    )
                )

        self._run(work)

    def count(self, table: sa.Table) -> int:
        found = []

        async def work(tx: Tx) -> None:
            found.append(int((await tx.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()))

        self._run(work)
        return found[0]

    def operation(self) -> None:
        async def work(tx: Tx) -> None:
            await store.insert(
                tx,
                kind="boot",
                action="create",
                server_uuid="u",
                project_id="p",
                user_id="u",
                request_id="r",
                now=LATER,
            )

        self._run(work)

    def newest(self, table: sa.Table) -> int:
        found = []

        async def work(tx: Tx) -> None:
            found.append(int((await tx.execute(sa.select(sa.func.max(table.c.id)))).scalar_one()))

        self._run(work)
        return found[0]

    def _run(self, work: object) -> None:
        async def run() -> None:
            db = Database(self.url)
            await db.write(work)  # type: ignore[arg-type]
            await db.close()

        asyncio.run(run())


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    made = Deployment(tmp_path)
    result = made.manage("db", "sync")
    assert (result.exit_code, result.output) == (0, "")
    return made


def test_sync_again_is_a_no_op_and_the_version_is_told(deployment: Deployment) -> None:
    for command in (("db", "sync"), ("api_db", "sync"), ("db", "sync", "--local_cell")):
        result = deployment.manage(*command)
        assert (result.exit_code, result.output) == (0, "")
    for group in ("db", "api_db"):
        assert deployment.manage(group, "version").output == f"{schema.newest()}\n"


def test_old_names_of_options_add_nothing_to_what_is_printed(
    deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    deployment.config.write_text(deployment.config.read_text() + "[vnc]\nvncserver_listen = 192.0.2.1\n")
    assert deployment.manage("db", "sync").output == ""
    assert deployment.status("upgrade", "check").exit_code == 0
    assert not [record for record in caplog.records if record.name.startswith("oslo_config")]


def test_an_empty_database_has_version_0_and_is_no_upgrade(tmp_path: Path) -> None:
    made = Deployment(tmp_path)
    assert made.manage("db", "version").output == "0\n"
    result = made.status("upgrade", "check")
    assert result.exit_code == 2
    assert "| Result: Failure" in result.output


def test_after_a_restore_numbers_go_on_far_above_those_that_were_given(deployment: Deployment) -> None:
    deployment.deleted(None, None)
    before = (2 + 1_000_000_000, 2 + 1_000_000)
    result = deployment.manage("db", "restored")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        f"instance_actions: numbers go on from {before[0]}",
        f"instances: numbers go on from {before[1]}",
        "operations that go on from where they stood: 0",
    ]
    # Nothing was added since: again is the same.
    assert deployment.manage("db", "restored").output == result.output
    assert deployment.newest(operations) == 2
    deployment.operation()
    assert deployment.newest(operations) == before[0]


def test_what_was_restored_has_to_have_this_releases_schema(tmp_path: Path) -> None:
    result = Deployment(tmp_path).manage("db", "restored")
    assert isinstance(result.exception, KilonovaError)
    assert "first 'db sync'" in str(result.exception)


def test_online_data_migrations(deployment: Deployment) -> None:
    result = deployment.manage("db", "online_data_migrations")
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == "Running batches of 50 until complete"
    assert "| Migration | Total Needed | Completed |" in result.output
    assert deployment.manage("db", "online_data_migrations", "--max-count", "10").exit_code == 0
    assert deployment.manage("db", "online_data_migrations", "--max-count", "0").exit_code == 127


def test_rows_of_deleted_servers_are_archived_whole_and_only_they(deployment: Deployment) -> None:
    deployment.deleted(LONG_AGO, None, LATER)
    result = deployment.manage("db", "archive_deleted_rows", "--before", "2021-01-01", "--verbose")
    assert result.exit_code == 1
    assert re.search(r"\| instances +\| 1 ", result.output)
    assert re.search(r"\| instance_actions_events +\| 1 ", result.output)
    assert [deployment.count(table) for table in (instances, operations, operation_steps, tags)] == [2, 2, 2, 2]
    assert deployment.count(shadow_rows) == 4
    result = deployment.manage("db", "archive_deleted_rows", "--until-complete", "--max_rows", "1")
    assert (result.exit_code, result.output) == (0, "")
    assert [deployment.count(table) for table in (instances, operations, operation_steps, tags)] == [1, 1, 1, 1]
    result = deployment.manage("db", "archive_deleted_rows", "--verbose")
    assert (result.exit_code, result.output) == (0, "Nothing was archived.\n")


def test_purge_drops_what_was_archived_by_the_time_of_the_servers_end(deployment: Deployment) -> None:
    deployment.deleted(LONG_AGO, LATER)
    assert deployment.manage("db", "archive_deleted_rows").exit_code == 1
    result = deployment.manage("db", "purge", "--before", "2021-01-01 00:00:00", "--verbose")
    assert result.exit_code == 0
    assert "instances: 1 rows dropped" in result.output
    assert deployment.count(shadow_rows) == 4
    assert deployment.manage("db", "purge", "--all").exit_code == 0
    assert deployment.count(shadow_rows) == 0
    assert deployment.manage("db", "purge", "--all").exit_code == 3


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("db", "archive_deleted_rows", "--max_rows", "-1"), 2),
        (("db", "archive_deleted_rows", "--before", "someday"), 4),
        (("db", "purge"), 1),
        (("db", "purge", "--before", "someday"), 2),
        (("cell_v2", "create_cell", "--disabled"), 1),
        (("cell_v2", "discover_hosts", "--strict"), 1),
    ],
)
def test_refusals_have_codes_of_their_own(deployment: Deployment, words: tuple[str, ...], code: int) -> None:
    assert deployment.manage(*words).exit_code == code


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("db", "sync"), 1),
        (("db", "archive_deleted_rows"), 3),
        (("db", "purge", "--all"), 4),
        (("db", "version"), 1),
    ],
)
def test_a_database_that_does_not_answer(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    made = Deployment(tmp_path)
    made.config.write_text("[database]\nconnection = mysql://nova:secret@127.0.0.1:9/nova\n")
    result = made.manage(*words)
    assert result.exit_code == code
    assert "secret" not in result.output


def test_cells_are_one_and_there(deployment: Deployment) -> None:
    assert deployment.manage("cell_v2", "map_cell0").output == "Cell0 is already setup\n"
    assert deployment.manage("cell_v2", "create_cell", "--name", "cell1").output == ""
    (cell,) = deployment.manage("cell_v2", "create_cell", "--name", "cell1", "--verbose").output.splitlines()
    assert deployment.manage("cell_v2", "discover_hosts").output == ""
    assert f"in cell: {cell}" in deployment.manage("cell_v2", "discover_hosts", "--verbose").output
    listed = deployment.manage("cell_v2", "list_cells").output
    assert [row.split("|")[1].strip() for row in listed.splitlines()[3:-1]] == ["cell0", "cell1"]
    assert cell in listed
    assert "rabbit://u:****@mq:5672/" in listed
    assert "secret" in deployment.manage("cell_v2", "list_cells", "--verbose").output


def test_upgrade_check(deployment: Deployment) -> None:
    result = deployment.status("upgrade", "check")
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].strip("| ") == "Upgrade Check Results"
    assert result.output.count("Result: Success") == 3
    deployment.config.write_text(deployment.config.read_text() + "[placement]\nauth_url = http://x\n")
    result = deployment.status("upgrade", "check")
    assert result.exit_code == 1
    assert "[placement] auth_url" in result.output
    deployment.config.write_text(deployment.config.read_text() + "[spice]\nenabled = true\n")
    assert deployment.status("upgrade", "check").exit_code == 2
