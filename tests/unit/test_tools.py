"""Disk tools under the event loop that the roles run on."""

from __future__ import annotations

from pathlib import Path

import pytest
import uvloop

from kilonova.agent import tools


def run(*command: str, umask: int = 0o022, timeout: float = 30.0) -> bytes:
    return uvloop.run(tools.run(*command, umask=umask, timeout=timeout))


def test_a_tools_files_are_as_private_as_asked(tmp_path: Path) -> None:
    run("touch", str(tmp_path / "a"), umask=0o077)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_what_a_tool_says_is_in_the_error() -> None:
    with pytest.raises(tools.ToolFailed, match="No such file") as caught:
        run("ls", "/absent")
    assert caught.value.exit_status == 2


def test_a_tool_that_does_not_end_is_ended() -> None:
    with pytest.raises(tools.ToolFailed, match="did not end within"):
        run("sleep", "60", timeout=0.2)


def test_a_tool_that_is_not_installed_is_named() -> None:
    with pytest.raises(tools.ToolFailed, match=r"no-such-tool.*not installed"):
        run("no-such-tool")
