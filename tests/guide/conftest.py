"""One site for the whole guide: its steps are tests in the order of the files."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guide.bounded import missing
from tests.guide.marks import WHOLE
from tests.guide.minutes import Minutes
from tests.guide.site import CHECKOUT, Site, prepare_layer

MINUTES = Minutes()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" and report.nodeid.startswith("tests/guide/"):
        MINUTES.add_test(report.nodeid, report.duration)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if WHOLE:
        terminalreporter.section("minutes")
        terminalreporter.write("\n".join([*MINUTES.table(), ""]))


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    if os.geteuid() != 0:
        pytest.skip("machines of namespaces need root")
    if not WHOLE and (lacking := missing()):
        pytest.skip(f"needs {', '.join(lacking)}")
    with tempfile.TemporaryDirectory(prefix="kn-guide-") as directory:
        before = "before the guide"
        with MINUTES.of(before, "Debian's packages, once"):
            layer = prepare_layer(CHECKOUT / ".cache/guide") if WHOLE else None
        site = Site(Path(directory), layer)
        try:
            try:
                with MINUTES.of(before, "machines"):
                    site.make_machines()
            except AssertionError as error:
                if WHOLE:
                    raise
                pytest.skip(f"no machines of namespaces here: {error}")
            for name, start in site.base.parts().items():
                with MINUTES.of(before, name):
                    start()
            yield site
        finally:
            site.stop()
