"""What travels between roles. Every message may be lost, doubled or late; the receivers cope."""

from __future__ import annotations

import msgspec

from kilonova.agent.allocation import Allocation
from kilonova.agent.driver import ImageSpec, Inventory, Secrets
from kilonova.network.messages import PlaneGreeting, PlanePlan, PlaneReport
from kilonova.scheduler.request import PlacementRequest


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Conductor -> agent: do one thing to one server.

    `key` names the work, '<operation>/<step>/<do|undo>/<attempt>': the same key is
    never done twice, and asking again returns the stored result. Of two keys of one
    server the one of the older operation is refused once a newer one was seen.
    """

    key: str
    operation_id: int
    server_uuid: str
    verb: str
    args: msgspec.Raw
    reply_to: str
    secrets: Secrets | None = None
    traceparent: str | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Agent -> the conductor that asked. `error` is None on success."""

    key: str
    operation_id: int
    host: str
    data: dict[str, object] = {}
    error: str | None = None
    error_kind: str | None = None
    """`host` (another host may do it), `invalid` (none could), `transient`, `superseded`, `unknown`."""
    details: str | None = None
    seconds: float | None = None
    """On the host, from its start; without what it waited for its turn."""


class ProgressReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    key: str
    operation_id: int
    host: str
    stage: str
    percent: int


class Unchanged(msgspec.Struct, frozen=True, kw_only=True):
    """A host says nothing new: which report still holds, and what of it always moves."""

    digest: str
    """As the report had it."""
    hypervisor_hostname: str
    uptime: str | None = None
    disk_available_least: int | None = None
    """GiB."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Every role, every `report_interval` seconds. `incarnation` changes at each start."""

    host: str
    binary: str
    incarnation: str
    unchanged: Unchanged | None = None
    """Now and then; a conductor that does not know the report asks for it."""


class Heartbeats(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The same of many hosts in one process: `hosts` are incarnations by host."""

    hosts: dict[str, str]
    binary: str
    unchanged: dict[str, Unchanged] = {}


class HostReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Agent -> conductor at its start, whenever the inventory changes, and when it is asked for."""

    host: str
    incarnation: str
    inventory: Inventory
    boot_id: str = ""
    """Of the machine; another one than last time means that it was booted: guests that should run may be off."""
    allocation: Allocation | None = None
    """By the host's own configuration; None: as the conductor's says."""
    digest: str = ""
    """Of all that lasts in this report; empty: it is not going to be referred to."""
    states: dict[str, int] | None = None
    """Power states of every guest of ours on the host, at its start and when it was asked."""


class ReportWanted(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Conductor -> agent: what you refer to is not known here, report anew. Losing it costs the time until the next."""


class PowerReport(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Agent -> conductor: power states of guests; `complete` when it names every guest of ours on the host.

    `routine`: one that comes every `sync_power_state_interval`; it may wait for those of other hosts.
    """

    host: str
    incarnation: str
    states: dict[str, int]
    complete: bool = False
    routine: bool = False


class ServerQuestion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """API -> agent, bounded and read-only: `console_output`, `diagnostics`, `power_state`, `console`."""

    server_uuid: str
    what: str
    args: dict[str, object] = {}


class HostQuestion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`kilonova doctor` -> agent: how is the host? Answered as `agent.condition` says."""


class CacheImages(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """API -> agent: fetch these images, they will be wanted soon. A hint; losing it costs the time it saves."""

    images: list[ImageSpec]
    secrets: Secrets


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    data: dict[str, object] = {}
    error: str | None = None


class SchedulingQuestion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Conductor -> scheduler: where could this go? `fresh`: read the hosts anew first. Answered by a Placement."""

    request: PlacementRequest
    fresh: bool = False
    traceparent: str | None = None


class Wake(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A hint to conductors: this operation is ready. Losing it costs a sweep's period, nothing else."""

    operation_id: int


class NetworkEvent(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """API -> conductor: Networking told of a server's port. A hint; losing it costs the time until the next look.

    `name` as in os-server-external-events, without the prefix `network-`.
    """

    server_uuid: str
    name: str
    port_id: str | None = None


class ConsumeConsoleToken(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Console proxy -> consoleauth: what does this open? The token is used up by it.

    Answered by `refused` (and `message`), or by connection, server, kind, seconds, host, port and ticket.
    """

    token: str
    session: str = ""
    """Made up by the page; whoever has it may come back for a while."""


class LiveConsoles(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Console proxy -> consoleauth, every few seconds: the connections it has.

    Answered by those that `ended`, with the reason: `revoked`, or `replaced` by a later one of the same session.
    """

    connections: list[str]


class SignCertificate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """API -> cert: sign this request (PEM) for a user of a project. Answered by `certificate` (PEM)."""

    request: str
    user_id: str
    project_id: str


class AuthorityQuestion(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """API -> cert: what is your own certificate? Answered by `certificate` (PEM)."""


Message = (
    Command
    | Result
    | ProgressReport
    | Heartbeat
    | Heartbeats
    | HostReport
    | ReportWanted
    | PowerReport
    | ServerQuestion
    | HostQuestion
    | CacheImages
    | Answer
    | SchedulingQuestion
    | Wake
    | NetworkEvent
    | ConsumeConsoleToken
    | LiveConsoles
    | SignCertificate
    | AuthorityQuestion
    | PlaneGreeting
    | PlanePlan
    | PlaneReport
)
