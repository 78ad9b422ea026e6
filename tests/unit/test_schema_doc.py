"""`docs/schema.md` names every table there is, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from kilonova.db.tables import metadata

DOC = Path(__file__).parents[2] / "docs" / "schema.md"


def test_the_guides_tables_and_ours_are_all_explained() -> None:
    text = DOC.read_text()
    first, second = text.split("Tables that the guide has not:")
    listed = re.findall(r"^\| (\w+) \|", first, flags=re.MULTILINE)
    assert len(listed) == len(set(listed)) == 105
    named = set(re.findall(r"`(\w+)(?:\.\w+)?`", text))
    assert set(metadata.tables) <= named
    more = set(re.findall(r"^\| `(\w+)` \|", second, flags=re.MULTILINE))
    assert more == (set(metadata.tables) | {"alembic_version"}) - set(listed)
