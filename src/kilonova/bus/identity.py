"""Who may say what: the broker vouches for a message's sender, and here it is held against what the message claims.

A broker user is either one of the control plane's, which may say everything, or `PROGRAM.HOST`, which speaks for that
program at that host alone.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kilonova.bus.messages import (
    ConsumeConsoleToken,
    Heartbeat,
    Heartbeats,
    HostReport,
    LiveConsoles,
    Message,
    PowerReport,
    ProgressReport,
    Result,
)
from kilonova.network.messages import PlaneGreeting, PlaneReport

AGENT = "nova-compute"
PROXY = "nova-novncproxy"
CERT = "nova-cert"
OF_A_HOST = (AGENT, PROXY, CERT)
"""Programs that need not be believed more than what they say of their own host."""


class Senders(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of `host_identity = required`."""

    control: frozenset[str]

    def may_send(self, user: str | None, message: Message) -> bool:
        """`user`: as the broker has validated it; None: the sender did not say, and nothing is believed."""
        if user is None:
            return False
        if user in self.control:
            return True
        program, _, host = user.partition(".")
        match message:
            case Heartbeat():
                return (message.binary, message.host) == (program, host) and program in OF_A_HOST
            case Heartbeats():
                return message.binary == program == AGENT and {*message.hosts, *message.unchanged} <= {host}
            case Result() | ProgressReport() | HostReport() | PowerReport() | PlaneGreeting() | PlaneReport():
                return program == AGENT and message.host == host
            case ConsumeConsoleToken() | LiveConsoles():
                return program == PROXY
            case _:
                return False

    def may_answer(self, user: str | None, address: str) -> bool:
        """Whether what was asked of this address may be answered by this user."""
        if user is None:
            return False
        if user in self.control:
            return True
        program, _, host = user.partition(".")
        kind, _, asked = address.partition(".")
        answerers: dict[str, Callable[[], bool]] = {
            "agent": lambda: program == AGENT and host == asked,
            "cert": lambda: program == CERT,
        }
        return kind in answerers and answerers[kind]()


def own_user(program: str, host: str) -> str:
    """The broker user of a program that speaks for its host alone."""
    return f"{program}.{host}"
