"""The load: a process of its own that sends prepared bytes and looks at nothing but status and length.

Commands come as lines of JSON on standard input, one answer each on standard output. It uses plain sockets and
epoll, so that on a machine of two cores it leaves the server's core to the server.
"""

from __future__ import annotations

import base64
import json
import re
import select
import socket
import sys
import time
from collections import Counter
from typing import Any

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


class Connection:
    """One keep-alive connection with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent = 0.0
        self._parts: list[bytes] = []
        self._missing: int | None = None

    def send(self, request: bytes) -> None:
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def take(self) -> bytes | None:
        """The whole answer, or None while some of it is still to come."""
        part = self.socket.recv(1 << 20)
        if not part:
            raise ConnectionError("the server closed the connection")
        self._parts.append(part)
        if self._missing is None:
            head = b"".join(self._parts)
            end = head.find(b"\r\n\r\n")
            if end < 0:
                return None
            length = _LENGTH.search(head, 0, end + 2)
            self._parts = [head]
            self._missing = end + 4 + (int(length[1]) if length else 0) - len(head)
        else:
            self._missing -= len(part)
        if self._missing > 0:
            return None
        answer = b"".join(self._parts)
        self._parts, self._missing = [], None
        return answer


def run(port: int, requests: list[bytes], connections: int, seconds: float, count: int, keep: bool) -> dict[str, Any]:
    """Send for `seconds`, or `count` requests, over so many connections; the requests in turn.

    Stops early when the server goes away (`broken`). `keep` returns the bodies.
    """
    poll = select.epoll()
    open_ = {connection.socket.fileno(): connection for connection in (Connection(port) for _ in range(connections))}
    for descriptor in open_:
        poll.register(descriptor, select.EPOLLIN)
    latencies: list[float] = []
    statuses: Counter[str] = Counter()
    bodies: list[str] = []
    size = started = 0
    broken = False
    begin = time.perf_counter()
    until = begin + seconds
    try:
        for connection in open_.values():
            if count == 0 or started < count:
                connection.send(requests[started % len(requests)])
                started += 1
        while len(latencies) < started:
            for descriptor, _ in poll.poll(60):
                connection = open_[descriptor]
                answer = connection.take()
                if answer is None:
                    continue
                now = time.perf_counter()
                latencies.append(now - connection.sent)
                statuses[answer[9:12].decode()] += 1
                size = len(answer)
                if keep:
                    bodies.append(answer.split(b"\r\n\r\n", 1)[1].decode())
                if (started < count) if count else (now < until):
                    connection.send(requests[started % len(requests)])
                    started += 1
                else:
                    # Idle from now on: the server may close it.
                    poll.unregister(descriptor)
    except OSError:
        broken = True
    elapsed = time.perf_counter() - begin
    for connection in open_.values():
        connection.socket.close()
    latencies.sort()
    return {
        "count": len(latencies),
        "elapsed": elapsed,
        "median": latencies[len(latencies) // 2] if latencies else None,
        "p95": latencies[int(len(latencies) * 0.95)] if latencies else None,
        "statuses": statuses,
        "size": size,
        "bodies": bodies,
        "broken": broken,
    }


def main() -> None:
    for line in sys.stdin:
        ask = json.loads(line)
        ask["requests"] = [base64.b64decode(request) for request in ask["requests"]]
        print(json.dumps(run(**ask)), flush=True)


if __name__ == "__main__":
    main()
