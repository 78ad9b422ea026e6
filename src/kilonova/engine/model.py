"""Workflows, steps and operations.

A step is an effect outside the database and a commit inside it. The effect may
happen more than once and must cope; the commit happens exactly once, in one
transaction with the move of the operation's cursor. Undo means 'make sure that
it is absent' and needs no result of the step.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from kilonova.db.engine import Tx
from kilonova.world import World

E = TypeVar("E")
"""The environment that steps get: the domain's runtime."""

Data = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """A row of operations; see db/tables/operations.py for the columns."""

    id: int
    kind: str
    action: str
    server_uuid: str
    project_id: str
    user_id: str
    request_id: str
    state: str
    phase: str
    step: int
    attempt: int
    owner: str | None
    epoch: int
    data: Data
    secrets: Data | None
    created_at: dt.datetime
    traceparent: str | None = None


class Fenced(Exception):
    """Somebody else owns the operation now, or it was superseded: stop at once, touch nothing."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step failed. `message` is for the server's owner, `details` for the log and the operator."""

    message: str
    kind: str = "error"
    """`host`: another host may do it; `invalid`: nobody could; `deadline`: it took too long; `error`: anything else."""
    details: str | None = None


class Stuck(Fenced):
    """Neither forward nor back; the row says so."""


class Wait(NamedTuple):
    """What a step waited for. `began` in seconds from the step's start."""

    what: str
    """`scheduler`, `turn` (of a command, to begin on its host), `host`, `networking`, `retry` (before another try)."""
    details: str
    began: float
    seconds: float


MOST_WAITS = 40
"""Kept with one step; of more, the first."""


@dataclass(slots=True)
class Run(Generic[E]):
    """One operation in the hands of this process."""

    env: E
    operation: Operation
    data: Data
    step: int
    phase: str
    attempt: int
    host: str | None = None
    """Shown with the step's event; steps that act on a host set it."""
    tries: int = 0
    """Of the effect under way; part of a command's key, lest a journal answers with an earlier transient failure."""
    failure: Failure | None = None
    report: Callable[[str, int], Awaitable[None]] | None = None
    wakes: tuple[int, ...] = ()
    """Operations that can be claimed once this one's last transaction is through."""
    scratch: Data = field(default_factory=dict)
    """Kept in memory for this run only."""
    traceparent: str | None = None
    """For spans of this operation's steps; None when it is not traced."""
    began: dt.datetime = field(init=False)
    """When the step under way did."""
    waits: list[Wait] = field(default_factory=list)
    """Of the step under way."""
    outcome: str | None = None
    """Of the operation, when it ended in this run: done, failed or stuck."""

    def __post_init__(self) -> None:
        self.began = self.operation.created_at

    @property
    def id(self) -> int:
        return self.operation.id

    @property
    def server_uuid(self) -> str:
        return self.operation.server_uuid

    def begin(self, now: dt.datetime) -> dt.datetime:
        """A step begins."""
        self.began = now
        self.waits = []
        return now

    @contextlib.contextmanager
    def waiting(self, world: World, what: str, details: str) -> Iterator[None]:
        """Note with the step that it waited for what is done in this block."""
        since = world.now()
        try:
            yield
        finally:
            self.waited(since, world.now(), what, details)

    def waited(self, since: dt.datetime, until: dt.datetime, what: str, details: str) -> None:
        if len(self.waits) < MOST_WAITS:
            before = (since - self.began).total_seconds()
            self.waits.append(Wait(what, details, round(before, 6), round((until - since).total_seconds(), 6)))

    def key(self, step_name: str) -> str:
        return f"{self.operation.id}/{step_name}/{self.phase}/{self.attempt}.{self.tries}"


Effect = Callable[[Run[E]], Awaitable[Data | None]]
Commit = Callable[[Tx, Run[E], Data], Awaitable[None]]
Finish = Callable[[Tx, Run[E]], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[E]):
    """`effect` returns what `commit` and later steps need (merged into the operation's data).

    `deadline`: seconds after which the step counts as failed, tries included.
    """

    name: str
    effect: Effect[E] | None = None
    commit: Commit[E] | None = None
    undo: Effect[E] | None = None
    undo_commit: Commit[E] | None = None
    deadline: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow(Generic[E]):
    """The steps of one kind of operation, and how it ends.

    `succeed` and `fail` run in the operation's last transaction. A failed step is
    undone, then those before it; with `retry_from` (a step's name), a failure of
    kind `host` is undone down to that step and done anew, up to `max_attempts`.
    From the step named `pivot` on there is no way back: transient or not, it is
    tried until its deadline, and then the operation is `stuck`.
    """

    kind: str
    steps: tuple[Step[E], ...]
    succeed: Finish[E]
    fail: Finish[E]
    retry_from: str | None = None
    max_attempts: Callable[[E], int] = lambda env: 1
    pivot: str | None = None

    def index(self, name: str) -> int:
        return next(i for i, step in enumerate(self.steps) if step.name == name)


class Again(Exception):
    """Raised by a commit whose world moved since the effect: roll back and do the effect anew."""


class Aborted(Exception):
    """Raised by an effect: fail with this failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
