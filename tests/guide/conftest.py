"""One site for the whole guide: its steps are tests in the order of the files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guide.bounded import missing
from tests.guide.marks import WHOLE
from tests.guide.site import CHECKOUT, Site, prepare_layer


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("machines of namespaces need root")
    if not WHOLE and (lacking := missing()):
        pytest.skip(f"needs {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="kn-guide-") as directory:
        site = Site(Path(directory), prepare_layer(CHECKOUT / ".cache/guide") if WHOLE else None)
        try:
            try:
                site.make_machines()
            except AssertionError as error:
                if WHOLE:
                    raise
                pytest.skip(f"no machines of namespaces here: {error}")
            site.base.start()
            yield site
        finally:
            site.stop()
