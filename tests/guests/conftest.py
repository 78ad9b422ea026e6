"""One cloud with its guests for all that looks at guests: each costs minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # Not at the top: what this brings along is not there everywhere, and its tests are skipped then.
    from tests.guests.test_networks import Guests

    lab = Guests(tmp_path_factory.mktemp("guests") / "cloud")
    try:
        lab.start()
        yield lab
    finally:
        lab.cloud.down()
