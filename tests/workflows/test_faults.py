"""Every fault, for every workflow: afterwards there is exactly one of each, or a clean slate.

The full set runs with KILONOVA_FAULTS=full; otherwise a part of it that the seed chooses
(KILONOVA_SEED, shown with the counts).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.workflows.harness import clock, logs
from tests.workflows.harness.audit import audit
from tests.workflows.harness.cases import Case, Harness, Report, rest, trace
from tests.workflows.harness.cloud import PASSWORD, TOKEN
from tests.workflows.harness.faults import all_cases, sample
from tests.workflows.harness.scenarios import SCENARIOS

SEED = int(os.environ.get("KILONOVA_SEED", "1"))
FULL = os.environ.get("KILONOVA_FAULTS") == "full"
MOST = {"boot": 12, "boot with ports": 12, "delete": 8, "rebuild": 4}
"""Cases of each class in the part that always runs, by kind; 2 for the others."""


@pytest.mark.timeout(3600 if FULL else 300)
@pytest.mark.parametrize("name", SCENARIOS)
def test_whatever_goes_wrong_leaves_exactly_one_or_nothing(name: str, tmp_path: Path) -> None:
    logs.capture()
    scenario = SCENARIOS[name]

    async def main() -> Report:
        harness = Harness(tmp_path, SEED)
        classes = await all_cases(harness, scenario, firsts=1_000 if FULL else 4)
        most = 1_000_000 if FULL else MOST.get(name, 2)
        return await harness.run_all([case for cases in classes.values() for case in sample(cases, most, SEED)])

    clock.run(main).check()
    leaked = [line for line in logs.LINES if PASSWORD in line or TOKEN in line]
    assert not leaked, f"a secret was logged: {leaked[0]}"


def test_points_are_enumerated_anew_for_each_run_and_are_the_same(tmp_path: Path) -> None:
    """The harness rests on it: a point of an undisturbed run is met again."""
    logs.capture()

    async def main() -> None:
        harness = Harness(tmp_path, SEED)
        first = await trace(harness, SCENARIOS["boot"])
        second = await trace(harness, SCENARIOS["boot"])
        assert first == second
        assert {point.role for point in first} == {"api", "conductor", "scheduler", "agent"}
        assert len(first) > 40

    clock.run(main)


def test_a_flaw_is_found(tmp_path: Path) -> None:
    """The audit is no rubber stamp: each thing that it looks for is missed when it is put wrong by hand."""
    logs.capture()
    boot = SCENARIOS["boot"]
    wrongs = {
        "allocations": "UPDATE compute_nodes SET vcpus_used = vcpus_used + 1 WHERE id = 1",
        "quota": "UPDATE quota_usages SET cores = cores + 1",
        "slot": "UPDATE instances SET operation_id = 7",
        "secret": f"UPDATE instances SET display_description = '{PASSWORD}'",
        "event": "INSERT INTO instance_actions_events (operation_id, name, phase, attempt, started_at)"
        " SELECT operation_id, name, phase, attempt, started_at FROM instance_actions_events",
        "tombstones": "INSERT INTO tombstones VALUES ('host-9', 'u', 1, '2030-01-01')",
        "is on": "UPDATE instances SET host = 'host-9'",
        "recorded": "UPDATE instances SET power_state = 4",
        "expected": "UPDATE instances SET vm_state = 'error'",
        "owner": "UPDATE instance_actions SET owner = 'somebody'",
        "running": "UPDATE instance_actions SET state = 'running'",
    }

    async def main() -> None:
        harness = Harness(tmp_path, SEED)
        for word, statement in wrongs.items():
            found: list[str] = []

            async def put_wrong(cloud, statement=statement, found=found) -> None:  # type: ignore[no-untyped-def]

                assert await rest(cloud, {boot.end}) == []
                await cloud.db.write(lambda tx: tx.exec_driver_sql(statement))
                found += await audit(cloud, {boot.end})
                await cloud.db.write(lambda tx: tx.exec_driver_sql("DELETE FROM tombstones"))

            await harness.run(Case(name=word, scenario=boot, expected={boot.end}, during=put_wrong, patience=0.1))
            assert any(word in problem for problem in found), (word, found)

    clock.run(main)


def test_a_cloud_without_recovery_is_found_out(tmp_path: Path) -> None:
    """A killed conductor that nobody takes over for leaves an open operation, and the harness says so."""
    logs.capture()
    boot = SCENARIOS["boot"]

    async def main() -> None:
        harness = Harness(tmp_path, SEED)
        point = next(p for p in await trace(harness, boot) if p.label == "do:build:before effect")

        def plan(cloud):  # type: ignore[no-untyped-def]
            async def never(process):  # type: ignore[no-untyped-def]
                await cloud.kill(process)
                for task in cloud._reviving:
                    task.cancel()
                cloud._reviving.clear()

            return {point: never}

        outcome = await harness.run(
            Case(name="no recovery", scenario=boot, expected={boot.end}, plan=plan, patience=60.0)
        )
        assert outcome.problems

    clock.run(main)
