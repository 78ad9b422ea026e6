"""HAProxy before the nodes of a Galera cluster, with the file that operators are given (deploy/haproxy/galera.cfg)."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.cluster import ROOT
from tests.support.galera import Galera, Node
from tests.support.processes import accepts, end, free_port, spawn, wait_until

PROGRAM = Path("/usr/sbin/haproxy")
_OWN_ADDRESS = "192.168.101.10:3306"


class Balanced:
    """The cluster behind the balancer, as what one server is to `make_cluster`."""

    def __init__(self, galera: Galera, port: int) -> None:
        self.nodes = galera.nodes
        self.port = port

    def new_database(self) -> str:
        node = self._running()
        return node.new_database().replace(f":{node.port}/", f":{self.port}/")

    def execute(self, sql: str, database: str = "mysql") -> str:
        """At a node itself, without the balancer."""
        return self._running().execute(sql, database)

    def kill(self) -> None:
        self.nodes[0].kill()

    def start(self) -> None:
        self.nodes[0].start()

    def _running(self) -> Node:
        return next(node for node in self.nodes if node.is_synced())


def _configuration(galera: Galera, port: int, peers: Sequence[int], idle: str) -> str:
    text = (ROOT / "deploy/haproxy/galera.cfg").read_text()
    changes = {_OWN_ADDRESS: f"127.0.0.1:{port}", "timeout client 1h": f"timeout client {idle}"}
    for number, node in enumerate(galera.nodes, 1):
        changes[f"controller0{number}:3306"] = f"127.0.0.1:{node.port}"
        changes[f"controller0{number}:10001"] = f"127.0.0.1:{peers[number - 1]}"
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return f"global\n    nbthread 1\n{text}"


@contextlib.contextmanager
def make_balanced(galera: Galera, *, balancers: int = 1, idle: str = "1h") -> Iterator[list[Balanced]]:
    """The same cluster by each of so many. `idle`: after so long a connection that says nothing is ended."""
    galera.nodes[0].execute("CREATE USER IF NOT EXISTS haproxy@'%'")
    peers = [free_port() for _ in galera.nodes]
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(1, balancers + 1):
            directory = Path(tempfile.mkdtemp(prefix="kn-haproxy-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            port, log, file = free_port(), directory / "haproxy.log", directory / "haproxy.cfg"
            file.write_text(_configuration(galera, port, peers, idle))
            process = spawn([str(PROGRAM), "-db", "-L", f"controller0{number}", "-f", str(file)], log=log)
            stack.callback(end, process)
            wait_until(lambda port=port: accepts(port), process, what="HAProxy", log=log)  # type: ignore[misc]
            made.append(Balanced(galera, port))
        yield made
