"""Races that one guard each decides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflows.harness import clock, logs, races
from tests.workflows.harness.cases import Case, Harness, Report, trace
from tests.workflows.harness.cloud import APART, TOGETHER, Config
from tests.workflows.harness.faults import sample
from tests.workflows.harness.scenarios import SCENARIOS
from tests.workflows.test_faults import FULL, SEED


def run(tmp_path: Path, cases: list[Case]) -> None:
    logs.capture()

    async def main() -> Report:
        return await Harness(tmp_path, SEED).run_all(cases)

    clock.run(main).check()


@pytest.mark.timeout(3600 if FULL else 300)
@pytest.mark.parametrize("name", ["boot", "delete", "reboot soft", "rebuild", "stop"])
def test_a_stalled_conductor_is_refused_whenever_it_goes_on(name: str, tmp_path: Path) -> None:
    logs.capture()

    async def main() -> Report:
        harness = Harness(tmp_path, SEED)
        points = await trace(harness, SCENARIOS[name], lambda: Config(conductors=2))
        chosen = points if FULL else points[:: 4 if name == "boot" else 8]
        cases = await races.early_thaws(harness, SCENARIOS[name], chosen, 4 if FULL else 1)
        over = races.deletes_over_stalled(SCENARIOS[name], points)
        return await harness.run_all([*cases, *sample(over, 1_000 if FULL else 5, SEED)])

    clock.run(main).check()


@pytest.mark.timeout(3600 if FULL else 300)
@pytest.mark.parametrize("name", ["stop", "reboot soft", "rebuild"])
def test_a_second_operation_is_refused_at_every_point_of_the_first(name: str, tmp_path: Path) -> None:
    logs.capture()

    async def main() -> Report:
        harness = Harness(tmp_path, SEED)
        cases = races.refusals(SCENARIOS[name], await trace(harness, SCENARIOS[name]))
        return await harness.run_all(sample(cases, 1_000 if FULL else 6, SEED))

    clock.run(main).check()


@pytest.mark.parametrize("make", [races.late_duplicate, races.late_power_report, races.late_command])
def test_what_comes_late_changes_nothing(make: Callable[[], Case], tmp_path: Path) -> None:
    run(tmp_path, [make()])


@pytest.mark.timeout(3600 if FULL else 300)
def test_storms_pass(tmp_path: Path) -> None:
    """Many servers, many clients, kills and lost messages at once; and no server ends in ERROR."""
    run(tmp_path, [races.storm(SEED + number) for number in range(100 if FULL else 4)])


def test_hosts_are_never_over_committed(tmp_path: Path) -> None:
    run(tmp_path, [races.crowd(12, 3)])


def test_policies_of_groups_are_exact(tmp_path: Path) -> None:
    run(tmp_path, [races.grouped(APART, 8, 2), races.grouped(TOGETHER, 8, 3, room=3)])


def test_other_resource_classes_are_exact(tmp_path: Path) -> None:
    run(tmp_path, [races.rare(8, 4)])


def test_quota_is_exact(tmp_path: Path) -> None:
    run(tmp_path, [races.quota(3, 12)])
