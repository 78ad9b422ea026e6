"""What stands in the log of a role."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from kilonova import log as logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    out = io.StringIO()
    logs.configure(out)
    yield out
    structlog.reset_defaults()
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("log", [structlog.get_logger("ours"), logging.getLogger("a.library")])
def test_a_failure_is_logged_with_its_traceback(stream: io.StringIO, log: logging.Logger) -> None:
    try:
        raise RuntimeError("out of order")
    except RuntimeError:
        log.exception("it failed")
    line = json.loads(stream.getvalue())
    assert line["event"] == "it failed"
    assert "test_log.py" in line["exception"]
    assert line["exception"].endswith("RuntimeError: out of order")
