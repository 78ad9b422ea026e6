"""Requests on Kilonova and on the floor, turn by turn in one run."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bench import scene
from bench.processes import Client, Server

ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """`paths` are taken in turn, `body` makes it a POST. `seconds` of load in each round and on each side."""

    name: str
    paths: list[str]
    floor_paths: list[str] | None = None
    body: bytes = b""
    status: str = "200"
    seconds: float = 0.25
    count: int = 0
    settle: Callable[[], None] | None = None
    """Called after each turn of ours, for requests that leave work behind."""
    with_cpu: bool = True

    def requests(self, port: int, paths: list[str]) -> list[bytes]:
        return [scene.request(port, "POST" if self.body else "GET", path, self.body) for path in paths]


@dataclass(kw_only=True)
class Side:
    """What was measured of one side: medians in seconds, requests a second, processor seconds a request."""

    c1: list[float] = field(default_factory=list)
    c8: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    size: int = 0


@dataclass(kw_only=True)
class Compared:
    name: str
    ours: Side
    floor: Side

    @property
    def c1_ratio(self) -> float:
        """Of the latencies at one request at a time; the median over rounds, as all of these."""
        return _ratio(self.ours.c1, self.floor.c1)

    @property
    def c8_ratio(self) -> float:
        return _ratio(self.floor.c8, self.ours.c8)

    @property
    def cpu_ratio(self) -> float:
        return _ratio(self.ours.cpu, self.floor.cpu)


def _ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True)) if below else float("nan")


def compare(cases: list[Case], ours: Server, floor: Server, client: Client, rounds: int = ROUNDS) -> list[Compared]:
    """Raises RuntimeError when a side answers with another status than the case says."""
    done = [Compared(name=case.name, ours=Side(), floor=Side()) for case in cases]
    for number in range(rounds + 1):
        for case, compared in zip(cases, done, strict=True):
            # The first round only warms both sides up.
            turns = [(ours, compared.ours, case.paths), (floor, compared.floor, case.floor_paths or case.paths)]
            for server, side, paths in turns if number % 2 else reversed(turns):
                _turn(case, server, side if number else Side(), paths, client)
                if server is ours and case.settle is not None:
                    case.settle()
    return done


def _turn(case: Case, server: Server, side: Side, paths: list[str], client: Client) -> None:
    requests = case.requests(server.port, paths)
    for connections in (1, 8):
        before = server.cpu()
        answer = client.send(
            server.port, requests, connections=connections, seconds=case.seconds, count=case.count * connections
        )
        used = server.cpu() - before
        if set(answer["statuses"]) != {case.status}:
            raise RuntimeError(f"{case.name}: answers with {answer['statuses']}, not {case.status}")
        if connections == 1:
            side.c1.append(answer["median"])
            if case.with_cpu:
                side.cpu.append(used / answer["count"])
        else:
            side.c8.append(answer["count"] / answer["elapsed"])
        side.size = answer["size"]
        if case.settle is not None:
            time.sleep(0.05)
            case.settle()


def read_cases(uuids: list[str]) -> list[Case]:
    """Requests that change nothing; `uuids` of servers to show."""
    return [
        Case(name="GET /servers/{id}", paths=[f"/v2.1/servers/{uuid}" for uuid in uuids[:50]]),
        Case(name="GET /servers, 100", paths=["/v2.1/servers?limit=100"]),
        Case(name="GET /servers, 1,000", paths=["/v2.1/servers?limit=1000"], seconds=0.4),
        Case(name="GET /servers/detail, 1", paths=["/v2.1/servers/detail?limit=1"]),
        Case(name="GET /servers/detail, 100", paths=["/v2.1/servers/detail?limit=100"]),
        Case(name="GET /servers/detail, 1,000", paths=["/v2.1/servers/detail?limit=1000"], seconds=0.8),
        Case(name=f"GET /flavors/detail, {scene.FLAVORS}", paths=["/v2.1/flavors/detail"]),
        Case(name="GET /limits", paths=["/v2.1/limits"]),
        Case(
            name="POST /servers, bad: 400",
            paths=["/v2.1/servers"],
            floor_paths=["/v2.1/bad"],
            body=json.dumps(scene.BAD_SERVER).encode(),
            status="400",
        ),
    ]


def create_case(settle: Callable[[], None]) -> Case:
    """Accepting a server. The floor inserts one row."""
    return Case(
        name="POST /servers, accepted: 202",
        paths=["/v2.1/servers"],
        body=json.dumps(scene.SERVER).encode(),
        status="202",
        count=10,
        settle=settle,
        with_cpu=False,
    )


def hypervisors_case(hosts: int) -> Case:
    return Case(name=f"GET /os-hypervisors/detail, {hosts}", paths=["/v2.1/os-hypervisors/detail"])
