"""Commands in network namespaces."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from typing import Any

import structlog

from kilonova import netns
from kilonova.errors import HostFailure

log = structlog.get_logger(__name__)

TIMEOUT = 60.0
"""Seconds for one command."""


class Shell:
    """Blocks. Methods raise HostFailure with what the command said. `count`: commands run so far."""

    def __init__(self) -> None:
        self.count = 0

    def run(self, *words: str, text: str | None = None) -> str:
        self.count += 1
        try:
            done = subprocess.run(
                words, input=text, capture_output=True, text=True, timeout=TIMEOUT, check=False,
                stdin=subprocess.DEVNULL if text is None else None,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise HostFailure(f"The network plane could not run {words[0]}.", details=repr(error)) from error
        if done.returncode != 0:
            details = f"{' '.join(words)}: {done.stderr.strip()[:2000]}"
            raise HostFailure("The network plane could not change the host's network.", details=details)
        return done.stdout

    def show(self, space: str, *words: str) -> list[dict[str, Any]]:
        """What `ip -j` shows in the namespace."""
        found: list[dict[str, Any]] = json.loads(self.run("ip", "-j", "-n", space, *words) or "[]")
        return [each for each in found if each]

    def shown(self, *words: str) -> list[dict[str, Any]]:
        """What `ip -j` shows where we are ourselves."""
        found: list[dict[str, Any]] = json.loads(self.run("ip", "-j", *words) or "[]")
        return [each for each in found if each]

    def forwarding(self, space: str) -> list[dict[str, Any]]:
        """The bridges' and tunnels' forwarding entries."""
        found: list[dict[str, Any]] = json.loads(self.run("bridge", "-n", space, "-j", "fdb", "show") or "[]")
        return found

    def change(self, space: str, lines: Iterable[str], *, program: str = "ip") -> None:
        """Commands of `ip`, `bridge` or `tc`, one a line; those after one that fails are not run."""
        lines = list(lines)
        if lines:
            log.info("plane.change", space=space, program=program, commands=lines[:20], number=len(lines))
            self.run(program, "-n", space, "-batch", "-", text="\n".join(lines) + "\n")

    def nft(self, space: str, lines: Iterable[str]) -> None:
        """One transaction."""
        self.inside(space, "nft", "-f", "-", text="\n".join(lines) + "\n")

    def inside(self, space: str, *words: str, text: str | None = None) -> str:
        return self.run("nsenter", f"--net={netns.path_of(space)}", *words, text=text)
