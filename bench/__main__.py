"""`python -m bench`: measure, print the tables, and with `--write` put them into docs/performance.md."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sqlite3
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import compare, creates, footprint, profile, results, scene, scheduler, statements
from bench.document import write
from bench.processes import Client, Server, load_average
from bench.watch import Watch

FILL = 1000


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """One run in `directory`, on ports from `port` on."""

    def __init__(self, directory: Path, port: int, rounds: int) -> None:
        self.directory = directory
        self.port = port
        self.rounds = rounds
        self.client = Client()
        self.found = results.Results(load=load_average())

    def cloud(self, name: str, hosts: int = 1) -> Server:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        arguments = [str(directory), str(self.port), "--hosts", str(hosts)]
        server = Server("bench.cloud", arguments, self.port, directory / "log")
        with contextlib.closing(Watch(directory)) as watch:
            while watch.hosts() < hosts:
                pass
        return server

    def floor(self, name: str, templates: dict[str, Any]) -> Server:
        """The floor, on a copy of the cloud's database."""
        directory = self.directory / name
        database, file = directory / "floor.sqlite", directory / "templates.json"
        source, copy = sqlite3.connect(directory / "compute.sqlite"), sqlite3.connect(database)
        source.backup(copy)
        copy.close()
        source.close()
        file.write_text(json.dumps(templates))
        port = self.port + 1
        return Server("bench.floor", [str(database), str(file), str(port)], port, directory / "log")

    def answer(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One answer's JSON, or None for 404."""
        raw = b"" if body is None else json.dumps(body).encode()
        sent = scene.request(self.port, method, f"/v2.1{path}", raw)
        answer = self.client.send(self.port, [sent], count=1, keep=True)
        return None if "404" in answer["statuses"] else json.loads(answer["bodies"][0])

    def counts(self) -> None:
        async def count() -> None:
            directory = self.directory / "counted"
            directory.mkdir()
            async with statements.bench(directory) as made:
                self.found.counted = await statements.count_life(made) | await statements.count_requests(made)
                self.found.idle_statements = await statements.count_idle(made, 10.0)
            directory = self.directory / "ports"
            directory.mkdir()
            counted, self.found.calls = await statements.count_ports(directory)
            self.found.counted |= counted

        asyncio.run(count())

    def one_host(self, fill: int) -> None:
        cloud = self.cloud("one")
        watch = Watch(self.directory / "one")
        try:
            creates.burst(cloud, self.client, watch, 20)
            self.found.empty = [creates.burst(cloud, self.client, watch, 100) for _ in range(2)]
            self.found.one_by_one = creates.one_by_one(cloud, self.client, watch)
            missing = fill - watch.count()
            say(f"creates: {self.found.empty[-1].per_second:.0f} per s; {missing} more to fill the host")
            if missing > 0:
                creates.burst(cloud, self.client, watch, missing, connections=8)
            self.found.full = [creates.burst(cloud, self.client, watch, 100) for _ in range(2)]
            say("requests beside the floor")
            self.requests(cloud, watch)
            self.found.rss_after_lists = cloud.rss()
        finally:
            watch.close()
            cloud.stop()

    def requests(self, cloud: Server, watch: Watch) -> None:
        uuids = watch.uuids()
        templates = {
            "server": self.answer("GET", f"/servers/{uuids[0]}")["server"],
            "accepted": self.answer("POST", "/servers", scene.SERVER),
            "refused": self.answer("POST", "/servers", scene.BAD_SERVER),
            "flavor": self.answer("GET", "/flavors/detail")["flavors"][0],
        }
        cases = compare.read_cases(uuids)
        limits = self.answer("GET", "/limits")
        if limits is None:
            self.leave_out(cases, "GET /limits")
        else:
            templates["limits"] = limits["limits"]
        watch.settled()
        floor = self.floor("one", templates)
        try:
            self.found.compared += compare.compare(cases, cloud, floor, self.client, self.rounds)
            create = [compare.create_case(watch.settled)]
            self.found.compared += compare.compare(create, cloud, floor, self.client, self.rounds)
        finally:
            floor.stop()

    def leave_out(self, cases: list[compare.Case], name: str) -> None:
        self.found.left_out.append(name)
        cases[:] = [case for case in cases if case.name != name]

    def hypervisors(self, hosts: int) -> None:
        name = f"hosts-{hosts}"
        cloud = self.cloud(name, hosts)
        try:
            answer = self.answer("GET", "/os-hypervisors/detail")
            if answer is None:
                self.found.left_out.append(f"GET /os-hypervisors/detail, {hosts}")
                return
            floor = self.floor(name, {"hypervisor": answer["hypervisors"][0]})
            try:
                case = compare.hypervisors_case(hosts)
                self.found.compared += compare.compare([case], cloud, floor, self.client, self.rounds)
            finally:
                floor.stop()
        finally:
            cloud.stop()

    def kill(self) -> None:
        self.found.survival = creates.survival(lambda: self.cloud("killed"), self.directory / "killed", self.client)

    def start_and_memory(self) -> None:
        self.found.footprint = footprint.measure(self.directory / "roles", self.port - 8774 + 2)

    def profiles(self, fill: int) -> str:
        cloud = self.cloud("profiled")
        watch = Watch(self.directory / "profiled")
        try:
            creates.burst(cloud, self.client, watch, fill, connections=8)
            return profile.tables(profile.profile(cloud, self.client, watch))
        finally:
            watch.close()
            cloud.stop()


PARTS = ("statements", "requests", "hypervisors", "kill", "footprint", "scheduler")
EXTRA = ("profile",)
"""Only when asked for."""


def run(bench: Bench, parts: list[str], fill: int) -> None:
    if "statements" in parts:
        say("statements")
        bench.counts()
    if "scheduler" in parts:
        say("decisions of the scheduler")
        bench.found.decisions = list(scheduler.measure())
    if "footprint" in parts:
        say("start and memory")
        bench.start_and_memory()
    if "requests" in parts:
        say("creates on one simulated host")
        bench.one_host(fill)
    if "hypervisors" in parts:
        say("hypervisors")
        bench.hypervisors(1)
        bench.hypervisors(50)
    if "kill" in parts:
        say("kill -9 amid a burst")
        bench.kill()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--only", action="append", choices=PARTS + EXTRA, help="this part only; may be repeated")
    parser.add_argument("--rounds", type=int, default=compare.ROUNDS, help="of each request on each side (%(default)s)")
    parser.add_argument("--fill", type=int, default=FILL, help="servers on the host for lists (%(default)s)")
    parser.add_argument("--port", type=int, default=18400, help="the first of the ports used (%(default)s)")
    parser.add_argument(
        "--dir", type=Path, help="where the clouds keep their data: a disk, not memory (default: TMPDIR)"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kilonova-bench-", dir=given.dir) as directory:
        bench = Bench(Path(directory), given.port, given.rounds)
        try:
            parts = given.only or list(PARTS)
            if "profile" in parts:
                print(bench.profiles(given.fill))
            run(bench, parts, given.fill)
        finally:
            bench.client.close()
    if set(parts) & set(PARTS):
        text = results.tables(bench.found)
        print(text)
        if given.write:
            write("measured", text)


if __name__ == "__main__":
    main()
