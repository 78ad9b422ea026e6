"""One site for the whole guide: its steps are tests in the order of the files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guide.bounded import missing
from tests.guide.marks import WHOLE
from tests.guide.minutes import Minutes
from tests.guide.order import Order
from tests.guide.site import CHECKOUT, Site, prepare_layer

MINUTES = Minutes()
ORDER = Order()
SITES: list[Site] = []
"""The one that runs."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if earlier := ORDER.missing(item.path.name, _step(item.name)):
        pytest.skip(f"comes after {earlier}, which has not passed")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    file, _, name = report.nodeid.partition("::")
    if report.when == "call" and Path(file).parent == Path("tests/guide"):
        ORDER.happened(Path(file).name, _step(name), passed=report.passed)
        MINUTES.add_test(Path(file).stem, _step(name), report.duration)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Tests that come afterwards have the machine for themselves."""
    if nextitem is None or nextitem.path.parent != item.path.parent:
        for site in SITES:
            site.stop()


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
        SITES.append(site)
        try:
            try:
                with MINUTES.of(before, "machines"):
                    site.make_machines()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                if WHOLE:
                    raise
                pytest.skip(f"no machines of namespaces here: {error}")
            for name, start in site.base.parts().items():
                with MINUTES.of(before, name):
                    start()
            yield site
        finally:
            site.stop()
            SITES.remove(site)


def _step(name: str) -> str:
    """Of a test: those of one function are one step."""
    return name.partition("[")[0]
