"""MariaDB as a Galera cluster of the tests' own: nodes on loopback, and an address before them that can be moved."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.gate import Gate, Gates
from tests.support.mariadb import MariaDB
from tests.support.processes import free_port, spawn, wait_until

PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")


def _account() -> str:
    """The daemon that a new node is filled by gives root's rights up, and could not write to root's directory."""
    return "mysql" if os.getuid() == 0 else getpass.getuser()


class Node(MariaDB):
    """One node. `start` joins the cluster of the nodes that run; `found` makes one."""

    def __init__(self, directory: Path, first: Node | None = None) -> None:
        super().__init__(directory)
        if first is not None:
            # A database that is made at one node is there at the others.
            self._numbers = first._numbers
        self.group_port = free_port()
        self.group: list[int] = []
        """Where the nodes speak with each other."""

    def found(self) -> None:
        self._start([*self._command(), "--wsrep-cluster-address=gcomm://", "--wsrep-new-cluster"])

    def start(self) -> None:
        addresses = ",".join(f"127.0.0.1:{port}" for port in self.group)
        self._start([*self._command(), f"--wsrep-cluster-address=gcomm://{addresses}"])

    def _start(self, command: list[str]) -> None:
        account = pwd.getpwnam(_account())
        ids = None if account.pw_uid == os.getuid() else (account.pw_uid, account.pw_gid)
        self._server = spawn(command, log=self._log, user=ids)
        wait_until(self.is_synced, self._server, what="Galera", log=self._log, timeout=180)

    def _command(self) -> list[str]:
        # Taken anew each time: nobody holds them between two starts.
        whole, missing = free_port(), free_port()
        options = (
            f"base_host=127.0.0.1;base_port={self.group_port};gmcast.listen_addr=tcp://127.0.0.1:{self.group_port};"
            f"ist.recv_addr=127.0.0.1:{missing};gcache.size=32M"
        )
        return [
            *super()._command(),
            "--binlog-format=ROW",
            "--innodb-autoinc-lock-mode=2",
            "--wsrep-on=ON",
            f"--wsrep-provider={PROVIDER}",
            f"--wsrep-provider-options={options}",
            "--wsrep-cluster-name=kilonova",
            "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{whole}",
            f"--wsrep-node-address=127.0.0.1:{self.group_port}",
            f"--wsrep-node-incoming-address=127.0.0.1:{self.port}",
            f"--wsrep-node-name=n{self.port}",
        ]

    def is_synced(self) -> bool:
        with contextlib.suppress(subprocess.SubprocessError):
            return "Synced" in self.execute("SHOW STATUS LIKE 'wsrep_local_state_comment'")
        return False


class Galera:
    """The cluster, as what one server is to `make_cluster`: its address is that of the node in use."""

    def __init__(self, nodes: list[Node], gates: Gates) -> None:
        self.nodes = nodes
        self.gate: Gate = gates.add(nodes[0].port)

    @property
    def current(self) -> Node:
        return next(node for node in self.nodes if node.port == self.gate.target)

    def move(self, node: Node) -> None:
        """What a balancer does whose node is gone: all connections are lost, and new ones go to `node`."""
        self.gate.cut()
        self.gate.target = node.port
        self.gate.mend()

    def new_database(self) -> str:
        node = self.current
        return node.new_database().replace(f":{node.port}/", f":{self.gate.port}/")

    def execute(self, sql: str, database: str = "mysql") -> str:
        return self.current.execute(sql, database)

    def kill(self) -> None:
        self.current.kill()

    def start(self) -> None:
        self.current.start()

    def url_at(self, url: str, node: Node) -> str:
        """A database's URL, at a node itself."""
        return url.replace(f":{self.gate.port}/", f":{node.port}/")


@contextlib.contextmanager
def make_galera(count: int) -> Iterator[Galera]:
    """All nodes run and have joined."""
    account = pwd.getpwnam(_account())
    with contextlib.ExitStack() as stack:
        nodes: list[Node] = []
        for _ in range(count):
            directory = Path(tempfile.mkdtemp(prefix="kn-galera-"))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            node = Node(directory, nodes[0] if nodes else None)
            if not nodes:
                node.install()
            else:
                # Filled anew when it joins; the server's own tables have to be there before.
                shutil.copytree(nodes[0].directory, directory, dirs_exist_ok=True)
            nodes.append(node)
        for node in nodes:
            node.group = [each.group_port for each in nodes]
            for path in (node.directory, *node.directory.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)
            stack.callback(node.close)
        nodes[0].found()
        nodes[0].grant()
        for node in nodes[1:]:
            node.start()
        gates = Gates()
        stack.callback(gates.close)
        yield Galera(nodes, gates)
