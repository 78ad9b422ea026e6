"""One site for the whole guide: its steps are tests in the order of the file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guide.site import CHECKOUT, Site, prepare_layer


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("machines of namespaces need root")
    layer = prepare_layer(CHECKOUT / ".cache/guide")
    with tempfile.TemporaryDirectory(prefix="kn-guide-") as directory:
        site = Site(Path(directory), layer)
        try:
            site.start()
            yield site
        finally:
            site.stop()
