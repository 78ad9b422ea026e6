"""Rows already stored name steps by their place and clients see their names: both only ever grow at the end."""

from __future__ import annotations

import json
from pathlib import Path

from kilonova.workflows import ALL

GOLDEN = Path(__file__).parent / "steps.json"


def test_steps_of_every_workflow_are_those_that_stored_operations_know() -> None:
    """A change here needs a thought about operations under way while the release changes; then change the file."""
    assert {kind: [step.name for step in workflow.steps] for kind, workflow in ALL.items()} == json.loads(
        GOLDEN.read_text()
    )


def test_every_step_that_acts_outside_the_database_has_a_deadline_and_a_name_of_its_own() -> None:
    for workflow in ALL.values():
        names = [step.name for step in workflow.steps]
        assert len(set(names)) == len(names)
        assert all(0 < step.deadline <= 3600 for step in workflow.steps)
