"""The processes of a run: servers on ports, the client with its lines of JSON, and what they used of the machine."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

_START = 60.0
"""Seconds that a server may take to answer first."""


class Server:
    """A child that serves HTTP on `port`. `log`: where its output goes."""

    def __init__(self, module: str, arguments: Sequence[str], port: int, log: Path, path: str = "/healthcheck") -> None:
        self.port = port
        started = time.perf_counter()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )
        self._log = log
        self._wait(path)
        self.start_seconds = time.perf_counter() - started

    def _wait(self, path: str) -> None:
        until = time.monotonic() + _START
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5):
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    self.stop()
                    output = self._log.read_text()[-2000:]
                    raise RuntimeError(f"a server of the benchmark did not start:\n{output}") from None
                time.sleep(0.01)

    def cpu(self) -> float:
        """Seconds of processor that all its threads have used, as the scheduler counts: nanoseconds, no ticks."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def rss(self) -> int:
        """Bytes of memory in use."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.kill()


class Client:
    """The load's process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.client"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def send(
        self,
        port: int,
        requests: Sequence[bytes],
        *,
        connections: int = 1,
        seconds: float = 0.0,
        count: int = 0,
        keep: bool = False,
    ) -> dict[str, Any]:
        """See `bench.client.run`."""
        self.begin(port, requests, connections=connections, seconds=seconds, count=count, keep=keep)
        return self.result()

    def begin(
        self,
        port: int,
        requests: Sequence[bytes],
        *,
        connections: int = 1,
        seconds: float = 0.0,
        count: int = 0,
        keep: bool = False,
    ) -> None:
        encoded = [base64.b64encode(request).decode() for request in requests]
        ask = {
            "port": port, "requests": encoded, "connections": connections,
            "seconds": seconds, "count": count, "keep": keep,
        }  # fmt: skip
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(ask) + "\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the benchmark's client ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)


def load_average() -> float:
    return os.getloadavg()[0]
