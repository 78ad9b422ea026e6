"""What stands in the log of a role."""

from __future__ import annotations

import errno
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


class _Full(io.StringIO):
    """A file on a disk that is full."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_log_that_cannot_be_written_ends_nobodys_work() -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    logs.configure(_Full())
    try:
        structlog.get_logger("ours").error("it failed")
        root.handlers[0].stream.flush()  # type: ignore[attr-defined]  # a StreamHandler
        root.error("it failed")
    finally:
        structlog.reset_defaults()
        root.handlers[:] = before
        root.setLevel(level)
