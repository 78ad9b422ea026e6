"""This service against the reference's recorded answers (see `make compat`, which records them)."""

from __future__ import annotations

import pytest

from compat import golden
from compat.compare import differences, load_deviations, undeclared
from compat.ours import ours
from compat.play import play
from compat.stories import SETTINGS, STORIES


@pytest.mark.parametrize("name", STORIES)
async def test_answers_as_the_reference_does(name: str) -> None:
    async with ours(SETTINGS.get(name, {})) as side:
        answers = await play(side, name, STORIES[name])
    assert answers, "the story asks nothing"
    rest, _ = undeclared(differences(golden.read(name), answers), load_deviations())
    shown = [f"{found.key.step} at {found.key.version} as {found.key.token}: {found}" for found in rest[:30]]
    assert not rest, f"{len(rest)} differences:\n" + "\n".join(shown)


def test_a_difference_is_found() -> None:
    """The comparison itself: goldens with one value changed do not pass."""
    recorded = golden.read("versions")
    key = next(key for key, answer in recorded.items() if answer.status == 200)
    body = {**recorded[key].body, "more": 1}
    changed = {**recorded, key: type(recorded[key])(**{**_fields(recorded[key]), "body": body})}
    (found,) = differences(recorded, changed)
    assert found.where == "body.more"


def _fields(answer: object) -> dict[str, object]:
    return {name: getattr(answer, name) for name in ("operation", "status", "headers", "body")}
